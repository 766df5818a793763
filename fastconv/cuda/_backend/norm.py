"""Bias gradient, batch and local response normalisation on the device. Arguments are already valid.

The same inputs give the same bits. Sums over a channel are taken in the dtype of the data (float32 for those
of 16 bits), in parts and parts of those: their error grows with the logarithm of the number of terms.
Statistics and parameters of data of 16 bits may be float32 (see `fastconv.batch_norm`), and then lose
nothing.
"""

import math

from .. import fast, normalisation
from .._arrays import Call
from ..simple import half, norm, reduce


def channel_sum(dy, axis):
    call = Call("channel_sum", dy)
    (dy,) = call.arrays
    total = call.empty((dy.shape[axis],), dy.dtype)
    sum_channels(call, dy, axis, total)
    return total.owner


def sum_channels(call, array, axis, total):
    """total = the sums of the array over all axes but one."""
    x = _three_axes(call, array, axis)
    if not fast.done(call, normalisation.channel_sum(fast.word(x), *x.shape), x=x, y=total):
        reduce.channels(call, x, total)


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


def _kept(*arrays):
    """The word of the dtype that parameters and statistics share; they are contiguous, or there is none."""
    there = [a for a in arrays if a is not None]
    return fast.word(*there) if all(a.contiguous for a in there) else None


def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    call = Call("batch_norm", x, weight, bias, running_mean, running_var)
    x, *arrays = call.arrays
    y = call.empty(x.shape, x.dtype)
    x = _three_axes(call, x)
    weight, bias, running_mean, running_var = arrays
    word, given = fast.word(x), tuple(a is not None for a in arrays)
    kept = _kept(*arrays) if any(given) else word
    program = normalisation.batch_norm(word, kept, *x.shape, given, training, momentum, eps)
    names = dict(weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    if fast.done(call, program, x=x, y=y, **names):
        return y.owner
    mean, var = _statistics(call, x, running_mean, running_var, training)
    if training:
        count = x.shape[0] * x.shape[2]
        unbiased = count / (count - 1)  # more than one value per channel, or it would not be valid
        for running, batch, correction in ((running_mean, mean, 1.0), (running_var, var, unbiased)):
            if running is not None:
                norm.update(call, running, batch, momentum, correction)
    norm.normalise(call, x, mean, var, weight, bias, eps, y.view(x.shape))
    return y.owner


def batch_norm_backward(dy, x, weight, running_mean, running_var, training, eps):
    call = Call("batch_norm_backward", dy, x, weight, running_mean, running_var)
    dy, x, weight, running_mean, running_var = call.arrays
    dx = call.empty(x.shape, x.dtype)
    dtype = x.dtype if weight is None else weight.dtype
    dweight, dbias = (call.empty((x.shape[1],), dtype) for _ in range(2))
    dy, x = _three_axes(call, dy), _three_axes(call, x)
    if training:
        running_mean = running_var = None
    kept = _kept(dweight, weight, running_mean, running_var)
    options = *x.shape, weight is not None, training, eps
    program = normalisation.batch_norm_backward(fast.word(dy, x), kept, *options)
    arrays = dict(dy=dy, x=x, dx=dx, dweight=dweight, dbias=dbias, weight=weight)
    if fast.done(call, program, **arrays, running_mean=running_mean, running_var=running_var):
        return dx.owner, dweight.owner, dbias.owner
    mean, var = _statistics(call, x, running_mean, running_var, training)
    # what dx is made of is not rounded to 16 bits on the way
    sums = [call.scratch((x.shape[1],), reduce.sum_dtype(dtype)) for _ in range(2)]
    reduce.channels(call, dy, sums[1])
    norm.products(call, dy, x, mean, var, eps, sums[0])
    norm.normalise_backward(call, dy, x, mean, var, weight, eps, sums[1], sums[0], training, dx.view(x.shape))
    for total, result in zip(sums, (dweight, dbias)):
        half.cast(call, total, result)
    return dx.owner, dweight.owner, dbias.owner


def local_response_norm(x, size, alpha, beta, k):
    call = Call("local_response_norm", x)
    (x,) = call.arrays
    y, x = call.empty(x.shape, x.dtype), _three_axes(call, x)
    program = normalisation.response(fast.word(x), *x.shape, size, alpha, beta, k)
    if not fast.done(call, program, x=x, out=y):
        s = call.scratch(x.shape, reduce.sum_dtype(x.dtype))
        norm.denominator(call, x, size, alpha, k, s)
        norm.response(call, x, s, beta, y)
    return y.owner


def local_response_norm_backward(dy, x, size, alpha, beta, k):
    call = Call("local_response_norm_backward", dy, x)
    dy, x = call.arrays
    dx = call.empty(x.shape, x.dtype)
    dy, x = _three_axes(call, dy), _three_axes(call, x)
    program = normalisation.response(fast.word(dy, x), *x.shape, size, alpha, beta, k, True)
    if not fast.done(call, program, dy=dy, x=x, out=dx):
        s = call.scratch(x.shape, reduce.sum_dtype(x.dtype))
        norm.denominator(call, x, size, alpha, k, s)
        norm.response_backward(call, dy, x, s, size, alpha, beta, dx.view(x.shape))
    return dx.owner
