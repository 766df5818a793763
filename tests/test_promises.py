"""The promises of the contract, each with a test that can fail: for every algorithm, dtype and ISA level.

Same bits whatever the threads, the run, the layout, the batch; non-finite values stay where they belong;
bounded scratch; fork and threads; the GIL; the verbose line; inputs are read and never written.
"""

import os
import re
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from containment import Clean, Spoilt, bad_values

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


@pytest.fixture(autouse=True)
def _one_thread():
    """Unless a test says otherwise: its problems are small."""
    with fc.num_threads(1):
        yield


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


# -- same bits -----------------------------------------------------------------------------------------------

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
MANY_WEIGHTS = (256, 129, 4, 4)  # for few positions, which gradients of the input take all at once
OTHERS = (
    Transposed(2, (3, 32, 14, 15), (32, 16, 4, 4), stride=2, padding=1),
    Transposed(2, (4, 256, 4, 3), MANY_WEIGHTS, stride=2, padding=1),
    Columns((3, 16, 40, 41), 3, padding=1),
    Linear((257, 700), 100),
    MaxPool(2, (4, 16, 60, 61), 3, stride=2, padding=1),
    AvgPool(2, (4, 16, 60, 61), 3, stride=1, padding=1),
    AdaptiveMaxPool(2, (3, 30, 30, 31), (4, 7)),
    AdaptiveAvgPool(2, (3, 30, 30, 31), (4, 7)),
    Activation("sigmoid", (7, 9001)),
    Softmax("softmax", (70, 1001), -1),
    Softmax("log_softmax", (4, 33, 600), 1),
    Maxout((5, 30, 401), 3),
    Dropout((9, 7001), 0.3),
    Loss("softmax_cross_entropy", (301, 255), reduction="mean", weighted=True),
    Loss("softmax_cross_entropy", (3, 20, 55, 21), reduction="sum", target="probabilities"),
    Loss("nll", (3, 20, 55, 21)),
    Loss("sigmoid_cross_entropy", (301, 255), target="reals", weighted=True),
    Loss("squared_error", (301, 255), target="reals"),
    Loss("hinge", (301, 255)),
    BatchNorm((9, 20, 19, 21), True),
    BatchNorm((9, 20, 19, 21), False),
    BatchNorm((9, 500, 4, 5), True),
    BatchNorm((2, 3, 97, 101), True),
    BatchNorm((40, 500, 2), True),
    LocalResponseNorm((3, 40, 19, 21), 5),
)


@pytest.mark.parametrize("case", CONVOLUTIONS + OTHERS, ids=ids)
def test_same_bits_whatever_the_threads_and_the_run(case):
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        with fc.num_threads(1):
            expected = case.run(fc, inputs, algorithm)
        for threads in (1, 2, 3, 8) if dtype == np.float32 else (3,):
            with fc.num_threads(threads):
                results = case.run(fc, inputs, algorithm)
            same_results(results, expected, f"{threads} threads, {level} {algorithm}")


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


@pytest.mark.parametrize("case", SMALL, ids=ids)
def test_same_bits_whatever_the_layout(case):
    """Strides, alignment, byte order, read-only: `CONVOLUTIONS` are big, here every path is taken."""
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        expected = case.run(fc, inputs, algorithm)
        for layout in testing.LAYOUTS[1:]:
            laid = {name: a if a is None else testing.lay_out(a, layout) for name, a in inputs.items()}
            same_results(case.run(fc, laid, algorithm), expected, f"{layout}, {level} {algorithm}")


@pytest.mark.parametrize("case", SMALL[:7], ids=ids)
def test_same_bits_for_mixed_layouts(case):
    """x, weight and dy need not lie alike; broadcast and overlapping views are inputs too."""
    rng = np.random.default_rng(0)
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        expected = case.run(fc, inputs, algorithm)
        for _ in range(3):
            laid = {
                name: a if a is None else testing.lay_out(a, rng.choice(testing.LAYOUTS))
                for name, a in inputs.items()
            }
            same_results(case.run(fc, laid, algorithm), expected, f"{level} {algorithm}")
        inputs["x"] = np.broadcast_to(inputs["x"][:1, :1], inputs["x"].shape)
        inputs["weight"] = np.broadcast_to(inputs["weight"][:1], inputs["weight"].shape)
        whole = {name: a if a is None else a.copy() for name, a in inputs.items()}
        same_results(case.run(fc, inputs, algorithm), case.run(fc, whole, algorithm), f"{level} {algorithm}")


