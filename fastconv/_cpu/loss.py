"""The fused losses: labels, reductions and what each entry allocates.

Shapes and options are already valid; labels are checked here.
"""

import math

import numpy as np

from .. import _config
from . import isa
from .arrays import empty, like, plain, zeros


def _labels(operation, target, classes, ignore_index=None, weight=None):
    """A private int64 copy of class indices, ignored ones marked -1, and the sum of their weights.

    What is checked is this copy, so that no other thread can change a label between check and use.
    """
    if target.dtype.kind == "u" and target.dtype.itemsize == 8:  # what int64 cannot hold is wrong either way
        target = np.minimum(target, np.iinfo(np.int64).max)
    labels = np.array(target, np.int64, order="C")
    total, wrong = isa.active().label_total(labels, classes, ignore_index, plain(weight, np.float64))
    if wrong is not None:
        otherwise = "" if ignore_index is None else f", or ignore_index={ignore_index}"
        rule = f"(need 0 <= target < {classes}{otherwise})"
        raise ValueError(f"{operation}: target {wrong} is not a class {rule}")
    return labels, total


def _scale(reduction, count):
    """What gradients are multiplied by. The mean of nothing is nan, its gradient 0."""
    return 1.0 if reduction != "mean" else 1.0 / count if count else 0.0


def _reduced(losses, total, reduction, count, dtype):
    if reduction == "none":
        return losses
    if reduction == "mean":
        total = total / count if count else total * math.inf  # as IEEE divides: 0 / 0 is nan
    return dtype.type(total)


def _class_loss(name, x, labels, target, weight, reduction, count, smoothing=0.0, margin=0.0):
    dtype, (N, classes, *rest) = x.dtype.newbyteorder("="), x.shape
    losses, total = zeros((N, *rest), dtype), 0.0
    d = (zeros if name == "nll" else empty)(x.shape, dtype)
    if d.size:
        total = isa.active().class_loss(
            name, x, labels, target, plain(weight, dtype), losses, d, N, classes, math.prod(rest), smoothing, margin,
            _scale(reduction, count), _config.get_num_threads(),
        )  # fmt: skip
    return _reduced(losses, total, reduction, count, dtype), d


def softmax_cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing):
    name = "softmax_cross_entropy"
    if target.dtype.kind == "f":
        count = math.prod(logits.shape[2:], start=logits.shape[0])
        return _class_loss(name, logits, None, target, weight, reduction, count, label_smoothing)
    labels, count = _labels(name, target, logits.shape[1], ignore_index, weight)
    return _class_loss(name, logits, labels, None, weight, reduction, count, label_smoothing)


def nll(log_probs, target, weight, ignore_index, reduction):
    labels, count = _labels("nll", target, log_probs.shape[1], ignore_index, weight)
    return _class_loss("nll", log_probs, labels, None, weight, reduction, count)


def hinge(scores, target, margin, reduction):
    labels, count = _labels("hinge", target, scores.shape[1])
    return _class_loss("hinge", scores, labels, None, None, reduction, count, margin=margin)


def _element_loss(name, x, target, weight, pos_weight, reduction):
    dtype, d = x.dtype.newbyteorder("="), like(x)
    losses = like(x) if reduction == "none" else None
    total = isa.active().element_loss(
        name, x, target, weight, pos_weight, losses, d, _scale(reduction, x.size), _config.get_num_threads()
    )
    return _reduced(losses, total, reduction, x.size, dtype), d


def sigmoid_cross_entropy(logits, target, weight, pos_weight, reduction):
    weights = [None if w is None else np.broadcast_to(w, logits.shape) for w in (weight, pos_weight)]
    return _element_loss("sigmoid_cross_entropy", logits, target, *weights, reduction)


def squared_error(prediction, target, reduction):
    return _element_loss("squared_error", prediction, target, None, None, reduction)
