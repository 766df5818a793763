"""The fully connected layer on the device. Arguments are already valid.

The same inputs give the same bits. Every element of y and dx is one sum over its own sample, in an order that
does not depend on the number of samples; what is not finite stays in its own sums.
"""

import math

from .. import fast
from .._arrays import Call
from ..dense import Layer
from ..simple import dense, reduce
from . import half


def _rows(call, array):
    """(..., features) as a contiguous matrix."""
    return call.contiguous(array).view((math.prod(array.shape[:-1]), array.shape[-1]))


def _simple(call, a, b, bias, c):
    """c = a b + bias by the simple kernel, in float32 if c has 16 bits."""
    wide = call.scratch(c.shape, half.FLOAT32) if half.is_half(c.dtype) else c
    dense.product(call, *(half.widened(call, array) for array in (a, b, bias)), wide)
    if wide is not c:
        half.narrowed(call, wide, c)


def linear(x, weight, bias):
    call = Call("linear", x, weight, bias)
    x, weight, bias = call.arrays
    y = call.empty((*x.shape[:-1], weight.shape[0]), weight.dtype)
    x, result = _rows(call, x), _rows(call, y)
    weight, bias = call.contiguous(weight), call.contiguous(bias)
    layer = Layer(x.shape[0], x.shape[1], weight.shape[0], bias is not None)
    if not fast.linear(call, "linear", layer, ("y", result), x=x, weight=weight, bias=bias):
        _simple(call, x, weight.T, bias, result)
    return y.owner


def linear_backward(dy, x, weight, output_mask):
    call = Call("linear_backward", dy, x, weight)
    dy, x, weight = call.arrays
    rows = _rows(call, dy)
    layer = Layer(rows.shape[0], x.shape[-1], rows.shape[1])
    dx = dweight = dbias = None
    if output_mask[0]:
        dx = call.empty(x.shape, weight.dtype)
        result, weight = _rows(call, dx), call.contiguous(weight)
        if not fast.linear(call, "linear_backward_input", layer, ("dx", result), dy=rows, weight=weight):
            _simple(call, rows, weight, None, result)
    if output_mask[1]:
        dweight = call.empty(weight.shape, weight.dtype)
        images = _rows(call, x)
        if not fast.linear(call, "linear_backward_weight", layer, ("dweight", dweight), dy=rows, x=images):
            _simple(call, rows.T, images, None, dweight)
    if output_mask[2]:
        dbias = call.empty(weight.shape[:1], weight.dtype)
        rows = half.widened(call, rows)
        wide = call.scratch(dbias.shape, rows.dtype) if half.is_half(dbias.dtype) else dbias
        reduce.channels(call, rows.view((*rows.shape, 1), (*rows.strides, 0)), wide)
        if wide is not dbias:
            half.narrowed(call, wide, dbias)
    return tuple(None if g is None else g.owner for g in (dx, dweight, dbias))