# -- a sample does not depend on its batch -------------------------------------------------------------------

BATCH = 64
BATCHED = (  # per-sample shapes of x; samples straddle vectors, blocks and tiles
    Convolution(2, (BATCH, 5, 7, 7), (9, 5, 3, 3), padding=1),
    Convolution(2, (BATCH, 17, 9, 10), (13, 17, 3, 3)),
    Convolution(2, (BATCH, 20, 1, 1), (7, 20, 1, 1)),
    Convolution(2, (BATCH, 3, 6, 5), (4, 3, 1, 1), bias=False),
    Convolution(2, (BATCH, 4, 9, 17), (6, 2, 5, 5), stride=2, padding=2, groups=2, activation="leaky_relu"),
    Convolution(2, (BATCH, 6, 5, 9), (6, 1, 4, 4), padding=2, groups=6, padding_mode="replicate"),
    Convolution(2, (BATCH, 3, 40, 50), (5, 3, 5, 5), padding=2),
    Convolution(1, (BATCH, 5, 23), (6, 5, 3), dilation=2),
    Convolution(3, (BATCH, 2, 3, 4, 5), (3, 2, 2, 2, 2), padding=1),
    Transposed(2, (BATCH, 5, 4, 3), (5, 3, 3, 3), stride=2, padding=1, output_padding=1),
    Linear((BATCH, 400), 31),
    Linear((BATCH, 7), 100),
    MaxPool(2, (BATCH, 2, 7, 9), 3, stride=2),
    AvgPool(2, (BATCH, 2, 7, 9), 3, stride=2),
    AdaptiveAvgPool(2, (BATCH, 2, 7, 9), 3),
    Activation("tanh", (BATCH, 33)),
    Softmax("softmax", (BATCH, 33), 1),
    Softmax("log_softmax", (BATCH, 5, 33), 1),
    LocalResponseNorm((BATCH, 7, 5), 5),
    BatchNorm((BATCH, 7, 5), False),
    Loss("softmax_cross_entropy", (BATCH, 33), reduction="none"),
    Loss("sigmoid_cross_entropy", (BATCH, 33), target="reals", reduction="none"),
    Loss("hinge", (BATCH, 33), reduction="none"),
    Columns((BATCH, 3, 5, 6), 3),
)
SUMMED = ("dweight", "dbias", "dbias alone", "running_mean", "running_var")  # over the batch


def of_samples(case, inputs, samples):
    """The inputs of some of the samples, each contiguous."""
    batched = ("x", "dy", "y", "cols", "target")
    return {
        name: a[samples].copy() if a is not None and name in batched else a for name, a in inputs.items()
    }


@pytest.mark.parametrize("case", BATCHED, ids=ids)
def test_a_sample_does_not_depend_on_its_batch(case):
    for dtype, level, algorithm in every_way(case):
        inputs = case.inputs(dtype)
        with fc.num_threads(3):
            whole = case.run(fc, inputs, algorithm)
        for samples in ([0], [1], [31], [63], [5, 6, 7], [40, 3], list(range(9, 26))):
            x = case.x
            case.x = (len(samples), *case.x[1:])  # max pools give it to backward
            try:
                some = case.run(fc, of_samples(case, inputs, samples), algorithm)
            finally:
                case.x = x
            for name, result in some.items():
                if not name.endswith(SUMMED):
                    what = f"{name} of samples {samples}, {level} {algorithm}"
                    testing.same_bits(result, whole[name][samples], what)


def test_a_single_sample_needs_no_batch_axis():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 4, 9, 9)), rng.standard_normal((5, 4, 3, 3))
    dy = rng.standard_normal((3, 5, 9, 9))
    y, (dx, _, _) = fc.conv2d(x, w, padding=1), fc.conv2d_backward(dy, x, w, padding=1)
    for n in range(3):
        testing.same_bits(fc.conv2d(x[n], w, padding=1), y[n])
        testing.same_bits(fc.conv2d_backward(dy[n], x[n], w, padding=1)[0], dx[n])


