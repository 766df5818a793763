"""How far a correct kernel may be from the reference: every tolerance of the project is derived in this file.

Expected values are computed by the naive backend on float64 copies of the inputs and are not rounded to the
dtype under test. Every function below takes float64 arrays and the dtype that the kernel computed in, and
returns the largest admissible |actual - expected|, elementwise. There is one rule, `bound`, for sums of
products; one number, `FUNCTION_ULPS`, for exp and its relatives; everything else is made of these two by
propagation of errors.
"""

import numpy as np

FUNCTION_ULPS = 4
"""Units in the last place by which a compiled exp, expm1, log, log1p, sigmoid, tanh, elu or power may be off.

Vectorised polynomials after an exact argument reduction reach 1 to 2; 4 leaves room for the one or two
roundings around them (1 / (1 + e), alpha * expm1(x)).
"""


BFLOAT16_EPS = 2.0**-7
"""Of "bfloat16", which NumPy lacks: 8 significant bits, and float32's exponents."""


def unit(dtype):
    """The spacing of numbers at 1 (eps) in the kernel's dtype, plus that of the float64 reference.

    For float32 the second is nothing; for float64 it says that both sides of the comparison round.
    """
    eps = BFLOAT16_EPS if _is_bfloat16(dtype) else float(np.finfo(dtype).eps)
    return eps + float(np.finfo(np.float64).eps)


def _tiny(dtype):
    return float(np.finfo(np.float32 if _is_bfloat16(dtype) else dtype).tiny)


def _is_bfloat16(dtype):
    return isinstance(dtype, str) and dtype == "bfloat16"


def bound(magnitude, length, dtype, *, adversarial=False):
    """THE bound: |error| of a sum of `length` (L) products, whose absolute values sum to `magnitude` (A).

    A rounding errs by at most u = eps / 2 relative to its result. In any order of summation every product
    takes part in one multiplication and at most L additions, so to first order the error of the sum is at
    most u * (1 + L) * A, and that of a sum stored, biased and scaled afterwards at most u * (3 + L) * A.

    The adversarial bound is eps * (2 + L) * A: twice the worst case, for data made to reach it.

    The statistical bound is eps * (2 + sqrt(L)) * A, for data that know nothing of the order of summation.
    The L errors are then as good as independent with mean zero, each of standard deviation at most
    u * A / sqrt(3), and add up as a random walk: sqrt(L) of them, not L. The bound is sqrt(12) standard
    deviations for the most unfavourable partial sums (all of them A) and 6 for partial sums that grow evenly
    to A, as those of equal terms do; those of random signs are smaller still.

    Results below the smallest normal number may be flushed to zero at every step. An algorithm that is not a
    direct sum has a bound of its own: see `winograd`.
    """
    steps = 2 + (length if adversarial else np.sqrt(length))
    return unit(dtype) * steps * magnitude + (2 + length) * _tiny(dtype)


def rounded(y, error, dtype):
    """|error| of a float32 result that is off by `error`, rounded to 16 bits: half a unit in the last place.

    Below the smallest normal number the unit is that of the subnormal ones, eps times it.
    """
    return error + unit(dtype) / 2 * np.maximum(np.abs(y) + error, _tiny(dtype))


def function(y, dtype, ulps=FUNCTION_ULPS):
    """|error| of a function evaluated to `ulps` units in the last place of its result y."""
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.spacing(np.abs(y).astype(dtype)).astype(np.float64) + np.spacing(np.abs(y))
    return ulps * spacing + _tiny(dtype)


def activated(name, y, error, dtype):
    """|error| of an activation whose argument is off by `error`: Lipschitz constant, and its own."""
    if name in (None, "relu"):
        return error
    if name in ("leaky_relu", "elu"):
        return error + function(y, dtype)
    return (0.25 if name == "sigmoid" else 1.0) * error + function(y, dtype)


