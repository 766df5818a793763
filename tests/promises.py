"""What the tests of the promises share: cases, every way to compute them, children."""

import os
import subprocess
import sys
import textwrap

import fastconv as fc
from fastconv import testing
from fastconv._cpu import isa
from fastconv.testing.operations import (
    Activation,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Columns,
    Convolution,
    Dropout,
    Linear,
    LocalResponseNorm,
    Loss,
    Maxout,
    MaxPool,
    Softmax,
    Transposed,
)

LEVELS = isa.levels()
DTYPES = testing.DTYPES


def ids(value):
    return value.name() if isinstance(value, testing.Case) else getattr(value, "name", None)


def algorithms(case):
    """The names that can be asked for in a case's calls, "auto" first."""
    if not isinstance(case, Convolution):
        return ("auto",)
    directions = [direction.format(case.op) for direction in case.directions.values()]
    return ("auto", *dict.fromkeys(name for direction in directions for name in fc.algorithms(direction)))


def every_way(case):
    """(dtype, level, algorithm), the level in force."""
    for dtype in DTYPES:
        for level in LEVELS:
            with isa.use(level):
                for algorithm in algorithms(case):
                    yield dtype, level, algorithm


def same_results(actual, expected, what):
    assert actual.keys() == expected.keys(), what
    for name in expected:
        testing.same_bits(actual[name], expected[name], f"{what}: {name}")


def python(code, timeout=120, **environment):
    """Runs code in a new interpreter; fails with its output if it crashes, hangs or raises."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


MANY_WEIGHTS = (256, 129, 4, 4)  # for few positions, which gradients of the input take all at once
CONVOLUTIONS = (  # big enough for several threads; blocks, groups, phases, long sums
    Convolution(2, (3, 20, 30, 31), (40, 20, 3, 3), padding=1),
    Convolution(2, (3, 24, 28, 29), (33, 24, 1, 1)),
    Convolution(2, (2, 12, 41, 43), (24, 6, 5, 5), stride=2, padding=2, groups=2, activation="relu"),
    Convolution(2, (2, 32, 40, 40), (32, 1, 3, 3), padding=1, groups=32, bias=False),
    Convolution(2, (1, 70, 20, 21), (50, 70, 3, 3), padding=((0, 2), (1, 0)), padding_mode="reflect"),
    Convolution(2, (24, 16, 9, 9), (16, 16, 4, 4)),
    Convolution(2, (8, 6, 60, 61), (10, 6, 3, 3), padding=1),
    Convolution(2, (4, 20, 60, 61), (6, 20, 3, 3), padding=1, bias=False),
    Convolution(2, (2, 500, 9, 8), (9, 500, 3, 3), padding=1),
    Convolution(1, (3, 16, 1500), (24, 16, 4), dilation=3, activation="tanh"),
    Convolution(3, (2, 6, 10, 12, 13), (12, 6, 3, 3, 2), padding=1, stride=(1, 2, 1)),
)
SMALL = (  # for layouts and threads' calls: every path, little work
    Convolution(2, (2, 5, 13, 14), (9, 5, 3, 3), padding=1),
    Convolution(2, (2, 5, 13, 14), (9, 5, 3, 3), bias=False),
    Convolution(2, (2, 5, 9, 7), (9, 5, 1, 1), activation="sigmoid"),
    Convolution(2, (2, 6, 17, 13), (8, 3, 5, 4), stride=(2, 1), padding=2, groups=2),
    Convolution(2, (2, 6, 11, 12), (6, 1, 3, 3), padding=1, groups=6, padding_mode="circular"),
    Convolution(1, (2, 7, 70), (5, 7, 5), stride=3),
    Convolution(3, (2, 3, 5, 6, 7), (4, 3, 2, 3, 2), dilation=2),
    Transposed(2, (2, 5, 6, 7), (5, 3, 3, 3), stride=2, padding=1, output_padding=1),
    Transposed(2, (2, 256, 2, 1), MANY_WEIGHTS, stride=2, padding=1),
    Columns((2, 3, 9, 10), (2, 3), stride=2, padding=1),
    Linear((19, 33), 21),
    MaxPool(2, (2, 3, 13, 14), 3, stride=2, padding=1),
    AvgPool(2, (2, 3, 13, 14), 3, stride=2, padding=1),
    AdaptiveMaxPool(2, (2, 3, 13, 14), (4, 5)),
    AdaptiveAvgPool(2, (2, 3, 13, 14), (4, 5)),
    *(Activation(op, (2, 3, 7, 9)) for op in ("relu", "leaky_relu", "elu", "sigmoid", "tanh")),
    Softmax("softmax", (5, 33), -1),
    Softmax("log_softmax", (5, 9, 10), 1),
    Maxout((2, 6, 5), 3),
    Dropout((2, 6, 5), 0.3),
    Loss("softmax_cross_entropy", (11, 9), weighted=True),
    Loss("nll", (3, 5, 7)),
    Loss("sigmoid_cross_entropy", (11, 9), target="reals", weighted=True),
    Loss("squared_error", (11, 9), target="reals"),
    Loss("hinge", (11, 9)),
    BatchNorm((4, 3, 5, 6), True),
    BatchNorm((4, 3, 5, 6), False),
    LocalResponseNorm((2, 7, 4, 5), 5),
)