# Results of 16 MiB and more are written past the caches: planes that are whole lines and others, positions that
# no output of a strided convolution has read.
LARGE = (((112, 112), 1, None), ((105, 109), 1, "relu"), ((112, 110), (2, 2), None), ((111, 109), (1, 3), None))


@pytest.mark.parametrize("size, stride, activation", LARGE)
@pytest.mark.parametrize("level", LEVELS)
def test_large_results_have_the_bits_of_small_ones(level, size, stride, activation):
    rng = np.random.default_rng(0)
    x, dense = (rng.standard_normal((6, 5, *size)).astype(np.float32) for _ in range(2))
    w = rng.standard_normal((61, 5, 1, 1)).astype(np.float32)
    dy = dense[(..., *(slice(None, None, step) for step in np.broadcast_to(stride, 2)))]
    wide = np.empty((6, 61, *size), np.float32)  # the input whose gradient is asked for; its values do not matter
    few = {"output_mask": (True, False, False), "stride": stride, "algorithm": "implicit_gemm"}
    with isa.use(level), fc.num_threads(2):
        y = fc.conv2d(x, w, activation=activation, algorithm="implicit_gemm")
        dx = fc.conv2d_backward(dy, wide, w.swapaxes(0, 1), **few)[0]
        for n in (0, 3, 5):
            testing.same_bits(fc.conv2d(x[n], w, activation=activation, algorithm="implicit_gemm"), y[n])
            testing.same_bits(fc.conv2d_backward(dy[n], wide[n], w.swapaxes(0, 1), **few)[0], dx[n])


SIMILAR = [case for case in testing.cases() if isinstance(case, (Convolution, Transposed))]


@pytest.mark.parametrize("case", SIMILAR, ids=ids)
def test_the_algorithm_and_its_scratch_do_not_depend_on_the_batch(case):
    """Of what "auto" chooses; and im2col's blow-up, when it is asked for, is no secret."""
    if len(case.x) == case.ndim + 1:
        case = type(case)(case.ndim, (1, *case.x), case.weight, bias=case.bias, **case.options)
    for dtype in DTYPES:
        weight = np.broadcast_to(dtype.type(0), case.weight)
        for direction in case.directions.values():
            plans = []
            for n in (1, 8, 64):
                x = np.broadcast_to(dtype.type(0), (n, *case.x[1:]))
                plans.append(fc.plan(direction.format(case.op), x, weight, **case.options))
            assert len({plan.algorithm for plan in plans}) == 1
            assert plans[1].scratch_bytes == plans[2].scratch_bytes


# -- non-finite values stay where they belong ----------------------------------------------------------------

CONTAINED = (
    Convolution(2, (2, 3, 9, 14), (5, 3, 3, 3), padding=1, bias=False),
    Convolution(2, (2, 3, 9, 14), (5, 3, 3, 3), bias=False),
    Convolution(2, (2, 3, 8, 9), (9, 3, 1, 1), bias=False),
    Convolution(2, (1, 4, 11, 13), (6, 2, 5, 5), padding=((2, 1), (0, 3)), groups=2),
    Convolution(2, (1, 4, 10, 11), (4, 1, 4, 4), padding=2, groups=4, bias=False),
    Convolution(2, (1, 3, 13, 12), (4, 3, 3, 3), stride=2, padding=1, bias=False),
    Convolution(2, (1, 3, 15, 14), (4, 3, 7, 7), stride=(2, 2), padding=3, bias=False),
    Convolution(2, (1, 2, 12, 13), (3, 2, 2, 2), stride=1, bias=False),
    Convolution(2, (1, 2, 12, 13), (3, 2, 7, 7), padding=3, bias=False),
    Convolution(2, (1, 2, 12, 13), (3, 2, 3, 3), dilation=2, padding=2, bias=False),
    Convolution(2, (1, 2, 9, 10), (3, 2, 3, 3), padding=2, padding_mode="circular", bias=False),
    Convolution(2, (1, 2, 9, 10), (3, 2, 3, 3), padding=2, padding_mode="reflect", bias=False),
    Convolution(1, (2, 3, 40), (5, 3, 4), stride=3, padding=1, bias=False),
    Convolution(3, (1, 2, 4, 5, 6), (3, 2, 3, 2, 2), padding=1, bias=False),
    # windows that see nothing but padding: in front of the input, behind it, on both sides of it at once
    Convolution(2, (2, 3, 5, 4), (4, 3, 1, 1), stride=(1, 3), padding=((2, 1), (1, 1)), bias=False),
    Convolution(2, (2, 4, 9, 10), (4, 2, 3, 3), padding=((4, 0), (0, 5)), groups=2, bias=False),
    Convolution(2, (2, 4, 9, 10), (4, 1, 3, 3), padding=(0, 4), groups=4, bias=False),
    Convolution(1, (2, 3, 1), (5, 3, 2), dilation=2, padding=3, bias=False),
    Convolution(1, (3, 2, 2), (4, 2, 2), stride=3, padding=4, bias=False),
)


