"""The program of a depthwise convolution's weight gradient: sums of parts of the images, then their sum.

Buffers "x", "dy" and "dweight", contiguous.
"""

import math
from functools import lru_cache

from . import geometry
from .convolution import Builder, Refused, indexable, splits, sum_parts
from .gen import wgrad_depthwise as gen
from .gen.kernel import BYTES, ceil_div
from .program import Pointer


@lru_cache(maxsize=1024)
def weight_gradient(problem, dtype, parts=None):
    """The Program for arrays of a dtype ("f32", "f16", "bf16"). Raises Refused.

    parts: to cut the sums into, None for as many as keep a device busy; it never depends on which.
    """
    C, (T, R, S) = problem.C, problem.kernel
    flat = problem.size[0] == T == problem.out[0] == 1 and not problem.pad_low[0]
    if not problem.groups == C == problem.K or problem.padding_mode != "zeros" or not flat:
        raise Refused("needs groups == channels == filters, planes and zero padding")
    if R * S > gen.LONGEST:
        raise Refused(f"needs at most {gen.LONGEST} taps, got {R * S}")
    if problem.N == 0:
        raise Refused("needs a batch that is not empty")
    indexable(*(problem.N * C * math.prod(size) for size in (problem.size, problem.out)))
    _, h, w = geometry.forward(problem)
    quads = ceil_div(w.count, gen.TOGETHER)
    units = problem.N * h.count * quads
    # four blocks of a channel are worth one tile of a product: a multiprocessor has room for that many more
    count, steps = splits(ceil_div(C, 4), ceil_div(units, gen.THREADS), parts, 4)
    size = C * R * S
    build, out = Builder(), Pointer("dweight")
    direct = count == 1 and BYTES[dtype] == 4
    target = out if direct else build.scratch("parts", 4 * size * count)
    build.launch(
        gen.kernel(dtype, (R, S), w.stride, w.step), (C, count), Pointer("x"), Pointer("dy"), target, C,
        units, quads, steps, size, h.count, w.count, h.size, w.size, h.origin, w.origin, h.stride, h.step,
    )  # fmt: skip
    if not direct:
        sum_parts(build, dtype, target, out, C, 1, R * S, count, size, R * S, 0, 1)
    return build.program()
