"""Losses and their gradients. Scores are (N, C, inner), targets and losses (N * inner); all contiguous.

One thread per position runs over its classes. The mean's divisor is a number on the device (`count`, (1,)),
so that the host waits for nothing.
"""

import math

from numba import cuda

from . import reduce
from .copy import fill
from .elementwise import sigmoid
from .launch import device, kernel, split
from .softmax import largest, total_of


@device
def scaled(real, gradient, mean, count):
    """The gradient of a sum or of a mean; 0 stays 0 where the mean is over nothing."""
    return gradient / count if mean and gradient != real(0) else gradient


@kernel
def _weigh(target, weight, classes, ignore, ignore_index, weighed, wrong):
    """weighed[i] = the weight of the target's class, 0 where it is ignored or no class (which is flagged)."""
    real = weighed.dtype.type
    for i in range(cuda.grid(1), target.size, cuda.gridsize(1)):
        label = target[i]
        inside = 0 <= label and label < classes
        ignored = ignore and label == ignore_index
        if not inside and not ignored:
            cuda.atomic.min(wrong, 0, i)
        if not inside or ignored:
            weighed[i] = real(0)
        elif weight.size > 0:
            weighed[i] = weight[label]
        else:
            weighed[i] = real(1)


@kernel
def _cross_entropy(x, target, weight, ignore, ignore_index, smoothing, count, mean, losses, dx):
    """loss = -sum over c of weight[c] q[c] log softmax(x)[c], q = 1 - s at the target, and s / C anywhere."""
    real = dx.dtype.type
    classes = x.shape[1]
    spread = smoothing / real(classes)
    for i in range(cuda.grid(1), losses.size, cuda.gridsize(1)):
        n, inner = split(i, x.shape[2])
        label = target[i]
        if label < 0 or label >= classes or (ignore and label == ignore_index):
            losses[i] = real(0)
            for c in range(classes):
                dx[n, c, inner] = real(0)
            continue
        top = largest(real, x, n, inner)
        total = total_of(real, x, top, n, inner)
        log_total = real(math.log(total))
        loss, whole = real(0), real(0)
        for c in range(classes):
            q = spread + (real(1) - smoothing if c == label else real(0))
            if weight.size > 0:
                q *= weight[c]
            if q != real(0):
                loss -= q * ((x[n, c, inner] - top) - log_total)
            whole += q
        losses[i] = loss
        for c in range(classes):
            q = spread + (real(1) - smoothing if c == label else real(0))
            if weight.size > 0:
                q *= weight[c]
            p = real(math.exp(x[n, c, inner] - top)) / total
            dx[n, c, inner] = scaled(real, p * whole - q, mean, count[0])


@kernel
def _cross_entropy_soft(x, target, weight, smoothing, count, mean, losses, dx):
    """The same with target probabilities (N, C, inner): q = (1 - s) target + s / C."""
    real = dx.dtype.type
    classes = x.shape[1]
    spread = smoothing / real(classes)
    for i in range(cuda.grid(1), losses.size, cuda.gridsize(1)):
        n, inner = split(i, x.shape[2])
        top = largest(real, x, n, inner)
        total = total_of(real, x, top, n, inner)
        log_total = real(math.log(total))
        loss, whole = real(0), real(0)
        for c in range(classes):
            q = (real(1) - smoothing) * target[n, c, inner] + spread
            if weight.size > 0:
                q *= weight[c]
            if q != real(0):
                loss -= q * ((x[n, c, inner] - top) - log_total)
            whole += q
        losses[i] = loss
        for c in range(classes):
            q = (real(1) - smoothing) * target[n, c, inner] + spread
            if weight.size > 0:
                q *= weight[c]
            p = real(math.exp(x[n, c, inner] - top)) / total
            dx[n, c, inner] = scaled(real, p * whole - q, mean, count[0])


@kernel
def _nll(x, target, weighed, count, mean, losses, dx):
    """loss = -weight[target] * x[target]."""
    real = dx.dtype.type
    for i in range(cuda.grid(1), losses.size, cuda.gridsize(1)):
        n, inner = split(i, x.shape[2])
        label, factor = target[i], weighed[i]
        for c in range(x.shape[1]):
            dx[n, c, inner] = scaled(real, -factor, mean, count[0]) if c == label else real(0)
        inside = 0 <= label and label < x.shape[1]  # asked again: another thread may have changed it since
        losses[i] = -factor * x[n, label, inner] if inside and factor != real(0) else real(0)