@pytest.mark.parametrize("case", CONTAINED, ids=ids)
def test_non_finite_values_stay_where_they_belong(case):
    """Single bad values, and many at once: the untouched are right, the touched are IEEE arithmetic's."""
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        clean = Clean(case, dtype, rng)
        ways = [(bad, density) for bad in bad_values(dtype) for density in (0, 0, 0.04)]
        spoilt = [Spoilt(clean, rng, *way) for way in ways]
        for algorithm in algorithms(case):
            for level in LEVELS:
                for one in spoilt:
                    with isa.use(level):
                        one.check(algorithm, f"{level} {algorithm}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
def test_non_finite_values_stay_in_their_row_of_linear(level, dtype):
    rng = np.random.default_rng(0)
    x, w, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((9, 21), (11, 21), (9, 11)))
    with isa.use(level):
        y, (dx, dweight, dbias) = fc.linear(x, w), fc.linear_backward(dy, x, w)
        for bad in bad_values(dtype):
            spoilt = x.copy()
            spoilt[3, 5] = bad
            rows, columns = np.arange(9) != 3, np.arange(21) != 5
            testing.same_bits(fc.linear(spoilt, w)[rows], y[rows])
            testing.same_bits(fc.linear_backward(dy, spoilt, w)[1][:, columns], dweight[:, columns])
            spoilt = dy.copy()
            spoilt[3, 5] = bad
            given = fc.linear_backward(spoilt, x, w)
            testing.same_bits(given[0][rows], dx[rows])
            outputs = np.arange(11) != 5
            testing.same_bits(given[1][outputs], dweight[outputs])
            testing.same_bits(given[2][outputs], dbias[outputs])


# -- memory --------------------------------------------------------------------------------------------------


def python(code, timeout=120, **environment):
    """Runs code in a new interpreter; fails with its output if it crashes, hangs or raises."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")  # ru_maxrss would start at the parent's
@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
def test_memory_is_what_the_plan_says(algorithm):
    """The high-water mark of a process rises by the result and scratch_bytes, not by im2col's matrix."""
    python(
        f"""
        import re
        import numpy as np
        import fastconv as fc

        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

        fc.set_num_threads(2)
        x, w = np.ones((8, 16, 96, 96), np.float32), np.ones((16, 16, 3, 3), np.float32)
        dy = x.copy()
        small = x[:1, :, :8, :8]
        fc.conv2d(small, w, padding=1)  # the kernels are loaded
        fc.conv2d_backward(small, small, w, padding=1, output_mask=(True, True, False))
        columns, slack = 9 * x.nbytes, 6 << 20  # slack: threads' stacks, NumPy, Python
        how, first = dict(padding=1, algorithm={algorithm!r}), peak()
        for direction, mask in (
            ("conv2d", None),
            ("conv2d_backward_input", (True, False, False)),
            ("conv2d_backward_weight", (False, True, False)),
        ):
            plan = fc.plan(direction, x, w, **how)
            before = peak()
            fc.conv2d_backward(dy, x, w, **how, output_mask=mask) if mask else fc.conv2d(x, w, **how)
            rise = peak() - before
            limit = plan.scratch_bytes + x.nbytes + slack
            assert rise <= limit, (direction, rise, limit)
            assert (plan.algorithm == "im2col") == (plan.scratch_bytes >= columns), plan
        assert (plan.algorithm == "im2col") == (peak() - first >= columns - slack)  # it would have been seen
        """
    )


