"""The fully connected layer: forward as products of rows with rows, its gradients on the register tile of convolution. Arguments are already valid.

Rows of x and dy are samples; every element is summed in an order that depends on the length of its own sum alone, so a sample's result does not depend on its batch.
"""

import math

import numpy as np

from .. import _config
from . import isa
from .arrays import empty, plain


def _rows(array):
    """(..., features) as a matrix. A view, except for leading axes whose strides no single stride describes."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _product(a, b, bias, dtype):
    c = empty((a.shape[0], b.shape[1]), dtype)
    isa.active().matmul(a, b, bias, c, _config.get_num_threads())
    return c


def linear(x, weight, bias):
    dtype = weight.dtype.newbyteorder("=")
    rows = _rows(x)
    y = empty((len(rows), len(weight)), dtype)
    isa.active().linear(rows, weight, plain(bias, dtype), y, _config.get_num_threads())
    return y.reshape(*x.shape[:-1], len(weight))


def linear_backward(dy, x, weight, output_mask):
    dtype = weight.dtype.newbyteorder("=")
    rows = _rows(dy)
    dx = _product(rows, weight, None, dtype).reshape(x.shape) if output_mask[0] else None
    dweight = _product(rows.T, _rows(x), None, dtype) if output_mask[1] else None
    dbias = _product(np.ones((1, len(rows)), dtype), rows, None, dtype)[0] if output_mask[2] else None
    return dx, dweight, dbias
