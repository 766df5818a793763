"""float16 and bfloat16 where no kernel reads them itself: converted, computed in float32, rounded once.

The definition of every operation on 16 bits is this: inputs are float32 numbers that happen to be short, all
arithmetic is float32's, and results are rounded to the inputs' dtype (to nearest, ties to even). Fast kernels
compute that way on their own (`fast`), and so do the simple ones (`simple.short`). Where a sum of products is
computed in pieces, as the simple convolutions do, arrays go through copies in float32,
which cost bandwidth and scratch, but keep every promise of the float32 kernels. Arguments are already valid.
"""

import functools
import math
from dataclasses import replace

import numpy as np

from ..._arguments import is_half
from ..simple import copy, half

FLOAT32 = np.dtype(np.float32)


@functools.lru_cache(maxsize=4096)
def single(problem):
    """The problem in float32."""
    return replace(problem, dtype=FLOAT32)


def widened(call, array):
    """A float32 `Array` of the same numbers, contiguous; another dtype stays as it is. None stays None."""
    if array is None or not is_half(array.dtype):
        return array
    made = call.scratch(array.shape, FLOAT32)
    half.cast(call, call.contiguous(array), made)
    return made


def narrowed(call, wide, target):
    """target = wide (float32, contiguous), rounded."""
    if target.contiguous:
        half.cast(call, wide, target)
        return
    made = call.scratch(target.shape, target.dtype)
    half.cast(call, wide, made)
    copy.scatter(call, made, target)


# -- rows of the tables of algorithms ------------------------------------------------------------------------


def run(function):
    """The `run` of an `Algorithm` that knows float32 and float64, for 16 bits too. The result comes last."""

    @functools.wraps(function)
    def either(call, problem, *arrays):
        if not is_half(problem.dtype):
            return function(call, problem, *arrays)
        *sources, target = arrays
        wide = call.scratch(target.shape, FLOAT32)
        function(call, single(problem), *(widened(call, a) for a in sources), wide)
        narrowed(call, wide, target)

    return either


def scratch(function):
    """The `scratch` of such an `Algorithm`: with the float32 copies of images and weight."""

    @functools.wraps(function)
    def either(kernels, problem, threads):
        if not is_half(problem.dtype):
            return function(kernels, problem, threads)
        copied = sum(map(math.prod, (problem.x_shape, problem.weight_shape, problem.y_shape)))
        return function(kernels, single(problem), threads) + copied * FLOAT32.itemsize

    return either
