"""Activations, softmax, maxout, dropout on the device. Arguments are already valid.

The same inputs give the same bits; an element depends on its own row or element alone.
"""

import math

import numpy as np

from .. import fast, memory_bound
from .._arrays import Call
from .._checks import Flag
from ..simple import elementwise, random
from ..simple import softmax as rows


def _around(shape, axis):
    """The shape as (outer, along the axis, inner)."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _contiguous(op, *arrays):
    call = Call(op, *arrays)
    return (call, *map(call.contiguous, call.arrays))


def activation(name, x, parameter):
    call, x = _contiguous(name, x)
    y = call.empty(x.shape, x.dtype)
    program = memory_bound.activation(fast.word(x), name, x.size, parameter)
    if not fast.done(call, program, x=x, out=y):
        elementwise.activation(call, name, x, y, parameter)
    return y.owner


def activation_backward(name, dy, y, parameter):
    call, dy, y = _contiguous(f"{name}_backward", dy, y)
    dx = call.empty(y.shape, y.dtype)
    program = memory_bound.activation(fast.word(dy, y), name, y.size, parameter, True)
    if not fast.done(call, program, dy=dy, y=y, out=dx):
        elementwise.activation_backward(call, name, dy, y, dx, parameter)
    return dx.owner


def softmax(x, axis, log):
    call, x = _contiguous("log_softmax" if log else "softmax", x)
    y = call.empty(x.shape, x.dtype)
    around = _around(x.shape or (1,), axis)
    program = memory_bound.softmax(fast.word(x), *around[:2], log) if around[2] == 1 else None
    if not fast.done(call, program, x=x, y=y):
        rows.softmax(call, x.view(around), y.view(around), log)
    return y.owner


def softmax_backward(dy, y, axis, log):
    call, dy, y = _contiguous("log_softmax_backward" if log else "softmax_backward", dy, y)
    dx = call.empty(y.shape, y.dtype)
    around = _around(y.shape or (1,), axis)
    program = memory_bound.softmax_backward(fast.word(dy, y), *around[:2], log) if around[2] == 1 else None
    if not fast.done(call, program, dy=dy, y=y, dx=dx):
        rows.softmax_backward(call, dy.view(around), y.view(around), dx.view(around), log)
    return dx.owner


def maxout(x, pieces, axis):
    call, x = _contiguous("maxout", x)
    shape = (*x.shape[:axis], x.shape[axis] // pieces, *x.shape[axis + 1 :])
    y, indices = call.empty(shape, x.dtype), call.empty(shape, np.dtype(np.int64))
    outer, inner = math.prod(shape[: axis + 1]), math.prod(shape[axis + 1 :])
    flat = (outer, inner)
    elementwise.maxout(call, x.view((outer, pieces, inner)), y.view(flat), indices.view(flat))
    return y.owner, indices.owner


def maxout_backward(dy, indices, pieces, axis):
    call, dy, indices = _contiguous("maxout_backward", dy, indices)
    shape = (*dy.shape[:axis], dy.shape[axis] * pieces, *dy.shape[axis + 1 :])
    dx = call.empty(shape, dy.dtype)
    if dy.size:
        outer, inner = math.prod(dy.shape[: axis + 1]), math.prod(dy.shape[axis + 1 :])
        rule = f"(need 0 <= index < {pieces})"
        flag = Flag(call, f"maxout_backward: index {{}} is not one of {pieces} pieces {rule}")
        arrays = dy.view((outer, inner)), indices.view((outer, inner)), dx.view((outer, pieces, inner))
        elementwise.maxout_backward(call, *arrays, flag.array)
        flag.check(indices)
    return dx.owner


def dropout_mask(x, p, rng):
    call = Call("dropout", x)
    mask = call.empty(call.arrays[0].shape, np.dtype(np.bool_))
    random.mask(call, rng, p, mask)
    return mask.owner


def dropout(x, mask, p):
    call, x, mask = _contiguous("dropout", x, mask)
    y = call.empty(x.shape, x.dtype)
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    if not fast.done(call, memory_bound.dropout(fast.word(x), x.size, scale), x=x, mask=mask, out=y):
        elementwise.dropout(call, x, mask, y, scale)
    return y.owner


def dropout_backward(dy, mask, p):
    return dropout(dy, mask, p)
