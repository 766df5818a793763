"""The fully connected layer on the device. Arguments are already valid.

Every element of y and dx is one sum over its own sample, in order, so that samples do not influence each
other; the same inputs give the same bits.
"""

import math

from .._arrays import Call
from ..simple import dense, reduce
from . import half


def _rows(call, array):
    """(..., features) as a matrix: a view where its strides allow."""
    if array.ndim != 2:
        array = call.contiguous(array)
    return array if array.ndim == 2 else array.view((math.prod(array.shape[:-1]), array.shape[-1]))


@half.in_float32
def linear(x, weight, bias):
    call = Call("linear", x, weight, bias)
    x, weight, bias = call.arrays
    y = call.empty((*x.shape[:-1], weight.shape[0]), weight.dtype)
    dense.product(call, _rows(call, x), weight.T, bias, _rows(call, y))
    return y.owner


@half.in_float32
def linear_backward(dy, x, weight, output_mask):
    call = Call("linear_backward", dy, x, weight)
    dy, x, weight = call.arrays
    rows = _rows(call, dy)
    dx = dweight = dbias = None
    if output_mask[0]:
        dx = call.empty(x.shape, weight.dtype)
        dense.product(call, rows, weight, None, _rows(call, dx))
    if output_mask[1]:
        dweight = call.empty(weight.shape, weight.dtype)
        dense.product(call, rows.T, _rows(call, x), None, dweight)
    if output_mask[2]:
        dbias = call.empty(weight.shape[:1], weight.dtype)
        reduce.channels(call, rows.view((*rows.shape, 1), (*rows.strides, 0)), dbias)
    return tuple(None if g is None else g.owner for g in (dx, dweight, dbias))
