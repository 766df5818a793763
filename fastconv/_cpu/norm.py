"""Bias gradient, batch and local response normalisation: what each entry allocates.

Arguments are already valid.
"""

from .. import _config
from . import isa
from .arrays import empty, like, zeros


def channel_sum(dy, axis):
    sums = like(dy, (dy.shape[axis],))
    isa.active().channel_sum(dy, sums, axis, _config.get_num_threads())
    return sums


def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    y = like(x)
    options = (training, momentum, eps, _config.get_num_threads())
    isa.active().batch_norm(x, weight, bias, running_mean, running_var, y, *options)
    return y


def batch_norm_backward(dy, x, weight, running_mean, running_var, training, eps):
    dx, channels = like(x), (x.shape[1],)
    if not dx.size:
        return dx, zeros(channels, dx.dtype), zeros(channels, dx.dtype)
    dweight, dbias = empty(channels, dx.dtype), empty(channels, dx.dtype)
    options = (dx, dweight, dbias, training, eps, _config.get_num_threads())
    isa.active().batch_norm_backward(dy, x, weight, running_mean, running_var, *options)
    return dx, dweight, dbias


def local_response_norm(x, size, alpha, beta, k):
    return _local_response_norm(None, x, size, alpha, beta, k)


def local_response_norm_backward(dy, x, size, alpha, beta, k):
    return _local_response_norm(dy, x, size, alpha, beta, k)


def _local_response_norm(dy, x, size, alpha, beta, k):
    y = like(x)
    isa.active().local_response_norm(dy, x, y, size, alpha, beta, k, _config.get_num_threads())
    return y
