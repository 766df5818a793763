"""Problems of convolution looked at in other ways, to compute them and to estimate what that costs."""

import math
from dataclasses import replace
from functools import lru_cache

TILES = {"winograd8": 8, "winograd": 6}
"""Points of Winograd's tiles along an axis. More of them save more multiplications, and amplify rounding
errors more."""


@lru_cache(maxsize=4096)
def pointwise(problem):
    """Where the kernel covers the whole input, so that there is one output: the gradient of the input as a
    1x1 convolution of dy with a filter for every input value. None elsewhere.

    As a correlation of dy and its padding it would mostly multiply zeros.
    """
    if (
        problem.groups > 1
        or problem.size != problem.kernel
        or max(problem.pad_low + problem.pad_high)
        or math.prod(problem.out) > 1
    ):
        return None
    if any(step > 1 for step, taps in zip(problem.dilation, problem.kernel) if taps > 1):
        return None
    ones = (1, 1, 1)
    return replace(
        problem,
        op="conv2d",
        ndim=2,
        batched=True,
        C=problem.K,
        K=problem.C * problem.taps,
        size=ones,
        kernel=ones,
        stride=ones,
        dilation=ones,
        padding_mode="zeros",
        activation=None,
    )


def phase_taps(problem):
    """Taps of one phase of the stride, along each axis."""
    return tuple(-(-taps // stride) for taps, stride in zip(problem.kernel, problem.stride))


def line_axis(problem):
    """The axis of Winograd's tiles for the gradient of the weights where they lie along one only: 1, whose lanes
    need no shuffles, or 2; None where neither serves."""
    for axis in (1, 2):
        if problem.dilation[axis] == 1 and 2 <= phase_taps(problem)[axis] <= 7:
            return axis
    return None


def line_points(problem):
    """Points of these tiles: 6, or 8 where 6 are too few for the taps or need a ninth more products."""
    axis = line_axis(problem)
    taps, out = phase_taps(problem)[axis], problem.out[axis]
    six, eight = (points * -(-out // max(1, points + 1 - taps)) for points in (6, 8))
    return 8 if taps > 5 or (taps > 2 and 10 * eight <= 9 * six) else 6


def winograd_tiles(problem, direction, tile):
    """(down, across): tiles of so many points an axis on a sample's map, or on that of a phase of dx; each
    phase of a dilation is tiled for itself."""
    found = []
    for axis in (1, 2):
        out, step = problem.out[axis], problem.dilation[axis]
        if direction == "backward_input":
            stride, low = problem.stride[axis], problem.pad_low[axis]
            out = (problem.size[axis] - 1 + low) // stride - low // stride + 1
        found.append(step * -(-out // (step * (tile + 1 - phase_taps(problem)[axis]))))
    return found