@kernel
def _hinge(x, target, margin, count, mean, losses, dx):
    """loss = sum over j != t of max(0, x[j] - x[t] + margin)."""
    real = dx.dtype.type
    for i in range(cuda.grid(1), losses.size, cuda.gridsize(1)):
        n, inner = split(i, x.shape[2])
        label = target[i]
        known = 0 <= label and label < x.shape[1]
        own = x[n, label, inner] if known else real(0)
        loss, over = real(0), real(0)
        for c in range(x.shape[1]):
            excess = x[n, c, inner] - own + margin
            counts = known and c != label and not excess <= real(0)  # NaN is summed, but has no gradient
            if counts:
                loss += excess
            one = real(1) if counts and excess == excess else real(0)
            over += one
            dx[n, c, inner] = scaled(real, one, mean, count[0])
        if known:
            dx[n, label, inner] = scaled(real, -over, mean, count[0])
        losses[i] = loss


@kernel
def _sigmoid_cross_entropy(x, target, weight, pos_weight, count, mean, losses, dx):
    """loss = -weight (pos_weight t log s + (1 - t) log(1 - s)), s = sigmoid(x)."""
    real = dx.dtype.type
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        value, t = x[i], target[i]
        positive = t * pos_weight[i] if pos_weight.size > 0 else t
        log_1p = real(math.log1p(math.exp(-abs(value))))
        yes = log_1p + (-value if value < real(0) else real(0))  # -log s
        no = log_1p + (value if value > real(0) else real(0))  # -log(1 - s)
        loss = positive * yes + (real(1) - t) * no
        gradient = (real(1) - t) * sigmoid(real, value) - positive * sigmoid(real, -value)
        if weight.size > 0:
            loss *= weight[i]
            gradient *= weight[i]
        losses[i] = loss
        dx[i] = scaled(real, gradient, mean, count[0])


@kernel
def _squared_error(x, target, count, mean, losses, dx):
    real = dx.dtype.type
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        difference = x[i] - target[i]
        losses[i] = difference * difference
        dx[i] = scaled(real, real(2) * difference, mean, count[0])


@kernel
def _finish(total, count, mean, loss):
    """loss = total or total / count: 0 / 0 is NaN, the mean of nothing."""
    for i in range(cuda.grid(1), 1, cuda.gridsize(1)):
        loss[i] = total[i] / count[i] if mean else total[i]


# -- their launchers -----------------------------------------------------------------------------------------


def weigh(call, target, weight, classes, ignore_index, dtype, wrong):
    """The weights of the targets, and their sum (1,). ignore_index None: nothing is ignored."""
    weighed = call.scratch(target.shape, dtype)
    weight = weighed.view((0,)) if weight is None else weight
    ignore, index = ignore_index is not None, ignore_index or 0
    _weigh.launch(call, target.size, target, weight, classes, ignore, index, weighed, wrong)
    return weighed, reduce.rows(call, weighed.view((1, target.size)))


def constant(call, value, dtype):
    """A number on the device, (1,)."""
    made = call.scratch((1,), dtype)
    fill(call, made, value)
    return made


def cross_entropy(call, x, target, weight, ignore_index, smoothing, count, mean, losses, dx):
    weight = dx.view((0,)) if weight is None else weight
    options = target, weight, ignore_index is not None, ignore_index or 0, float(smoothing), count, mean
    _cross_entropy.launch(call, losses.size, x, *options, losses, dx)


def cross_entropy_soft(call, x, target, weight, smoothing, count, mean, losses, dx):
    weight = dx.view((0,)) if weight is None else weight
    _cross_entropy_soft.launch(
        call, losses.size, x, target, weight, float(smoothing), count, mean, losses, dx
    )


def nll(call, x, target, weighed, count, mean, losses, dx):
    _nll.launch(call, losses.size, x, target, weighed, count, mean, losses, dx)


def hinge(call, x, target, margin, count, mean, losses, dx):
    _hinge.launch(call, losses.size, x, target, float(margin), count, mean, losses, dx)


def sigmoid_cross_entropy(call, x, target, weight, pos_weight, count, mean, losses, dx):
    weights = [dx.view((0,)) if w is None else w.flat() for w in (weight, pos_weight)]
    arrays = x.flat(), target.flat(), *weights
    _sigmoid_cross_entropy.launch(call, dx.size, *arrays, count, mean, losses.flat(), dx.flat())


def squared_error(call, x, target, count, mean, losses, dx):
    _squared_error.launch(call, dx.size, x.flat(), target.flat(), count, mean, losses.flat(), dx.flat())


def finish(call, losses, count, mean, loss):
    """loss (1,) = the sum of the losses, or their mean."""
    total = reduce.rows(call, losses.view((1, losses.size)))
    _finish.launch(call, 1, total, count, mean, loss)
