"""Programs of the memory-bound kernels, and where they apply: float32, contiguous, 32-bit indices.

Every builder returns a `Program`, or None where the simple kernel has to do it.
"""

import math
from functools import lru_cache

from . import geometry
from .gen import memory_bound as gen
from .gen.kernel import MAXIMUM, ceil_div
from .program import Pointer, Program, Step

PLANES = 65535  # of a grid's second and third axis


def _program(kernel, grid, *arguments):
    return Program((Step(kernel, grid, arguments),))


@lru_cache(maxsize=1024)
def activation(name, size, parameter, backward=False):
    """Buffers "x" (or "dy" and "y") and "out", aligned to 16 bytes."""
    if not 0 < size <= MAXIMUM:
        return None
    inputs = [Pointer(n) for n in (("dy", "y") if backward else ("x",))]
    vectors = size // 4
    blocks = max(1, ceil_div(vectors, gen.THREADS * gen.VECTORS))
    kernel = gen.activation(name, backward)
    return _program(kernel, (blocks,), *inputs, Pointer("out"), vectors, size % 4, parameter)


@lru_cache(maxsize=1024)
def softmax(rows, classes, log):
    """Buffers "x" and "y" of (rows, classes)."""
    if not (0 < rows * classes <= MAXIMUM and classes <= gen.LONGEST):
        return None
    kernel = gen.softmax(gen.per_lane(classes), log)
    return _program(kernel, (ceil_div(rows, gen.ROWS),), Pointer("x"), Pointer("y"), rows, classes)


@lru_cache(maxsize=1024)
def cross_entropy(rows, classes, mean, ignore_index, smoothing):
    """Buffers "x", "target" (int64), "count" (one float), "losses", "dx"; no class weights."""
    if not (0 < rows * classes <= MAXIMUM and classes <= gen.LONGEST):
        return None
    word = (ignore_index or 0) % 2**64
    buffers = [Pointer(n) for n in ("x", "target", "count", "losses", "dx")]
    return _program(
        gen.cross_entropy(gen.per_lane(classes)), (ceil_div(rows, gen.ROWS),), *buffers, rows, classes,
        int(mean),
        int(ignore_index is not None), word % 2**32, word // 2**32, smoothing, float(classes),
    )  # fmt: skip


def _plane_grid(outputs, planes):
    """Blocks of 256 outputs of every plane; planes on two axes, since there may be more than one holds."""
    deep = ceil_div(planes, PLANES)
    return ceil_div(outputs, gen.THREADS), ceil_div(planes, deep), deep


@lru_cache(maxsize=1024)
def max_pool(problem, indices):
    """Buffers "x", "y", "indices" (int64), contiguous; planes of two axes with a window of up to 49 taps."""
    planes, (R, S) = problem.N * problem.C, problem.kernel[1:]
    small = max(planes * math.prod(problem.size), planes * math.prod(problem.out)) <= MAXIMUM
    flat = problem.size[0] == problem.kernel[0] == problem.out[0] == 1 and not problem.pad_low[0]
    if problem.adaptive or not (small and flat and planes and R * S <= gen.UNROLLED):
        return None
    axes = [
        (problem.out[a], problem.size[a], problem.stride[a], -problem.pad_low[a], problem.dilation[a])
        for a in (1, 2)
    ]
    buffers = [Pointer(n) for n in ("x", "y", *(("indices",) if indices else ()))]
    grid = _plane_grid(problem.out[1] * problem.out[2], planes)
    return _program(
        gen.max_pool((R, S), indices), grid, *buffers, planes, *(v for pair in zip(*axes) for v in pair)
    )


def _depthwise(problem):
    """Whether every channel is a convolution of its own over planes that the kernel holds."""
    planes = problem.N * problem.C
    return (
        problem.groups == problem.C == problem.K
        and problem.padding_mode == "zeros"
        and problem.size[0] == problem.kernel[0] == problem.out[0] == 1
        and not problem.pad_low[0]
        and problem.taps <= gen.UNROLLED
        and 0 < planes
        and max(planes * math.prod(problem.size), planes * math.prod(problem.out)) <= MAXIMUM
    )


@lru_cache(maxsize=1024)
def depthwise(problem, backward, bias):
    """y from "x", or dx from "dy", with "weight"; contiguous float32 images.

    A launch for every phase of dx.
    """
    if not _depthwise(problem):
        return None
    phases = geometry.backward_input(problem) if backward else [geometry.forward(problem)]
    source, target = ("dy", "dx") if backward else ("x", "y")
    size = problem.size if backward else problem.out
    planes, steps = problem.N * problem.C, []
    for _, h, w in phases:
        S = problem.kernel[2]
        kernel = gen.depthwise((h.taps, w.taps), bias, None if backward else problem.activation)
        offset = 4 * (h.place_first * size[2] + w.place_first)
        buffers = [
            Pointer(source),
            Pointer("weight"),
            Pointer(target, offset),
            *([Pointer("bias")] if bias else []),
        ]
        rows = ((a.count, a.size, a.stride, a.origin, a.step) for a in (h, w))
        walk = [v for pair in zip(*rows) for v in pair]
        steps.append(
            Step(
                kernel, _plane_grid(h.count * w.count, planes),
                (*buffers, planes, problem.C, *walk, h.tap_step * S, w.tap_step, problem.taps,
                 h.tap_first * S + w.tap_first, size[1] * size[2], h.place_step * size[2], w.place_step),
            )
        )  # fmt: skip
    return Program(tuple(steps))
