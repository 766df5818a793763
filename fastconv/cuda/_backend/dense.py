"""The fully connected layer on the device. Arguments are already valid.

The same inputs give the same bits. Every element of y and dx is one sum over its own sample, in an order that
does not depend on the number of samples; what is not finite stays in its own sums.
"""

import math

from .. import fast
from .._arrays import Call
from ..dense import Layer
from ..simple import dense, reduce


def _rows(call, array):
    """(..., features) as a contiguous matrix."""
    return call.contiguous(array).view((math.prod(array.shape[:-1]), array.shape[-1]))


def linear(x, weight, bias):
    call = Call("linear", x, weight, bias)
    x, weight, bias = call.arrays
    y = call.empty((*x.shape[:-1], weight.shape[0]), weight.dtype)
    x, result = _rows(call, x), _rows(call, y)
    weight, bias = call.contiguous(weight), call.contiguous(bias)
    layer = Layer(x.shape[0], x.shape[1], weight.shape[0], bias is not None)
    if not fast.linear(call, "linear", layer, ("y", result), x=x, weight=weight, bias=bias):
        dense.product(call, x, weight.T, bias, result)
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
            dense.product(call, rows, weight, None, result)
    if output_mask[1]:
        dweight = call.empty(weight.shape, weight.dtype)
        images = _rows(call, x)
        if not fast.linear(call, "linear_backward_weight", layer, ("dweight", dweight), dy=rows, x=images):
            dense.product(call, rows.T, images, None, dweight)
    if output_mask[2]:
        dbias = call.empty(weight.shape[:1], weight.dtype)
        reduce.channels(call, rows.view((*rows.shape, 1), (*rows.strides, 0)), dbias)
    return tuple(None if g is None else g.owner for g in (dx, dweight, dbias))