# -- fork and threads ----------------------------------------------------------------------------------------

WORK = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")         # Python 3.12 on: fork in a process with threads
import numpy as np
import fastconv as fc

fc.set_num_threads(2)
rng = np.random.default_rng(0)
x, w = rng.standard_normal((4, 16, 40, 40)).astype("f4"), rng.standard_normal((24, 16, 3, 3)).astype("f4")

def work():
    y = fc.conv2d(x, w, padding=1)
    dx, dweight, dbias = fc.conv2d_backward(y, x, w, padding=1)
    p = fc.max_pool2d(y, 2)
    s = fc.softmax(p.reshape(4, -1))
    z = fc.linear(y.reshape(96, -1), y.reshape(96, -1))
    return b"".join(a.tobytes() for a in (y, dx, dweight, dbias, p, s, z))

expected = work()

def child_is_right(fork=os.fork):
    pid = fork()
    if pid == 0:
        try:
            os._exit(0 if work() == expected and work() == expected else 3)
        finally:
            os._exit(4)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
"""


def worked(code, **environment):
    return python(WORK + textwrap.dedent(code), **environment)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@needs_fork
def test_fork_after_kernels_ran():
    worked(
        """
        for _ in range(3):
            child_is_right()
            assert work() == expected
        """
    )


@needs_fork
def test_fork_of_a_fork():
    worked(
        """
        pid = os.fork()
        if pid == 0:
            assert work() == expected
            child_is_right()
            child_is_right()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """
    )


@needs_fork
def test_fork_from_another_thread():
    """Kernels ran in the main thread and in others; a thread forks that ran some, and one that ran none."""
    worked(
        """
        failures = []
        def job(first):
            try:
                if first:
                    assert work() == expected
                child_is_right()
                assert work() == expected
            except BaseException as failure:
                failures.append(failure)
        for first in (True, False):
            thread = threading.Thread(target=job, args=(first,))
            thread.start()
            thread.join()
        assert not failures, failures
        assert work() == expected
        child_is_right()
        """
    )


@needs_fork
def test_multiprocessing_by_fork():
    worked(
        """
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(3) as pool:
            results = [pool.apply_async(work) for _ in range(6)]
            assert all(r.get(60) == expected for r in results)
        assert work() == expected
        """
    )


@needs_fork
def test_fork_while_another_thread_has_ended_its_calls():
    """Threads with OpenMP teams of their own are alive, but outside a call, when the process forks."""
    worked(
        """
        ready, go = threading.Barrier(4), threading.Event()
        def idle():
            assert work() == expected
            ready.wait()
            go.wait()
            assert work() == expected
        threads = [threading.Thread(target=idle) for _ in range(3)]
        for thread in threads:
            thread.start()
        ready.wait()
        child_is_right()
        child_is_right()
        go.set()
        for thread in threads:
            thread.join()
        """
    )


def test_many_threads_at_once():
    """Every case of `SMALL` in eight threads, each in its own order, with two OpenMP threads each."""
    jobs = []
    for case in SMALL + CONVOLUTIONS[:2]:
        for dtype in DTYPES:
            for algorithm in algorithms(case):
                inputs = case.inputs(dtype)
                jobs.append((case, inputs, algorithm, case.run(fc, inputs, algorithm)))
    failures = []

    def work(seed):
        try:
            for i in np.random.default_rng(seed).permutation(len(jobs)):
                case, inputs, algorithm, expected = jobs[i]
                same_results(case.run(fc, inputs, algorithm), expected, case.name())
        except BaseException as failure:
            failures.append(failure)

    with fc.num_threads(2):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]


LONG = (  # of some tens of milliseconds in one thread
    Convolution(2, (8, 64, 60, 60), (64, 64, 3, 3), padding=1),
    Transposed(2, (8, 64, 28, 28), (64, 64, 4, 4), stride=2, padding=1),
    Columns((8, 32, 100, 100), 3, padding=1),
    Linear((2000, 1000), 1000),
    MaxPool(2, (8, 64, 160, 160), 3, stride=1),
    AvgPool(2, (8, 64, 160, 160), 3, stride=1),
    AdaptiveAvgPool(2, (8, 64, 160, 160), 7),
    Activation("tanh", (3000, 3000)),
    Activation("relu", (4000, 4000)),
    Softmax("log_softmax", (3000, 3000)),
    Maxout((40, 300, 600), 3),
    Loss("softmax_cross_entropy", (3000, 3000)),
    Loss("nll", (300, 30, 600)),
    Loss("sigmoid_cross_entropy", (3000, 2000), target="reals"),
    Loss("squared_error", (4000, 4000), target="reals"),
    Loss("hinge", (3000, 3000)),
    BatchNorm((16, 64, 100, 100), True),
    LocalResponseNorm((8, 64, 60, 60), 5),
)


class Silence:
    """Within it a second thread looks at the clock all the time, as often as the GIL lets it."""

    def __enter__(self):
        self._ticks, self._stop = [], threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        while not self._ticks:
            time.sleep(0.001)
        return self

    def _watch(self):
        while not self._stop.is_set():
            self._ticks.append(time.perf_counter())
            time.sleep(0.0005)

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def broken(self, start, end):
        """Whether the thread ran in the middle half of this time: what is Python is at the two ends."""
        edge = (end - start) / 4
        return any(start + edge < tick < end - edge for tick in self._ticks)


class Timed:
    """The public functions, noting when each call began and ended."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        function = getattr(fc, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.calls.append((name, start, time.perf_counter()))
            return result

        return timed


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.skipif(CORES < 2, reason="on one core the other thread runs only when the system interrupts the first")
@pytest.mark.parametrize("case", LONG, ids=ids)
def test_the_gil_is_released(case):
    """In every function that a case runs."""
    inputs, released, called = case.inputs(np.dtype(np.float32)), set(), set()
    for _ in range(60):  # a busy machine may leave the other thread no core for a while
        timed = Timed()
        with fc.num_threads(1), Silence() as silence:
            case.run(timed, inputs)
        called |= {name for name, _, _ in timed.calls}
        released |= {name for name, start, end in timed.calls if silence.broken(start, end)}
        if released == called:
            return
    raise AssertionError(f"the GIL is held by {', '.join(sorted(called - released))}")


