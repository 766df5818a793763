"""Batch and local response normalisation. x is (N, C, inner); all arrays are contiguous."""

import math

from numba import cuda

from . import reduce
from .launch import device, kernel, split


@device
def root(real, x):
    """sqrt(x); of a negative number NaN, also in the simulator, where Python's own function raises."""
    return real(math.sqrt(x)) if not x < real(0) else real(math.nan)


# -- batch normalisation -------------------------------------------------------------------------------------


@kernel
def _deviations(x, mean, y):
    """y[c, j] = sum of (x - mean[c])^2 over the elements j, j + m, ... of channel c; y (C, m)."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        c, j = split(i, y.shape[1])
        total = real(0)
        for at in range(j, x.shape[0] * x.shape[2], y.shape[1]):
            n, inner = split(at, x.shape[2])
            deviation = x[n, c, inner] - mean[c]
            total += deviation * deviation
        y[c, j] = total


@kernel
def _products(dy, x, mean, var, eps, y):
    """y[c, j] = sum of dy * z over the elements j, j + m, ... of channel c; z = (x - mean) / sqrt(var + eps)

    is x normalised; y (C, m).
    """
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        c, j = split(i, y.shape[1])
        inverse = real(1) / root(real, var[c] + eps)
        total = real(0)
        for at in range(j, x.shape[0] * x.shape[2], y.shape[1]):
            n, inner = split(at, x.shape[2])
            total += dy[n, c, inner] * ((x[n, c, inner] - mean[c]) * inverse)
        y[c, j] = total


@kernel
def _divide(total, count, y):
    """y = total / count."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = total[i] / real(count)


@kernel
def _update(running, batch, momentum, correction):
    """running = (1 - momentum) running + momentum batch * correction, which makes a variance unbiased."""
    real = running.dtype.type
    for i in range(cuda.grid(1), running.size, cuda.gridsize(1)):
        running[i] = (real(1) - momentum) * running[i] + momentum * (batch[i] * correction)


@kernel
def _normalise(x, mean, var, weight, bias, eps, y):
    """y = (x - mean) / sqrt(var + eps) * weight + bias."""
    real = y.dtype.type
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        rest, inner = split(i, y.shape[2])
        n, c = split(rest, y.shape[1])
        z = (x[n, c, inner] - mean[c]) / root(real, var[c] + eps)
        if weight.size > 0:
            z *= weight[c]
        if bias.size > 0:
            z += bias[c]
        y[n, c, inner] = z


@kernel
def _normalise_backward(dy, x, mean, var, weight, eps, dbias, dweight, training, dx):
    """dx = weight / sqrt(var + eps) * (dy - dbias / count - z * dweight / count); without the sums if not

    training.
    """
    real = dx.dtype.type
    count = real(x.shape[0] * x.shape[2])
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        rest, inner = split(i, dx.shape[2])
        n, c = split(rest, dx.shape[1])
        inverse = real(1) / root(real, var[c] + eps)
        through = dy[n, c, inner]
        if training:
            z = (x[n, c, inner] - mean[c]) * inverse
            through = through - dbias[c] / count - z * (dweight[c] / count)
        if weight.size > 0:
            through *= weight[c]
        dx[n, c, inner] = through * inverse


def _parts(x):
    return x.shape[1], reduce.parts_of(x.shape[0] * x.shape[2])


def statistics(call, x):
    """Mean and biased variance of every channel."""
    count = x.shape[0] * x.shape[2]
    mean = _over(call, reduce.channels(call, x), count)
    squares = call.scratch(_parts(x), reduce.sum_dtype(x.dtype))
    _deviations.launch(call, squares.size, x, mean, squares)
    return mean, _over(call, reduce.rows(call, squares), count)


def _over(call, total, count):
    _divide.launch(call, total.size, total, count, total)
    return total


def update(call, running, batch, momentum, correction):
    _update.launch(call, running.size, running, batch, float(momentum), float(correction))


def normalise(call, x, mean, var, weight, bias, eps, y):
    weight, bias = (y.view((0,)) if a is None else a for a in (weight, bias))
    _normalise.launch(call, y.size, x, mean, var, weight, bias, float(eps), y)


def products(call, dy, x, mean, var, eps, dweight):
    """dweight = sum of dy * z."""
    part = call.scratch(_parts(x), reduce.sum_dtype(x.dtype))
    _products.launch(call, part.size, dy, x, mean, var, float(eps), part)
    reduce.rows(call, part, dweight)


def normalise_backward(call, dy, x, mean, var, weight, eps, dbias, dweight, training, dx):
    weight = dx.view((0,)) if weight is None else weight
    arrays = dy, x, mean, var, weight, float(eps), dbias, dweight, training, dx
    _normalise_backward.launch(call, dx.size, *arrays)


# -- local response normalisation ----------------------------------------------------------------------------


@kernel
def _denominator(x, size, factor, k, s):
    """s[c] = k + factor * sum of x^2 over the `size` channels from c - size // 2 on, cut at the ends."""
    real = s.dtype.type
    for i in range(cuda.grid(1), s.size, cuda.gridsize(1)):
        rest, inner = split(i, s.shape[2])
        n, c = split(rest, s.shape[1])
        total = real(0)
        for j in range(max(c - size // 2, 0), min(c - size // 2 + size, s.shape[1])):
            total += x[n, j, inner] * x[n, j, inner]
        s[n, c, inner] = k + factor * total


@kernel
def _response(x, s, beta, y):
    """y = x * s^-beta."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = x[i] * s[i] ** -beta


@kernel
def _response_backward(dy, x, s, size, factor, beta, dx):
    """dx[i] = dy[i] s[i]^-beta - factor * x[i] * sum of dy[c] x[c] s[c]^(-beta - 1).

    The sum is over the c near which i is, the channels from i + size // 2 - size + 1 to i + size // 2.
    """
    real = dx.dtype.type
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        rest, inner = split(i, dx.shape[2])
        n, c = split(rest, dx.shape[1])
        total = real(0)
        for j in range(max(c + size // 2 - size + 1, 0), min(c + size // 2 + 1, dx.shape[1])):
            total += dy[n, j, inner] * x[n, j, inner] * s[n, j, inner] ** (-beta - real(1))
        dx[n, c, inner] = dy[n, c, inner] * s[n, c, inner] ** -beta - factor * x[n, c, inner] * total


def denominator(call, x, size, alpha, k, s):
    _denominator.launch(call, s.size, x, size, float(alpha / size), float(k), s)


def response(call, x, s, beta, y):
    _response.launch(call, y.size, x.flat(), s.flat(), float(beta), y.flat())


def response_backward(call, dy, x, s, size, alpha, beta, dx):
    factor = 2 * alpha * beta / size
    _response_backward.launch(call, dx.size, dy, x, s, size, float(factor), float(beta), dx)
