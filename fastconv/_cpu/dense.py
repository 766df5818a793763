"""The fully connected layer: forward as products of rows with rows, its gradients as products of matrices.

Arguments are already valid. Rows of x and dy are samples; every element is summed in an order that depends on the
length of its own sum alone, so a sample's result does not depend on its batch.
"""

import math

from .. import _config
from . import isa
from .arrays import like, plain
from .norm import channel_sum


def _rows(array):
    """(..., features) as a matrix. A view, except for leading axes whose strides no single stride describes."""
    return array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def linear(x, weight, bias):
    rows = _rows(x)
    y = like(weight, (len(rows), len(weight)))
    isa.active().linear(rows, weight, plain(bias, y.dtype), y, _config.get_num_threads())
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], len(weight))


def linear_backward(dy, x, weight, output_mask):
    rows, dx, dweight = _rows(dy), None, None
    kernels, threads = isa.active(), _config.get_num_threads()
    if output_mask[0]:
        dx = like(weight, (len(rows), weight.shape[1]))
        kernels.product(rows, weight, dx, threads)
        dx = dx if x.ndim == 2 else dx.reshape(x.shape)
    if output_mask[1]:
        dweight = like(weight)
        kernels.product(rows.T, _rows(x), dweight, threads)
    return dx, dweight, channel_sum(rows, 1) if output_mask[2] else None