@pytest.mark.skipif(sys.platform == "win32", reason="calls usleep")
def test_a_held_gil_would_be_seen():
    import ctypes

    for library, released in ((ctypes.PyDLL(None), False), (ctypes.CDLL(None), True)):
        with Silence() as silence:
            start = time.perf_counter()
            library.usleep(100_000)
            assert silence.broken(start, time.perf_counter()) == released


# -- inputs, outputs, other threads --------------------------------------------------------------------------


@pytest.mark.parametrize("case", SMALL, ids=ids)
def test_inputs_are_never_written(case):
    """Read-only inputs are enough, whatever the algorithm; even for arrays that lie in protected memory."""
    for dtype, _, algorithm in every_way(case):
        inputs = {
            name: a if a is None else testing.lay_out(a, "readonly") for name, a in case.inputs(dtype).items()
        }
        before = {name: None if a is None else a.tobytes() for name, a in inputs.items()}
        case.run(fc, inputs, algorithm)
        assert before == {name: None if a is None else a.tobytes() for name, a in inputs.items()}


def out_faults():
    x, w, b = np.ones((2, 3, 5, 5)), np.ones((4, 3, 3, 3)), np.ones(4)
    yield dict(x=x, weight=w[:, :2], bias=b)
    yield dict(x=x, weight=w, bias=b[:3])
    yield dict(x=x, weight=w.astype(np.float32), bias=b)
    yield dict(x=x, weight=w, bias=b, stride=0)
    yield dict(x=x, weight=w, bias=b, padding=-1)
    yield dict(x=x, weight=w, bias=b, padding="some")
    yield dict(x=x, weight=w, bias=b, padding=1)  # out has another shape
    yield dict(x=x, weight=w, bias=b, dilation=3)
    yield dict(x=x, weight=w, bias=b, groups=2)
    yield dict(x=x, weight=w, bias=b, padding_mode="mirror")
    yield dict(x=x, weight=w, bias=b, activation="softmax")
    yield dict(x=x, weight=w, bias=b, algorithm="fft")
    yield dict(x=x.tolist(), weight=w, bias=b)
    yield dict(x=x[None], weight=w, bias=b)
    yield dict(x=np.ones((2, 3, 9, 9)), weight=w, bias=b, stride=3, dilation=2, algorithm="winograd")