def activation_backward(name, dy, y, parameter, dtype):
    """Products and one difference of stored numbers: the terms of dx, three roundings each."""
    if name == "tanh":
        magnitude = np.abs(dy) * (1 + y * y)  # 1 - y * y cancels where y is near 1
    elif name == "sigmoid":
        magnitude = np.abs(dy * y) * np.abs(1 - y)  # 1 - y of a stored y is one rounding: no cancellation
    elif name == "elu":
        magnitude = np.where(y > 0, np.abs(dy), np.abs(dy * (y + parameter)))
        if float(np.dtype(dtype).type(parameter)) != parameter:  # it is rounded before y cancels it
            magnitude = magnitude + np.where(y > 0, 0.0, np.abs(dy) * parameter)
    else:
        magnitude = np.abs(dy) * max(1.0, abs(parameter))
    return bound(magnitude, 3, dtype)


# ---- softmax and the losses made of it ------------------------------------------------------------------


def _softmax_parts(x, axis, dtype):
    """p = softmax(x), the distance of x from its maximum, log of the sum, and the relative error of that sum.

    x - max is rounded, so that exp of it is off by eps * |x - max| relative, and by its own ulps; the sum
    is of positive numbers.
    """
    distance = np.max(x, axis=axis, keepdims=True, initial=-np.inf) - x
    e = np.exp(-distance)
    total = e.sum(axis=axis, keepdims=True)
    p = e / total
    spread = np.where(p > 0, p * distance, 0.0).sum(axis=axis, keepdims=True)
    return p, distance, np.log(total), unit(dtype) * (FUNCTION_ULPS + spread + 2 + np.sqrt(x.shape[axis]))


def softmax(x, axis, log, dtype):
    """|error| of (log) softmax.

    The maximum must be subtracted from x before anything else happens to it: the error is measured by
    distances from the maximum, not by the size of x.
    """
    with np.errstate(all="ignore"):
        p, distance, log_total, total_error = _softmax_parts(x, axis, dtype)
        if log:
            own = 2 * unit(dtype) * (distance + log_total) + unit(dtype) * FUNCTION_ULPS * log_total
            return own + total_error + _tiny(dtype)
        return p * (unit(dtype) * (FUNCTION_ULPS + distance + 2) + total_error) + 2 * _tiny(dtype)


def softmax_backward(dy, y, axis, log, dtype):
    """|error| of y * (dy - sum of dy * y), or of dy - exp(y) * sum of dy: sums of these terms."""
    if log:
        p = np.exp(y)
        magnitude = np.abs(dy) + (1 + FUNCTION_ULPS) * p * np.abs(dy).sum(axis=axis, keepdims=True)
    else:
        magnitude = np.abs(y) * (np.abs(dy) + np.abs(dy * y).sum(axis=axis, keepdims=True))
    return bound(magnitude, y.shape[axis] + 2, dtype)


def reduced(losses, losses_error, gradient, gradient_error, reduction, count, dtype):
    """|error| of the reduced loss and of its gradient, from those of every loss and of their gradient.

    gradient is that of the sum. For the mean, the count (a sum of weights) has an error of its own.
    """
    if reduction == "none":
        return losses_error, gradient_error
    number = np.size(losses)
    total = np.sum(losses_error) + bound(np.abs(losses).sum(), number, dtype)
    if reduction == "sum":
        return total, gradient_error
    with np.errstate(all="ignore"):
        mean = np.divide(total + bound(np.abs(losses).sum(), number, dtype), abs(count))
        return mean, (gradient_error + bound(np.abs(gradient), number, dtype)) / max(abs(count), _tiny(dtype))


def cross_entropy(x, wq, reduction, count, dtype):
    """|error| of - sum over c of wq * log softmax(x) and of its gradient; wq: weight * target probability."""
    p = _softmax_parts(x, 1, dtype)[0]
    log_p = x - np.max(x, axis=1, keepdims=True, initial=-np.inf)
    log_p = log_p - np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    C, wall = x.shape[1], np.abs(wq).sum(axis=1, keepdims=True)
    losses = -(wq * log_p).sum(axis=1)
    error = (np.abs(wq) * softmax(x, 1, True, dtype)).sum(axis=1)
    error = error + bound(np.abs(wq * log_p).sum(axis=1), C + 3, dtype)
    gradient = p * wq.sum(axis=1, keepdims=True) - wq
    gradient_error = softmax(x, 1, False, dtype) * wall + bound(p * wall + np.abs(wq), C + 3, dtype)
    gradient_error = np.where(wall > 0, gradient_error, 0.0)  # an ignored target has the gradient 0
    return reduced(losses, error, gradient, gradient_error, reduction, count, dtype)


