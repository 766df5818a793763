"""Bias gradient, batch and local response normalisation on the device. Arguments are already valid.

The same inputs give the same bits. Sums over a channel are taken in the dtype of the data, in parts of 64
terms and parts of those: their error grows with the logarithm of the number of terms.
"""

import math

from .._arrays import Call
from ..simple import norm, reduce
from . import half


@half.in_float32
def channel_sum(dy, axis):
    call = Call("channel_sum", dy)
    (dy,) = call.arrays
    total = call.empty((dy.shape[axis],), dy.dtype)
    reduce.channels(call, _three_axes(call, dy, axis), total)
    return total.owner


def _three_axes(call, array, axis=1):
    """(outer, channels, inner), contiguous."""
    shape = array.shape
    around = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    return call.contiguous(array).view(around)


def _statistics(call, x, running_mean, running_var, training):
    """Mean and biased variance of the channels, contiguous."""
    if training:
        return norm.statistics(call, x)
    return call.contiguous(running_mean), call.contiguous(running_var)


def _running(x, weight, bias, running_mean, running_var, training, *options):
    return (running_mean, running_var) if training else ()


@half.in_float32(updated=_running)
def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    call = Call("batch_norm", x, weight, bias, running_mean, running_var)
    x, weight, bias, running_mean, running_var = call.arrays
    y = call.empty(x.shape, x.dtype)
    x = _three_axes(call, x)
    mean, var = _statistics(call, x, running_mean, running_var, training)
    if training:
        count = x.shape[0] * x.shape[2]
        unbiased = count / (count - 1)  # more than one value per channel, or it would not be valid
        for running, batch, correction in ((running_mean, mean, 1.0), (running_var, var, unbiased)):
            if running is not None:
                norm.update(call, running, batch, momentum, correction)
    norm.normalise(call, x, mean, var, weight, bias, eps, y.view(x.shape))
    return y.owner


@half.in_float32
def batch_norm_backward(dy, x, weight, running_mean, running_var, training, eps):
    call = Call("batch_norm_backward", dy, x, weight, running_mean, running_var)
    dy, x, weight, running_mean, running_var = call.arrays
    dx = call.empty(x.shape, x.dtype)
    dweight, dbias = (call.empty((x.shape[1],), x.dtype) for _ in range(2))
    dy, x = _three_axes(call, dy), _three_axes(call, x)
    mean, var = _statistics(call, x, running_mean, running_var, training)
    reduce.channels(call, dy, dbias)
    norm.products(call, dy, x, mean, var, eps, dweight)
    norm.normalise_backward(call, dy, x, mean, var, weight, eps, dbias, dweight, training, dx.view(x.shape))
    return dx.owner, dweight.owner, dbias.owner


@half.in_float32
def local_response_norm(x, size, alpha, beta, k):
    call = Call("local_response_norm", x)
    (x,) = call.arrays
    y, s, x = call.empty(x.shape, x.dtype), call.scratch(x.shape, x.dtype), _three_axes(call, x)
    norm.denominator(call, x, size, alpha, k, s.view(x.shape))
    norm.response(call, x, s, beta, y)
    return y.owner


@half.in_float32
def local_response_norm_backward(dy, x, size, alpha, beta, k):
    call = Call("local_response_norm_backward", dy, x)
    dy, x = call.arrays
    dx = call.empty(x.shape, x.dtype)
    dy, x = _three_axes(call, dy), _three_axes(call, x)
    s = call.scratch(x.shape, x.dtype)
    norm.denominator(call, x, size, alpha, k, s)
    norm.response_backward(call, dy, x, s, size, alpha, beta, dx.view(x.shape))
    return dx.owner