@pytest.mark.parametrize("fault", list(out_faults()), ids=lambda fault: " ".join(list(fault)[2:]))
def test_out_is_untouched_when_the_arguments_are_at_fault(fault):
    out = testing.poisoned((2, 4, 2, 2) if fault.get("algorithm") == "winograd" else (2, 4, 3, 3), np.float64)
    before = out.tobytes()
    with pytest.raises((ValueError, TypeError, fc.UnsupportedError)):
        fc.conv2d(**fault, out=out)
    assert out.tobytes() == before


def test_out_that_is_at_fault_itself_is_untouched():
    x, w = np.ones((2, 3, 5, 5)), np.ones((4, 3, 3, 3))
    memory = np.zeros(2 * 4 * 9 * 8 + 1, np.uint8)
    overlapping = np.ones(2 * 3 * 25 + 72)
    for out, error in (
        (testing.poisoned((2, 4, 3, 3), np.float32), TypeError),
        (testing.poisoned((2, 4, 3, 3), np.float64).astype(">f8"), TypeError),
        (testing.poisoned((2, 4, 3, 4), np.float64)[..., :3], ValueError),
        (testing.poisoned((3, 3, 4, 2), np.float64).T, ValueError),
        (testing.lay_out(testing.poisoned((2, 4, 3, 3), np.float64), "readonly"), ValueError),
        (memory[1:].view(np.float64).reshape(2, 4, 3, 3), ValueError),
        (overlapping[140:140 + 72].reshape(2, 4, 3, 3), ValueError),
        ([[1.0]], TypeError),
    ):  # fmt: skip
        before = out.tobytes() if isinstance(out, np.ndarray) else None
        with pytest.raises(error):
            fc.conv2d(overlapping[:150].reshape(2, 3, 5, 5) if out is not None else x, w, out=out)
        assert before is None or out.tobytes() == before


def test_other_threads_may_change_what_the_kernels_read():
    """Classes and indices that change during the call are caught where they are used, and nothing crashes."""
    python(
        """
        import threading, time
        import numpy as np
        import fastconv as fc

        rng = np.random.default_rng(0)
        logits, x = rng.standard_normal((300, 50)), rng.standard_normal((3, 4, 40, 40))
        target = rng.integers(0, 50, 300)
        y, indices = fc.max_pool2d(x, 2, return_indices=True)
        m, pieces = fc.maxout(x, 2)
        w = rng.standard_normal((5, 4, 3, 3))
        stop = time.monotonic() + 3
        arrays = (target, indices, pieces)
        wild = np.array([-2**63, -10**9, -2, 10**6, 2**40, 2**63 - 1])

        def meddle(seed):
            rng = np.random.default_rng(seed)
            while time.monotonic() < stop:
                array = arrays[rng.integers(3)]
                at = rng.integers(array.size)
                old = array.flat[at]
                array.flat[at] = wild[rng.integers(6)]
                array.flat[at] = old
                x.shape = (3, 4, 1600) if x.ndim == 4 else (3, 4, 40, 40)
                x.shape = (3, 4, 40, 40)

        threads = [threading.Thread(target=meddle, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        caught = done = 0
        while time.monotonic() < stop:
            for call in (
                lambda: fc.softmax_cross_entropy(logits, target),
                lambda: fc.nll(logits, target),
                lambda: fc.hinge(logits, target),
                lambda: fc.max_pool2d_backward(y, indices, (3, 4, 40, 40)),
                lambda: fc.maxout_backward(m, pieces, 2),
                lambda: fc.conv2d(x, w),
                lambda: fc.conv2d_backward(y[:, :, :18, :18].repeat(2, 1)[:, :5], x, w, stride=2),
                lambda: fc.im2col(x, 3),
                lambda: fc.avg_pool2d(x, 3),
                lambda: fc.relu(x),
            ):
                try:
                    call()
                    done += 1
                except (ValueError, TypeError):
                    caught += 1
        for thread in threads:
            thread.join()
        assert done, (done, caught)
        """
    )


