"""Losses with their gradients: docstring, check, dispatch.

Each returns (loss, dinput) from one stable pass: `loss` a scalar of the input's dtype (an array for reduction
"none"), `dinput` the gradient of its sum. What lies inside `target` is checked by the backend, where it is
used.
"""

import numpy as np

from .. import _arguments as arguments
from .._backends import of as backend_of

__all__ = ["softmax_cross_entropy", "nll", "sigmoid_cross_entropy", "squared_error", "hinge"]

REALS = (*"fdgFDG", *arguments.HALVES)  # codes of targets that are probabilities, the accepted and others
REDUCTIONS = ("mean", "sum", "none")


def softmax_cross_entropy(
    logits, target, *, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """loss = -sum over classes c of weight[c] * q[c] * log_softmax(logits)[c], and its gradient.

    q is 1 at the target class and 0 elsewhere, or the target probabilities; label smoothing s makes it
    (1 - s) * q + s / C. The gradient of a sample with weight 1 is softmax(logits) - q.

    logits: (N, C, *d), or (C,) for one sample; float32 or float64.
    target: class indices (N, *d) of any integer dtype, or probabilities (N, C, *d) of the dtype of logits (()
        or (C,) for one sample).
    weight: (C,) or None, one factor per class.
    ignore_index: positions with this class index cost nothing and count for nothing. Class indices only.
    reduction: "mean" (over the sum of the targets' weights for class indices, over the number of positions
        for probabilities), "sum", or "none" for a loss (N, *d).
    label_smoothing: between 0 and 1.

    Returns (loss, dlogits). Raises ValueError (shapes, values, a class out of range) and TypeError (dtypes,
    kinds).
    Source: torch.nn.functional.cross_entropy.
    """
    op = "softmax_cross_entropy"
    logits = _scores(op, "logits", logits)
    target = arguments.any_array(op, "target", target, scalars=True)
    weight = _class_weight(op, weight, "logits", logits)
    ignore_index = _any_index(op, ignore_index)
    arguments.word(op, "reduction", reduction, REDUCTIONS)
    label_smoothing = arguments.real(op, "label_smoothing", label_smoothing, 0, 1)
    if arguments.dtype_char(target) in REALS:
        target = arguments.float_array(op, "target", target)
        arguments.same_dtype(op, logits=logits, target=target)
        arguments.shape_is(op, "target", target, tuple(logits.shape), "probabilities, shaped as logits")
        if ignore_index >= 0:
            raise ValueError(
                f"{op}: ignore_index={ignore_index} and target has dtype {target.dtype}"
                " (ignore_index is for class indices, not for probabilities)"
            )
    else:
        target = _classes(op, target, "logits", logits)
    return _one_or_many(
        logits,
        target,
        reduction,
        lambda logits, target: backend_of(op, logits, target, weight).softmax_cross_entropy(
            logits, target, weight, ignore_index, reduction, label_smoothing
        ),
    )


def nll(log_probs, target, *, weight=None, ignore_index=-100, reduction="mean"):
    """loss = -weight[target] * log_probs[target], and its gradient.

    log_probs: (N, C, *d), or (C,) for one sample; float32 or float64. target: class indices (N, *d), or (),
    of any integer dtype. weight, ignore_index, reduction: as for softmax_cross_entropy.

    Returns (loss, dlog_probs). Raises ValueError (shapes, values, a class out of range) and TypeError
    (dtypes, kinds).
    Source: torch.nn.functional.nll_loss.
    """
    op = "nll"
    log_probs = _scores(op, "log_probs", log_probs)
    weight = _class_weight(op, weight, "log_probs", log_probs)
    ignore_index = _any_index(op, ignore_index)
    arguments.word(op, "reduction", reduction, REDUCTIONS)
    target = _classes(op, target, "log_probs", log_probs)
    return _one_or_many(
        log_probs,
        target,
        reduction,
        lambda log_probs, target: backend_of(op, log_probs, target, weight).nll(
            log_probs, target, weight, ignore_index, reduction
        ),
    )


def sigmoid_cross_entropy(logits, target, *, weight=None, pos_weight=None, reduction="mean"):
    """loss = -weight * (pos_weight * t * log sigmoid(z) + (1 - t) * log(1 - sigmoid(z))), and its gradient.

    logits z: any shape, float32 or float64; target t: the same shape and dtype, between 0 and 1. weight,
    pos_weight: arrays of that dtype whose shape broadcasts to that of logits, or None. reduction: "mean"
    (over all elements), "sum" or "none". Without weights the gradient is sigmoid(z) - t.

    Returns (loss, dlogits). Raises ValueError (shapes, values) and TypeError (dtypes, kinds).
    Source: torch.nn.functional.binary_cross_entropy_with_logits.
    """
    op = "sigmoid_cross_entropy"
    logits, target = _pair(op, "logits", logits, target)
    arguments.word(op, "reduction", reduction, REDUCTIONS)
    weight = _spread(op, "weight", weight, logits)
    pos_weight = _spread(op, "pos_weight", pos_weight, logits)
    backend = backend_of(op, logits, target, weight, pos_weight)
    return backend.sigmoid_cross_entropy(logits, target, weight, pos_weight, reduction)


def squared_error(prediction, target, *, reduction="mean"):
    """loss = (prediction - target)^2, elementwise, and its gradient 2 * (prediction - target).

    prediction: any shape, float32 or float64; target: the same shape and dtype. reduction: "mean" (over all
    elements), "sum" or "none".

    Returns (loss, dprediction). Raises ValueError (shapes, values) and TypeError (dtypes, kinds).
    Source: torch.nn.functional.mse_loss (no factor 1/2).
    """
    op = "squared_error"
    prediction, target = _pair(op, "prediction", prediction, target)
    arguments.word(op, "reduction", reduction, REDUCTIONS)
    return backend_of(op, prediction, target).squared_error(prediction, target, reduction)


def hinge(scores, target, *, margin=1.0, reduction="mean"):
    """loss = sum over j != t of max(0, scores[j] - scores[t] + margin), t the target, and its gradient.

    scores: (N, C), or (C,) for one sample; float32 or float64. target: class indices (N,), or (), of any
    integer dtype. reduction: "mean" (over the samples), "sum", or "none" for a loss (N,).

    Returns (loss, dscores). Raises ValueError (shapes, values, a class out of range) and TypeError (dtypes,
    kinds).
    Source: Weston and Watkins, 1999 (torch's multi_margin_loss divides by C besides).
    """
    op = "hinge"
    scores = _scores(op, "scores", scores)
    if scores.ndim > 2:
        raise ValueError(f"{op}: scores has {scores.ndim} dimensions {scores.shape}, need (N, C) or (C,)")
    margin = arguments.real(op, "margin", margin)
    arguments.word(op, "reduction", reduction, REDUCTIONS)
    target = _classes(op, target, "scores", scores)
    return _one_or_many(
        scores,
        target,
        reduction,
        lambda scores, target: backend_of(op, scores, target).hinge(scores, target, margin, reduction),
    )


# -- what the above share ------------------------------------------------------------------------------------


def _scores(op, name, scores):
    """Scores (N, C, *d) or (C,), with at least one class."""
    scores = arguments.float_array(op, name, scores)
    if scores.ndim == 0 or scores.shape[min(scores.ndim - 1, 1)] == 0:
        raise ValueError(f"{op}: {name} has shape {scores.shape}, need (N, C, *d) or (C,) with C at least 1")
    return scores


def _classes(op, target, name, scores):
    """Class indices for scores (N, C, *d): an integer array (N, *d)."""
    target = arguments.integer_array(op, "target", target)
    need = tuple(scores.shape[:1] + scores.shape[2:]) if scores.ndim > 1 else ()
    if target.shape != need:
        hint = ", probabilities have its dtype" if target.shape == scores.shape else ""
        raise ValueError(
            f"{op}: target has shape {target.shape} and {name} has {scores.shape},"
            f" need {need} (one class index per position{hint})"
        )
    return target


def _class_weight(op, weight, name, scores):
    if weight is None:
        return None
    weight = arguments.float_array(op, "weight", weight)
    arguments.same_dtype(op, **{name: scores, "weight": weight})
    classes = scores.shape[min(scores.ndim - 1, 1)]
    arguments.shape_is(op, "weight", weight, (classes,), "one factor per class")
    return weight


def _any_index(op, ignore_index):
    return arguments.integer(op, "ignore_index", ignore_index, -arguments.INDEX_MAX, arguments.INDEX_MAX)


def _one_or_many(scores, target, reduction, loss_of):
    """The loss of a batch, or of one sample without a batch axis, which backends see as a batch of one."""
    if scores.ndim > 1:
        return loss_of(scores, target)
    loss, gradient = loss_of(scores.reshape(1, *scores.shape), target.reshape(1, *target.shape))
    return (loss.reshape(()) if reduction == "none" else loss), gradient.reshape(scores.shape)


def _pair(op, name, prediction, target):
    """A prediction and its target: one shape, one dtype."""
    target, prediction = arguments.alike(op, "target", target, name, prediction, scalars=True)
    return prediction, target


def _spread(op, name, weight, logits):
    """A weight as a view of the shape of logits; on a device as it is, and the backend spreads it."""
    if weight is None:
        return None
    weight = arguments.float_array(op, name, weight, scalars=True)
    arguments.same_dtype(op, logits=logits, **{name: weight})
    try:
        if isinstance(weight, np.ndarray):
            return np.broadcast_to(weight, logits.shape)
        if np.broadcast_shapes(tuple(weight.shape), tuple(logits.shape)) == tuple(logits.shape):
            return weight
        raise ValueError
    except ValueError:
        raise ValueError(
            f"{op}: {name} has shape {weight.shape}, need one that broadcasts"
            f" to {logits.shape} (that of logits)"
        ) from None
