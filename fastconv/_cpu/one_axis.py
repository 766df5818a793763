"""Winograd's algorithm along one axis (kernels/winograd1d.pxi): which axis suits it, and how often its
kernels take each step."""

import math
from functools import lru_cache

from .views import TURN, VECTOR, phase_taps

TERMS = 2048  # that are added up in one piece, at most
BRUSH_BYTES = 24 * 1024  # weights of a vector of filters that stay in a first-level cache
FAR = 1.5  # how much longer their products take if they do not
ROUGH = {
    "multiply": 1,
    "batch": 0.3,
    "input down": 40,
    "input across": 80,
    "output down": 6,
    "output across": 9,
    "put": 8,
    "turn": 12,
}
"""About what the steps cost in which the axes differ, in vectors multiplied: what chooses between them."""


@lru_cache(maxsize=4096)
def axis_of(problem, direction):
    """The axis along which tiles lie, of (depth, height, width): 1, 2, or None if neither can be taken."""
    return min(axes_of(problem, direction), key=lambda axis: _rough(problem, direction, axis), default=None)


def axes_of(problem, direction):
    """All that could be taken."""
    return [axis for axis in (1, 2) if _able(problem, direction, axis)]


def _tiled(problem, axis):
    """Whether tiles can lie along an axis."""
    return problem.dilation[axis] == 1 and 2 <= phase_taps(problem)[axis] <= 7


def _able(problem, direction, axis):
    if not _tiled(problem, axis):
        return False
    channels = (problem.K if direction == "backward_input" else problem.C) // problem.groups
    phases = 1 if direction == "backward_input" else min(problem.stride[axis], problem.kernel[axis])
    return channels * phases * problem.taps // problem.kernel[axis] <= TERMS


def line_axis(problem):
    """The axis of Winograd's tiles for the gradient of the weights where they lie along one only: 1, whose lanes
    need no shuffles, or 2; None where neither serves."""
    return next((axis for axis in (1, 2) if _tiled(problem, axis)), None)


def line_points(problem):
    """Points of these tiles: 6, or 8 where 6 are too few for the taps or need a ninth more products."""
    axis = line_axis(problem)
    taps, out = phase_taps(problem)[axis], problem.out[axis]
    six, eight = (points * -(-out // max(1, points + 1 - taps)) for points in (6, 8))
    return 8 if taps > 5 or (taps > 2 and 10 * eight <= 9 * six) else 6


def _rough(problem, direction, axis):
    found = counts(problem, direction, axis, 1)
    return sum(price * found[step] for step, price in ROUGH.items())


def points(taps):
    """Points of a tile for so many taps along the axis, of a phase of its stride."""
    return 6 if taps <= 5 else 8


def counts(p, direction, axis, samples):
    """{kind of step: how many}; what a stride cuts into phases is summed over them."""
    lanes = VECTOR // p.dtype.itemsize
    taps = max(2, phase_taps(p)[axis])
    n = points(taps)
    m = n + 1 - taps
    if direction == "backward_input":
        steps = tuple(min(stride, size) for stride, size in zip(p.stride, p.size))
        rows, channels, phases, source = p.C // p.groups, p.K // p.groups, steps, p.out
        out = tuple(math.ceil(size / step) for size, step in zip(p.size, steps))
        split, strewn = 1, p.stride[2]
        extra = [(t - 1) * d for t, d in zip(phase_taps(p), p.dilation)]
    else:
        steps = tuple(min(stride, taps) for stride, taps in zip(p.stride, p.kernel))
        rows, channels, phases, out, source = p.K // p.groups, p.C // p.groups, (1, 1, 1), p.out, p.size
        split, strewn = steps[2], 1
        extra = [(t - 1) * d // s for t, d, s in zip(p.kernel, p.dilation, p.stride)]
    passes, sets = samples * p.groups, math.prod(phases)
    terms = channels * p.taps // p.kernel[axis] * steps[axis]  # of an output, or of one of every phase
    units = channels * p.kernel[0] * steps[1] * steps[2]
    tiles = -(-out[axis] // m)
    if axis == 1:
        lines, line = out[0] * tiles, out[2]
        aligned, flat = tiles * -(-line // lanes), -(-((tiles - 1) * (line + extra[2]) + line) // lanes)
        vectors, staged = out[0] * min(aligned, flat), lines * -(-(line + extra[2]) // lanes)
    else:
        lines, line = out[0] * out[1], tiles
        vectors = out[0] * -(-out[1] * tiles // lanes)
        staged = out[0] * (out[1] + extra[1]) * -(-tiles // lanes)
    brushes = -(-rows // lanes)
    turned = brushes * lines * line
    # the kernel's own choice: filters are lanes, or columns and tiles are
    far = 1 if terms * n * VECTOR <= BRUSH_BYTES else FAR
    brush = axis == 1 and phases == (1, 1, 1) and turned * (far + m * TURN / max(1, terms * n)) < rows * vectors
    batch = 4 if n == 6 else 3
    kind = "down" if axis == 1 else "across"
    put = passes * sets * rows * out[0] * out[1]
    found = {f"{step} {way}": 0 for step in ("input", "output") for way in ("down", "across")}
    return found | {
        "multiply": passes * n * terms * (far * turned if brush else rows * vectors),
        "batch": passes * n * terms * (turned / batch if brush else -(-rows // batch) * vectors),
        f"input {kind}": passes * units * staged,
        f"output {kind}": passes * sets * m * (turned if brush else rows * vectors),
        "turn": brush * passes * sets * m * turned,
        "put": put,
        "strew": put * out[2] * (strewn > 1),
        "stage": passes * units * out[0] * (source[1] / steps[1] + extra[1]) * (source[2] / steps[2] / lanes + 1),
        "stage split": passes * channels * p.kernel[0] * out[0] * source[1] * source[2] * (split > 1),
        "weight": p.groups * rows * terms * n,
        "group": passes * sets,
        "phase": sets - 1,
    }