# -- the verbose line, the import ----------------------------------------------------------------------------


def test_the_verbose_line():
    done = python(
        """
        import numpy as np
        import fastconv as fc
        x, w = np.ones((2, 3, 8, 9), np.float32), np.ones((4, 3, 3, 3), np.float32)
        y = fc.conv2d(x, w, padding=1, algorithm="im2col")
        fc.conv2d_backward(y, x, w, padding=1, output_mask=(True, True, False))
        fc.relu(y)
        fc.max_pool2d(y, 2)
        """,
        FASTCONV_VERBOSE="1",
        FASTCONV_NUM_THREADS="2",
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 5 and not done.stdout
    line = r"fastconv: (\S+), (\w+), (\w+), (\w+), 2 threads, \d+\.\d+ ms(, \d+\.\d GFLOP/s)?"
    fields = [re.fullmatch(line, given) for given in lines]
    assert all(fields), lines
    assert fields[0][1] == "conv2d:n2c3h8w9k4r3s3_st1p1d1g1_f32" and fields[0][3] == "im2col"
    assert all(field[4] == LEVELS[-1] for field in fields)
    assert all(field[5] for field in fields[:3])
    assert len({field[2] for field in fields[:3]}) == 3  # forward and two gradients
    assert not python("import fastconv as fc, numpy as np; fc.relu(np.ones(3))").stderr


@pytest.mark.parametrize("level", LEVELS)
def test_the_isa_can_be_capped(level):
    done = python("import fastconv as fc; print(fc.show_config('dicts')['isa_active'])", FASTCONV_ISA=level)
    assert done.stdout.strip() == level


def test_import_is_cheap():
    """Under 0.1 s of processor time over NumPy, the best of five."""
    code = """
    import time
    import numpy
    start = time.process_time()
    import fastconv
    print(time.process_time() - start)
    """
    assert min(float(python(code).stdout) for _ in range(5)) < 0.1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("algorithm", ["direct", "winograd1d", "winograd", "winograd8", "implicit_gemm", "im2col"])
def test_what_no_window_reads_takes_no_part_in_dweight(algorithm, level):
    """Rows and columns between strides, or left over behind the last window, may hold NaN."""
    rng = np.random.default_rng(0)
    for shape, kernel, options in (
        ((4, 4, 9, 20), (13, 5, 4), {"stride": (4, 3)}), ((1, 2, 30, 30), (3, 4, 4), {"stride": 3}),
        ((2, 2, 40, 41), (5, 3, 3), {"stride": 2}), ((2, 3, 20, 60), (4, 5, 5), {"stride": 3}),
        ((2, 2, 22, 36), (2, 7, 7), {"stride": 3}), ((1, 2, 12, 19), (8, 2, 2), {"stride": 3}),
        ((1, 3, 4, 4), (17, 3, 3), {"stride": 2, "padding": (0, 2), "padding_mode": "reflect"}),
        ((1, 3, 8, 9), (5, 4, 4), {"stride": 3, "padding": ((1, 0), (0, 0)), "padding_mode": "circular"}),
        ((2, 2, 6, 11), (5, 4, 4), {"stride": 3, "padding": ((0, 0), (1, 0)), "padding_mode": "replicate"}),
    ):  # fmt: skip
        weight = np.ones((kernel[0], shape[1], *kernel[1:]), np.float32)
        x = rng.standard_normal(shape, dtype=np.float32)
        dy = rng.standard_normal(fc.conv2d(x, weight, **options).shape, dtype=np.float32)
        read = fc.reference.conv2d_backward(np.ones_like(dy), x, weight, **options)[0] != 0
        assert not read.all()
        with isa.use(level):
            try:
                how = {**options, "output_mask": (False, True, False), "algorithm": algorithm}
                clean = fc.conv2d_backward(dy, np.where(read, x, np.float32(0)), weight, **how)[1]
                found = fc.conv2d_backward(dy, np.where(read, x, np.float32(np.nan)), weight, **how)[1]
            except fc.UnsupportedError:
                continue
            assert found.tobytes() == clean.tobytes()