def nll(log_probs, chosen, reduction, dtype):
    """|error| of - chosen * log_probs, chosen the class weight at the target and 0 elsewhere: one product."""
    losses = -(chosen * log_probs).sum(axis=1)
    zero = np.zeros_like(chosen)
    return reduced(losses, bound(np.abs(losses), 0, dtype), -chosen, zero, reduction, chosen.sum(), dtype)


def sigmoid_cross_entropy(x, target, weight, pos_weight, reduction, dtype):
    """|error| of weight * ((1 - t) x + ((pos - 1) t + 1) * (log1p(exp(-|x|)) + max(-x, 0))), of its terms."""
    softplus = np.log1p(np.exp(-np.abs(x))) + np.abs(x)
    positive = 1 + np.abs(pos_weight - 1) * np.abs(target)
    magnitude = np.abs(weight) * (np.abs(1 - target) * np.abs(x) + (1 + positive) * softplus)
    p = 1 / (1 + np.exp(-x))
    losses = weight * (
        pos_weight * target * (softplus - np.maximum(x, 0)) + (1 - target) * (softplus - np.maximum(-x, 0))
    )
    gradient = weight * ((1 - target) * p - pos_weight * target * (1 - p))
    gradient_magnitude = np.abs(weight) * (np.abs(1 - target) + positive + np.abs(target))
    steps = (4 + FUNCTION_ULPS) ** 2
    return reduced(
        losses,
        bound(magnitude, steps, dtype),
        gradient,
        bound(gradient_magnitude, steps, dtype),
        reduction,
        x.size,
        dtype,
    )


def squared_error(difference, reduction, dtype):
    """|error| of difference^2 and 2 difference: the difference is rounded once, the square twice more."""
    losses, gradient = difference**2, 2 * difference
    return reduced(
        losses,
        bound(losses, 1, dtype),
        gradient,
        bound(np.abs(gradient), 0, dtype),
        reduction,
        difference.size,
        dtype,
    )


def hinge(scores, hot, margin, reduction, dtype):
    """|error| of sum over j of max(0, s_j - s_t + margin).

    Each term has two roundings; one that is within them of zero may count in the gradient or not.
    """
    own = (scores * hot).sum(axis=1, keepdims=True)
    excess = np.where(hot > 0, -np.inf, scores - own + margin)
    term_error = bound(np.abs(scores) + np.abs(own) + abs(margin), 1, dtype)
    losses = np.maximum(excess, 0).sum(axis=1)
    active = np.where(excess > -term_error, term_error, 0.0).sum(axis=1)
    doubtful = (np.abs(excess) <= term_error).astype(np.float64)
    over = (excess > 0).astype(np.float64)
    gradient = over - hot * over.sum(axis=1, keepdims=True)
    gradient_error = doubtful + hot * doubtful.sum(axis=1, keepdims=True)
    return reduced(
        losses,
        active + bound(losses, scores.shape[1], dtype),
        gradient,
        gradient_error,
        reduction,
        losses.size,
        dtype,
    )


# ---- normalisation --------------------------------------------------------------------------------------


def _broadcast(values, ndim):
    return np.asarray(values, np.float64).reshape(1, -1, *[1] * (ndim - 2))


