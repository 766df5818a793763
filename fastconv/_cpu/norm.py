"""Bias gradient, batch and local response normalisation: allocations, and the few numbers a channel.

Arguments are already valid. The kernels see (N, C, inner); everything of one value a channel is float64 here.
"""

import math

import numpy as np

from .. import _config
from . import isa
from .arrays import empty, like


def _sums(kind, x, around, y=None, shift=None):
    """(C, kind) float64 sums over all axes but the middle one; see the kernel."""
    out = np.zeros((around[1], kind))
    if math.prod(around):
        isa.active().channel_sums(x, y, shift, out, *around, _config.get_num_threads())
    return out


@np.errstate(all="ignore")
def channel_sum(dy, axis):
    shape = dy.shape
    around = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    return _sums(1, dy, around)[:, 0].astype(dy.dtype.newbyteorder("="))


def _around(x):
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _per_channel(values, default, channels):
    return np.full(channels, default) if values is None else np.asarray(values, np.float64)


def _spread(values, around, dtype):
    """Values of the channels as the kernels read them: repeated for each position of a short inner axis."""
    values = np.ascontiguousarray(values, dtype)
    return values if around[2] >= isa.active().INNER_MIN else np.repeat(values, around[2], axis=-1)


def _statistics(x, around, running_mean, running_var, training):
    """Mean and biased variance of the channels, and the number of values in each."""
    if not training:
        return np.asarray(running_mean, np.float64), np.asarray(running_var, np.float64), None
    count, mean, square = _sums(3, x, around).T
    if not around[0] * around[2]:
        mean = square = mean + np.nan  # of nothing
    return mean, square / count, count[0] if count.size else 0.0


def _affine(x, dy, around, mean, scale, shift, factor, dtype, shape):
    """(x - mean) * scale + shift + dy * factor, each constant one value a channel; x or dy may be None.

    The rounding of the mean goes into the shift.
    """
    y = empty(shape, dtype)
    if y.size:
        constants = empty((4, around[1]), np.dtype(np.float64))
        near = constants[0] = mean.astype(dtype)
        constants[1], constants[2], constants[3] = scale, shift + (near - mean) * scale, factor
        constants = _spread(constants, around, dtype)
        isa.active().channel_affine(x, dy, constants, y, *around, _config.get_num_threads())
    return y


@np.errstate(all="ignore")
def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    around, channels = _around(x), x.shape[1]
    mean, var, count = _statistics(x, around, running_mean, running_var, training)
    if training and running_mean is not None:
        running_mean[...] = (1 - momentum) * np.asarray(running_mean, np.float64) + momentum * mean
    if training and running_var is not None:
        unbiased = var * np.divide(count, count - 1)
        running_var[...] = (1 - momentum) * np.asarray(running_var, np.float64) + momentum * unbiased
    scale = _per_channel(weight, 1.0, channels) / np.sqrt(var + eps)
    shift = _per_channel(bias, 0.0, channels)
    dtype = x.dtype.newbyteorder("=")
    return _affine(x, None, around, mean, scale, shift, np.zeros(channels), dtype, x.shape)


@np.errstate(all="ignore")
def batch_norm_backward(dy, x, weight, running_mean, running_var, training, eps):
    dtype, around, channels = x.dtype.newbyteorder("="), _around(x), x.shape[1]
    mean, var, count = _statistics(x, around, running_mean, running_var, training)
    near, inverse = mean.astype(dtype), 1 / np.sqrt(var + eps)
    dbias, product = _sums(2, x, around, dy, _spread(near, around, dtype)).T
    dweight = (product + (near - mean) * dbias) * inverse  # sum of dy * z, z = (x - mean) * inverse
    factor = _per_channel(weight, 1.0, channels) * inverse
    if training:  # dx = factor * (dy - dbias / count - z * dweight / count)
        scale, shift = -factor * inverse * dweight / count, -factor * dbias / count
        dx = _affine(x, dy, around, mean, scale, shift, factor, dtype, x.shape)
    else:
        zero = np.zeros(channels)
        dx = _affine(None, dy, around, zero, zero, zero, factor, dtype, x.shape)
    return dx, dweight.astype(dtype), dbias.astype(dtype)


def local_response_norm(x, size, alpha, beta, k):
    return _local_response_norm(None, x, size, alpha, beta, k)


def local_response_norm_backward(dy, x, size, alpha, beta, k):
    return _local_response_norm(dy, x, size, alpha, beta, k)


def _local_response_norm(dy, x, size, alpha, beta, k):
    y = like(x)
    if y.size:
        options = (*_around(x), size, alpha, beta, k, _config.get_num_threads())
        isa.active().local_response_norm(dy, x, y, *options)
    return y
