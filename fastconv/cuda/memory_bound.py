"""Programs of the memory-bound kernels, and where they apply: one dtype, contiguous, 32-bit indices.

Every builder returns a `Program`, or None where the simple kernel has to do it. dtype: the word of the
arrays, "f32", "f16" or "bf16", None for any other; statistics are in `normalisation`.
"""

import math
from functools import lru_cache

from . import geometry
from .gen import elementwise, pool, rows
from .gen import memory_bound as gen
from .gen.kernel import BYTES, MAXIMUM, ceil_div
from .gen.vectors import Vectors, widest
from .program import Pointer, Program, Step

PLANES = 65535  # of a grid's second and third axis
SHARED = 128 << 10  # bytes that a block has on every device from sm_80 on, and of which one fits an SM


def _program(kernel, grid, *arguments):
    return Program((Step(kernel, grid, arguments),))


def _pointers(*names):
    return [Pointer(name) for name in names]


# -- elementwise ---------------------------------------------------------------------------------------------


def _flat(kernel, vectors, dtype, names, size, parameter):
    width = 16 // BYTES[dtype]
    blocks = max(1, ceil_div(size // width, elementwise.THREADS * vectors))
    return _program(kernel, (blocks,), *_pointers(*names), size // width, size % width, parameter)


@lru_cache(maxsize=1024)
def activation(dtype, name, size, parameter, backward=False):
    """Buffers "x" (or "dy" and "y") and "out", aligned to 16 bytes."""
    if dtype is None or not 0 < size <= MAXIMUM:
        return None
    names = ("dy", "y", "out") if backward else ("x", "out")
    vectors = elementwise.vectors_of(len(names) - 1, dtype)
    return _flat(elementwise.activation(name, backward, dtype), vectors, dtype, names, size, parameter)


@lru_cache(maxsize=1024)
def dropout(dtype, size, scale):
    """Buffers "x", "mask" (bytes) and "out", aligned to 16 bytes."""
    if dtype is None or not 0 < size <= MAXIMUM:
        return None
    vectors = elementwise.vectors_of(1, dtype)
    return _flat(elementwise.dropout(dtype), vectors, dtype, ("x", "mask", "out"), size, scale)


@lru_cache(maxsize=1024)
def add(dtype, size, factor):
    """Buffers "a", "b" and "out", aligned to 16 bytes: out = a + factor * b."""
    if dtype is None or not 0 < size <= MAXIMUM:
        return None
    vectors = elementwise.vectors_of(2, dtype)
    return _flat(elementwise.add(dtype), vectors, dtype, ("a", "b", "out"), size, factor)


# -- rows ----------------------------------------------------------------------------------------------------


def _row(dtype, count, classes):
    """(vectors, of these a lane) for rows of classes, None for rows that a warp cannot hold."""
    if dtype is None or not (0 < count * classes <= MAXIMUM and classes <= rows.LONGEST):
        return None
    steps, width = rows.shape_of(classes, dtype)
    return Vectors(dtype, width), steps


@lru_cache(maxsize=1024)
def softmax(dtype, count, classes, log):
    """Buffers "x" and "y" of (count, classes)."""
    row = _row(dtype, count, classes)
    if row is None:
        return None
    grid = (ceil_div(count, rows.ROWS),)
    return _program(rows.softmax(*row, log), grid, *_pointers("x", "y"), count, classes)


@lru_cache(maxsize=1024)
def softmax_backward(dtype, count, classes, log):
    """Buffers "dy", "y" and "dx" of (count, classes)."""
    row = _row(dtype, count, classes)
    if row is None:
        return None
    grid, buffers = (ceil_div(count, rows.ROWS),), _pointers("dy", "y", "dx")
    return _program(rows.softmax_backward(*row, log), grid, *buffers, count, classes)


@lru_cache(maxsize=1024)
def cross_entropy(dtype, losses, count, classes, mean, ignore_index, smoothing):
    """Buffers "x", "target" (int64), "count" (one float32), "losses" (of dtype `losses`), "dx"; no class
    weights.
    """
    row = _row(dtype, count, classes)
    if row is None or losses is None:
        return None
    word = (ignore_index or 0) % 2**64
    return _program(
        rows.cross_entropy(*row, Vectors(losses, 1)), (ceil_div(count, rows.ROWS),),
        *_pointers("x", "target", "count", "losses", "dx"), count, classes,
        int(mean),
        int(ignore_index is not None), word % 2**32, word // 2**32, smoothing, float(classes),
    )  # fmt: skip


# -- windows -------------------------------------------------------------------------------------------------


def _plane_grid(outputs, planes):
    """Blocks of 256 outputs of every plane; planes on two axes, since there may be more than one holds."""
    deep = ceil_div(planes, PLANES)
    return ceil_div(outputs, gen.THREADS), ceil_div(planes, deep), deep


def _small(problem):
    """Whether there are planes, and indices of 32 bits hold them."""
    planes = problem.N * problem.C
    return 0 < planes and planes * max(math.prod(problem.size), math.prod(problem.out)) <= MAXIMUM


def _two_axes(problem):
    """Whether windows extend over the last two axes alone, and are few enough taps to be unrolled."""
    R, S = problem.kernel[1:]
    flat = problem.size[0] == problem.kernel[0] == problem.out[0] == 1 and not problem.pad_low[0]
    return flat and R * S <= gen.UNROLLED


def _axes(problem, *more):
    """Numbers of the last two axes as kernels of windows take them: those of h and w in turn."""
    axes = [
        (problem.out[a], problem.size[a], problem.stride[a], -problem.pad_low[a], problem.dilation[a])
        for a in (1, 2)
    ]
    return [v for pair in zip(*axes) for v in pair] + [v for pair in more for v in pair]


@lru_cache(maxsize=1024)
def max_pool(dtype, problem, indices):
    """Buffers "x", "y", "indices" (int64), contiguous; planes of two axes with a window of up to 49 taps."""
    if dtype is None or problem.adaptive or not (_small(problem) and _two_axes(problem)):
        return None
    buffers = _pointers("x", "y", *(["indices"] if indices else []))
    planes = problem.N * problem.C
    grid = _plane_grid(problem.out[1] * problem.out[2], planes)
    kernel = gen.max_pool(problem.kernel[1:], indices, dtype)
    return _program(kernel, grid, *buffers, planes, *_axes(problem))


@lru_cache(maxsize=1024)
def max_pool_backward(dtype, problem):
    """Buffers "dy", "indices" (int64), "dx", "wrong" (one int64); planes of up to about 15 000 outputs."""
    if dtype is None or not _small(problem):
        return None
    (D, H, W), (P, Q, R) = problem.size, problem.out
    shared = pool.shared_of(P * Q * R, D * H, W)
    if shared > SHARED:
        return None
    vectors = widest(dtype, W)
    return _program(
        pool.max_pool_backward(shared, vectors), (problem.N * problem.C,),
        *_pointers("dy", "indices", "dx", "wrong"), P * Q * R, R, D * H, W, D * H * W // vectors.width,
    )  # fmt: skip


def _averaged(problem):
    """(kernel, stride, what divides, divisor) of the windows of an average, or None where they are no simple
    ones.

    An adaptive pool whose sizes divide has windows that touch; of any other they vary.
    """
    size, out = problem.size[1:], problem.out[1:]
    if problem.adaptive:
        if problem.size[0] != problem.out[0] or problem.size[0] != 1 or any(s % o for s, o in zip(size, out)):
            return None
        kernel = tuple(s // o for s, o in zip(size, out))
        return None if math.prod(kernel) > gen.UNROLLED else (kernel, kernel, "fixed", math.prod(kernel))
    if not _two_axes(problem):
        return None
    kernel, stride = problem.kernel[1:], problem.stride[1:]
    if problem.divisor_override is not None:
        return kernel, stride, "fixed", problem.divisor_override
    taps = math.prod(kernel)
    ends = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, problem.dilation[1:])]
    pads = problem.pad_low[1:], problem.pad_high[1:]
    if all(e <= s + p + q for e, s, p, q in zip(ends, size, *pads)) and problem.count_include_pad:
        return kernel, stride, "fixed", taps
    if not any(pads[0]) and all(e <= s for e, s in zip(ends, size)):
        return kernel, stride, "fixed", taps
    return kernel, stride, "padded" if problem.count_include_pad else "valid", taps


@lru_cache(maxsize=1024)
def avg_pool(dtype, problem):
    """Buffers "x" and "y", contiguous; planes of two axes with windows of up to 49 taps."""
    if dtype is None or not _small(problem):
        return None
    windows = _averaged(problem)
    if windows is None:
        return None
    kernel, stride, count, divisor = windows
    planes, axes = problem.N * problem.C, (1, 2)
    padded = [problem.pad_low[a] + problem.size[a] + problem.pad_high[a] for a in axes]
    outs, sizes = (tuple(of[a] for a in axes) for of in (problem.out, problem.size))
    origins = [0 if problem.adaptive else -problem.pad_low[a] for a in axes]
    numbers = *outs, *sizes, *stride, *origins, *(problem.dilation[a] for a in axes), *padded
    grid = _plane_grid(math.prod(outs), planes)
    return _program(
        pool.avg_pool(kernel, count, dtype), grid, *_pointers("x", "y"), planes, *numbers, float(divisor)
    )


@lru_cache(maxsize=1024)
def avg_pool_backward(dtype, problem):
    """Buffers "dy" and "dx", contiguous; windows as those of `avg_pool`, without dilation."""
    if dtype is None or not _small(problem):
        return None
    windows = _averaged(problem)
    if windows is None or any(d != 1 and k > 1 for d, k in zip(problem.dilation, problem.kernel)):
        return None
    kernel, stride, count, divisor = windows
    overlap = math.prod(ceil_div(k, s) for k, s in zip(kernel, stride))
    if overlap > 16:  # more windows than that on one element are not unrolled
        return None
    axes = (1, 2)
    size, out = (tuple(of[a] for a in axes) for of in (problem.size, problem.out))
    # a division for every window that meets an element: two elements a thread keep the text short
    most = 16 if overlap * (1 if count == "fixed" else 4) <= 4 else 2 * BYTES[dtype]
    vectors = widest(dtype, size[1], most)
    total = problem.N * problem.C * math.prod(size) // vectors.width
    pads = [0 if problem.adaptive else problem.pad_low[a] for a in axes]
    padded = [problem.pad_low[a] + problem.size[a] + problem.pad_high[a] for a in axes]
    return _program(
        pool.avg_pool_backward(kernel, stride, count, vectors), (ceil_div(total, pool.THREADS),),
        *_pointers("dy", "dx"), total, size[1] // vectors.width, *out, *size, *pads, *padded, float(divisor),
    )  # fmt: skip


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
