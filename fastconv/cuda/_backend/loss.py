"""The losses on the device: shapes, reductions, allocation. Shapes and options are already valid.

Labels are checked by the kernel that uses them. The sums of losses and of weights are taken in the dtype of
the scores (float32 for those of 16 bits), in a fixed order; the same inputs give the same bits.
"""

import math

import numpy as np

from .. import fast, memory_bound
from .._arrays import Call
from .._checks import Flag
from ..simple import loss
from ..simple.reduce import sum_dtype


def _scores(call, x):
    """(N, C, inner), contiguous."""
    shape = x.shape
    return call.contiguous(x).view((shape[0], shape[1], math.prod(shape[2:])))


class _Parts:
    """What every loss allocates: the losses, the gradient, and the number that the result is reduced to."""

    def __init__(self, call, x, losses_shape, reduction):
        self.call, self.reduction, self.mean = call, reduction, reduction == "mean"
        self.dx = call.empty(x.shape, x.dtype)
        if reduction == "none":
            self.losses = call.empty(losses_shape, x.dtype)
        else:
            self.losses = call.scratch(losses_shape, sum_dtype(x.dtype))

    def result(self, count):
        """(loss, gradient) as the caller gets them."""
        if self.reduction == "none":
            return self.losses.owner, self.dx.owner
        total = self.call.empty((), self.dx.dtype)
        loss.finish(self.call, self.losses, count, self.mean, total.view((1,)))
        return total.owner, self.dx.owner


def _weighed(call, target, weight, classes, ignore_index, dtype):
    """(flat labels, their weights, the sum of these, a function that raises ValueError for wrong labels)."""
    labels, dtype = call.contiguous(target).flat(), sum_dtype(dtype)
    otherwise = "" if ignore_index is None else f", or ignore_index={ignore_index}"
    rule = f"(need 0 <= target < {classes}{otherwise})"
    flag = Flag(call, f"{call.op}: target {{}} is not a class {rule}")
    weighed, count = loss.weigh(call, labels, weight, classes, ignore_index, dtype, flag.array)
    return labels, weighed, count, lambda: labels.size and flag.check(labels)


def _without_classes(shape):
    return (shape[0], *shape[2:])


def softmax_cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing):
    call = Call("softmax_cross_entropy", logits, target, weight)
    x, target, weight = call.arrays
    weight = call.contiguous(weight)
    parts = _Parts(call, x, _without_classes(x.shape), reduction)
    scores = _scores(call, x)
    results = parts.mean, parts.losses.flat(), parts.dx.view(scores.shape)
    if target.dtype.kind == "f":
        count = loss.constant(call, parts.losses.size, sum_dtype(x.dtype))
        probabilities = _scores(call, target)
        loss.cross_entropy_soft(call, scores, probabilities, weight, label_smoothing, count, *results)
        return parts.result(count)
    labels, _, count, check = _weighed(call, target, weight, x.shape[1], ignore_index, x.dtype)
    rows, classes, inner = scores.shape
    plain = inner == 1 and weight is None and labels.dtype == np.int64
    options = rows, classes, parts.mean, ignore_index, label_smoothing
    words = fast.word(scores), fast.word(parts.losses)
    program = memory_bound.cross_entropy(*words, *options) if plain else None
    arrays = dict(x=scores, target=labels, count=count, losses=parts.losses, dx=parts.dx)
    if not fast.done(call, program, **arrays):
        loss.cross_entropy(call, scores, labels, weight, ignore_index, label_smoothing, count, *results)
    result = parts.result(count)
    check()
    return result


def nll(log_probs, target, weight, ignore_index, reduction):
    call = Call("nll", log_probs, target, weight)
    x, target, weight = call.arrays
    parts = _Parts(call, x, _without_classes(x.shape), reduction)
    scores = _scores(call, x)
    weight = call.contiguous(weight)
    labels, weighed, count, check = _weighed(call, target, weight, x.shape[1], ignore_index, x.dtype)
    results = parts.mean, parts.losses.flat(), parts.dx.view(scores.shape)
    loss.nll(call, scores, labels, weighed, count, *results)
    result = parts.result(count)
    check()
    return result


def hinge(scores, target, margin, reduction):
    call = Call("hinge", scores, target)
    x, target = call.arrays
    parts = _Parts(call, x, _without_classes(x.shape), reduction)
    scores = _scores(call, x)
    labels, _, count, check = _weighed(call, target, None, x.shape[1], None, x.dtype)
    loss.hinge(
        call, scores, labels, margin, count, parts.mean, parts.losses.flat(), parts.dx.view(scores.shape)
    )
    result = parts.result(count)
    check()
    return result


def sigmoid_cross_entropy(logits, target, weight, pos_weight, reduction):
    call = Call("sigmoid_cross_entropy", logits, target, weight, pos_weight)
    x, target, weight, pos_weight = call.arrays
    weights = [None if w is None else call.contiguous(w.spread(x.shape)) for w in (weight, pos_weight)]
    parts = _Parts(call, x, x.shape, reduction)
    count = loss.constant(call, x.size, sum_dtype(x.dtype))
    arrays = call.contiguous(x), call.contiguous(target), *weights
    loss.sigmoid_cross_entropy(call, *arrays, count, parts.mean, parts.losses, parts.dx)
    return parts.result(count)


def squared_error(prediction, target, reduction):
    call = Call("squared_error", prediction, target)
    x, target = map(call.contiguous, call.arrays)
    parts = _Parts(call, x, x.shape, reduction)
    count = loss.constant(call, x.size, sum_dtype(x.dtype))
    loss.squared_error(call, x, target, count, parts.mean, parts.losses, parts.dx)
    return parts.result(count)