def _standardised(x, mean, var, training, eps, dtype):
    """z = (x - mean) / sqrt(var + eps), its error, 1 / sqrt(var + eps) and its relative error, those of both.

    The mean is a sum; the deviations carry its error and a rounding of x and of the mean (kernels may compute
    x * scale + shift); the variance is a sum of their squares.
    """
    axes, n = (0, *range(2, x.ndim)), x.size // x.shape[1]
    if training:
        mean = x.mean(axis=axes, keepdims=True)
        deviation = x - mean
        var = (deviation**2).mean(axis=axes, keepdims=True)
        mean_error = bound(np.abs(x).mean(axis=axes, keepdims=True), n, dtype)
        var_error = (
            bound(var, n + 4, dtype) + 2 * np.abs(deviation).mean(axis=axes, keepdims=True) * mean_error
        )
        var_error = var_error + mean_error**2
    else:
        mean, var = _broadcast(mean, x.ndim), _broadcast(var, x.ndim)
        mean_error = var_error = np.zeros_like(mean)
    inverse = 1 / np.sqrt(var + eps)
    inverse_error = var_error * inverse**2 / 2 + 2 * unit(dtype)
    deviation = np.abs(x - mean)
    rounding = unit(dtype) * (np.abs(x) + np.abs(mean))
    z_error = inverse * (mean_error + rounding + deviation * (inverse_error + 2 * unit(dtype))) + _tiny(dtype)
    return (x - mean) * inverse, z_error, inverse, inverse_error, mean_error, var_error


def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps, dtype):
    """|error| of (y, running_mean, running_var); the last two 0 where they are not updated."""
    z, z_error, _, _, mean_error, var_error = _standardised(
        x, running_mean, running_var, training, eps, dtype
    )
    w = _broadcast(1.0 if weight is None else weight, x.ndim)
    b = _broadcast(0.0 if bias is None else bias, x.ndim)
    y_error = np.abs(w) * z_error + bound(np.abs(w * z) + np.abs(b), 1, dtype)
    if not training:
        return y_error, 0.0, 0.0
    axes, n = (0, *range(2, x.ndim)), x.size // x.shape[1]
    mean, var = np.abs(x.mean(axis=axes)), x.var(axis=axes) * np.divide(n, max(n - 1, 1))
    updated = [
        bound((1 - momentum) * np.abs(old) + momentum * new, 2, dtype) + momentum * error.ravel()
        for old, new, error in (
            (0 if running_mean is None else running_mean, mean, mean_error),
            (0 if running_var is None else running_var, var, 2 * var_error),
        )
    ]
    return y_error, *updated


def batch_norm_backward(dy, x, weight, running_mean, running_var, training, eps, dtype):
    """|error| of (dx, dweight, dbias)."""
    axes, n = (0, *range(2, x.ndim)), x.size // x.shape[1]
    z, z_error, inverse, inverse_error, _, _ = _standardised(
        x, running_mean, running_var, training, eps, dtype
    )

    def total(values):
        return values.sum(axis=axes, keepdims=True)

    dbias_error = bound(total(np.abs(dy)), n, dtype)
    dweight_error = total(np.abs(dy) * z_error) + bound(total(np.abs(dy * z)), n, dtype)
    scale = np.abs(_broadcast(1.0 if weight is None else weight, x.ndim)) * inverse
    magnitude, through = np.abs(dy), 0.0
    if training:
        dweight = np.abs(total(dy * z))
        magnitude = magnitude + total(np.abs(dy)) / n + np.abs(z) * total(np.abs(dy * z)) / n
        through = (dbias_error + np.abs(z) * dweight_error + z_error * dweight) / n
    dx_error = scale * (through + magnitude * inverse_error + bound(magnitude, 4, dtype))
    return dx_error, dweight_error.ravel(), dbias_error.ravel()


def local_response_norm(x, s, size, beta, dtype):
    """|error| of x * s^-beta, s a sum of `size` squares: the power multiplies relative errors by beta."""
    return np.abs(x) * s**-beta * _power_error(s, size, beta, dtype) + _tiny(dtype)


def _power_error(s, size, beta, dtype):
    """Relative error of s^-beta: that of s times beta, and exp(-beta log s) through a rounded argument."""
    return unit(dtype) * (beta * (4 + np.sqrt(size)) + FUNCTION_ULPS + beta * np.abs(np.log(s)) + 2)


def local_response_norm_backward(dx_magnitude, s, size, beta, dtype):
    """|error| of dx, from the sum of the absolute values of its terms and the s that enter it."""
    worst = _power_error(s, size, beta + 1, dtype).max(axis=1, keepdims=True, initial=0.0)
    return dx_magnitude * (worst + unit(dtype) * (4 + np.sqrt(size))) + (2 + size) * _tiny(dtype)
