"""Pooling on the device. Arguments are already valid; indices are checked by the kernel that uses them.

The same inputs give the same bits; an element of y or dx depends on its own window or windows alone.
"""

import math

import numpy as np

from ..._arguments import is_half
from .. import fast, memory_bound
from .._arrays import Call
from .._checks import Flag
from ..simple import pool
from . import half
from .conv import five_axes


def _planes(call, array, problem):
    """(N, C, ...) as (planes, D, H, W): a view where the strides allow."""
    array = five_axes(array, problem)
    if array.strides[0] != array.strides[1] * array.shape[1] and array.shape[0] > 1:
        array = call.contiguous(array)
    return array.view((problem.N * problem.C, *array.shape[2:]), array.strides[1:])


def max_pool(x, problem, return_indices):
    call = Call(problem.op, x)
    y = call.empty(problem.y_shape, problem.dtype)
    indices = call.empty(problem.y_shape if return_indices else (0,), np.dtype(np.int64))
    x = call.arrays[0]
    program = memory_bound.max_pool(fast.word(x), problem, return_indices) if x.contiguous else None
    arrays = dict(x=x, y=y, **(dict(indices=indices) if return_indices else {}))
    if not fast.done(call, program, **arrays):
        pool.max_pool(call, problem, _planes(call, x, problem), _planes(call, y, problem), indices.flat())
    return y.owner, indices.owner if return_indices else None


def max_pool_backward(dy, indices, problem):
    call = Call(problem.op, dy, indices)
    dy, indices = map(call.contiguous, call.arrays)
    dx = call.empty(problem.x_shape, problem.dtype)
    if dx.size == 0:
        return dx.owner
    planes, plane = problem.N * problem.C, math.prod(problem.size)
    rule = f"(need 0 <= index < {plane}, or -1 for a window wholly in padding)"
    flag = Flag(call, f"{problem.op}: index {{}} is outside the plane of {plane} elements {rule}")
    program = memory_bound.max_pool_backward(fast.word(dy), problem)
    if not fast.done(call, program, dy=dy, indices=indices, dx=dx, wrong=flag.array):
        # the simple kernel adds to what is in memory, which must not be rounded every time
        flat, sums = (planes, math.prod(problem.out)), dx
        if is_half(dx.dtype):
            sums = call.scratch(dx.shape, half.FLOAT32)
        arrays = dy.view(flat), indices.view(flat), sums.view((planes, plane))
        pool.max_pool_backward(call, *arrays, flag.array)
        if sums is not dx:
            half.narrowed(call, sums, dx)
    flag.check(indices)
    return dx.owner


def avg_pool(x, problem):
    call = Call(problem.op, x)
    (x,), y = call.arrays, call.empty(problem.y_shape, problem.dtype)
    program = memory_bound.avg_pool(fast.word(x), problem) if x.contiguous else None
    if not fast.done(call, program, x=x, y=y):
        pool.avg_pool(call, problem, _planes(call, x, problem), _planes(call, y, problem))
    return y.owner


def avg_pool_backward(dy, problem):
    call = Call(problem.op, dy)
    (dy,), dx = call.arrays, call.empty(problem.x_shape, problem.dtype)
    program = memory_bound.avg_pool_backward(fast.word(dy), problem) if dy.contiguous else None
    if not fast.done(call, program, dy=dy, dx=dx):
        pool.avg_pool_backward(call, problem, _planes(call, dy, problem), _planes(call, dx, problem))
    return dx.owner
