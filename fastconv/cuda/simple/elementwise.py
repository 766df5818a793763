"""Activations, dropout, maxout, sums: one thread per element. Arrays are contiguous."""

import math

from numba import cuda

from .launch import device, kernel, split

ACTIVATIONS = {None: 0, "relu": 1, "leaky_relu": 2, "elu": 3, "sigmoid": 4, "tanh": 5}
NONE, RELU, LEAKY_RELU, ELU, SIGMOID, TANH = ACTIVATIONS.values()


@device
def sigmoid(real, x):
    """1 / (1 + exp(-x)), through the exponential that cannot overflow."""
    small = real(math.exp(-abs(x)))
    return (small if x < real(0) else real(1)) / (real(1) + small)


@device
def activate(real, name, x, parameter):
    """The activation of that number; a comparison with NaN is false, so every branch lets NaN through."""
    if name == RELU:
        return real(0) if x <= real(0) else x
    if name == LEAKY_RELU:
        return parameter * x if x <= real(0) else x
    if name == ELU:
        return parameter * real(math.expm1(x)) if x <= real(0) else x
    if name == SIGMOID:
        return sigmoid(real, x)
    if name == TANH:
        return real(math.tanh(x))
    return x


@kernel
def _activation(x, y, name, parameter):
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = activate(y.dtype.type, name, x[i], parameter)


@kernel
def _activation_backward(dy, y, dx, name, parameter):
    """dx = dy * f'(x), the derivative written in the output y."""
    real = dx.dtype.type
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        given, value = dy[i], y[i]
        if name == SIGMOID:
            dx[i] = given * value * (real(1) - value)
        elif name == TANH:
            dx[i] = given * (real(1) - value * value)
        elif not value <= real(0):  # NaN too
            dx[i] = given
        elif name == RELU:
            dx[i] = real(0)
        elif name == LEAKY_RELU:
            dx[i] = parameter * given
        else:
            dx[i] = (value + parameter) * given


@kernel
def _dropout(x, mask, y, scale):
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = x[i] * scale if mask[i] else y.dtype.type(0)


@kernel
def _maxout(x, y, indices):
    """x (rows, pieces, inner) -> y, indices (rows, inner): the first of equals, a NaN before all others."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        row, inner = split(i, y.shape[1])
        best, first = x[row, 0, inner], 0
        for piece in range(1, x.shape[1]):
            value = x[row, piece, inner]
            if value > best or (value != value and best == best):
                best, first = value, piece
        y[row, inner] = best
        indices[row, inner] = first


@kernel
def _maxout_backward(dy, indices, dx, wrong):
    """dx (rows, pieces, inner) = dy (rows, inner) at the piece that won, 0 at the others."""
    for i in range(cuda.grid(1), dy.size, cuda.gridsize(1)):
        row, inner = split(i, dy.shape[1])
        won = indices[row, inner]
        if won < 0 or won >= dx.shape[1]:
            cuda.atomic.min(wrong, 0, i)
        for piece in range(dx.shape[1]):
            dx[row, piece, inner] = dy[row, inner] if piece == won else dx.dtype.type(0)


@kernel
def _add(a, b, factor, y):
    """y = a + factor * b."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = a[i] + factor * b[i]


@kernel
def _hits(x, classes, y):
    """y[0, n] = 1 where the first maximum of x[n], a NaN before all others, is at the class named, else 0."""
    for n in range(cuda.grid(1), x.shape[0], cuda.gridsize(1)):
        best, first = x[n, 0], 0
        for c in range(1, x.shape[1]):
            if x[n, c] > best or (x[n, c] != x[n, c] and best == best):
                best, first = x[n, c], c
        y[0, n] = 1 if first == classes[n] else 0


def activation(call, name, x, y, parameter):
    _activation.launch(call, y.size, x.flat(), y.flat(), ACTIVATIONS[name], float(parameter))


def activation_backward(call, name, dy, y, dx, parameter):
    arrays = dy.flat(), y.flat(), dx.flat()
    _activation_backward.launch(call, dx.size, *arrays, ACTIVATIONS[name], float(parameter))


def dropout(call, x, mask, y, scale):
    _dropout.launch(call, y.size, x.flat(), mask.flat(), y.flat(), float(scale))


def maxout(call, x, y, indices):
    _maxout.launch(call, y.size, x, y, indices)


def maxout_backward(call, dy, indices, dx, wrong):
    _maxout_backward.launch(call, dy.size, dy, indices, dx, wrong)


def add(call, a, b, factor, y):
    _add.launch(call, y.size, a.flat(), b.flat(), float(factor), y.flat())


def hits(call, x, classes, y):
    _hits.launch(call, y.size, x, classes, y)
