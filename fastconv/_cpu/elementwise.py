"""Activations, softmax, maxout, dropout: what each entry allocates. Arguments are already valid."""

import math

import numpy as np

from .. import _config
from . import isa
from .arrays import empty, like

INDEX = np.dtype(np.int64)


def activation(name, x, parameter):
    y = like(x)
    isa.active().activation(x, y, name, parameter, _config.get_num_threads())
    return y


def activation_backward(name, dy, y, parameter):
    dx = like(y)
    isa.active().activation_backward(dy, y, dx, name, parameter, _config.get_num_threads())
    return dx


def softmax(x, axis, log):
    y = like(x)
    isa.active().softmax(x, y, axis, log, _config.get_num_threads())
    return y


def softmax_backward(dy, y, axis, log):
    dx = like(y)
    isa.active().softmax_backward(dy, y, dx, axis, log, _config.get_num_threads())
    return dx


def maxout(x, pieces, axis):
    shape = (*x.shape[:axis], x.shape[axis] // pieces, *x.shape[axis + 1 :])
    y, indices = like(x, shape), empty(shape, INDEX)
    if y.size:
        isa.active().maxout(x, y, indices, pieces, math.prod(shape[axis + 1 :]), _config.get_num_threads())
    return y, indices


def maxout_backward(dy, indices, pieces, axis):
    shape = (*dy.shape[:axis], dy.shape[axis] * pieces, *dy.shape[axis + 1 :])
    dx = like(dy, shape)
    if dx.size:
        inner = math.prod(shape[axis + 1 :])
        wrong = isa.active().maxout_backward(dy, indices, dx, pieces, inner, _config.get_num_threads())
        if wrong is not None:
            rule = f"(need 0 <= index < {pieces})"
            raise ValueError(f"maxout_backward: index {wrong} is not one of {pieces} pieces {rule}")
    return dx


def dropout_mask(x, p, rng):
    # 24 random bits resolve p to 6e-8 and cost half of what 53 do
    return np.asarray(rng.random(x.shape, dtype=np.float32) >= p)


def dropout(x, mask, p):
    y = like(x)
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    isa.active().dropout(x, np.ascontiguousarray(mask), y, scale, _config.get_num_threads())
    return y


def dropout_backward(dy, mask, p):
    return dropout(dy, mask, p)
