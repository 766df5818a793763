"""The naive backend: every operation written as its definition. Correct means: what this file computes.

Plain loops and plain NumPy, judged by reading and never optimised; imports nothing but NumPy. Arguments are
already valid (the parser stands in front); arrays come as the user gave them: any strides, byte order,
alignment and rank. Everything is accumulated in float64 and rounded once, at the end, to the native dtype of
the inputs. Only targets and indices are range-checked here, where they are used, since another thread may
change them after validation.

Words: x (N, C, D, H, W), weight (K, C/groups, T, R, S), y (N, K, O, P, Q); 1-d and 2-d problems have unit
leading axes.
"""

from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """What a call would run: the algorithm, why others were refused, direct flops, scratch memory."""

    algorithm: str
    refused: dict
    flops: int
    scratch_bytes: int


def algorithms(direction):
    """Names of the algorithms of an operation; the naive backend knows one."""
    return ("direct",)


def plan(direction, problem, algorithm="auto"):
    """The Plan of a call: always "direct"; the float64 copies that it works on are not counted."""
    _only_direct(direction, algorithm)
    return Plan("direct", {}, getattr(problem, "flops", 0), 0)


def _only_direct(operation, algorithm):
    if algorithm not in ("auto", "direct"):
        raise NotImplementedError(
            f"{operation}: the naive backend has no algorithm {algorithm!r} (only 'direct')"
        )


# ---- Reading arguments, rounding results -----------------------------------------------------------------


def _wide(array, *shape):
    """The array in float64, in the shape given (its own if none)."""
    array = np.asarray(array, np.float64)
    return array.reshape(shape) if shape else array


def _native(array):
    """The dtype of an array in native byte order: the dtype of the result."""
    return np.asarray(array).dtype.newbyteorder("=")


def _rounded(value, dtype, *shape):
    """The result: value rounded to dtype, a C-contiguous array of the shape given (its own if none)."""
    result = np.asarray(value, dtype, order="C")
    return result.reshape(shape) if shape else result


# ---- Convolution -----------------------------------------------------------------------------------------


def _source(position, size, mode):
    """The input index that stands at each position of a padded axis; -1 where there is none (a zero).

    Position 0 is the first element of the plane, the padding lies below 0 and from `size` on. Left of 0 1 2 3
    stand  reflect 2 1 | 0 1 2 3,  replicate 0 0 | 0 1 2 3,  circular 2 3 | 0 1 2 3.
    """
    if mode == "zeros":
        return np.where((0 <= position) & (position < size), position, -1)
    if mode == "replicate":
        return np.clip(position, 0, size - 1)
    if mode == "circular":
        return position % size
    period = max(2 * (size - 1), 1)  # reflect: there and back, the two ends not repeated
    return np.minimum(position % period, period - position % period) if size > 1 else 0 * position


def _connections(problem):
    """Which outputs read which inputs: yields (tap, outputs, inputs) for every tap (t, r, s) of the kernel.

    `outputs` and `inputs` select the last three axes of y and of x: output o reads through tap t the input at
    o * stride - pad_low + t * dilation, where there is one. Every convolution below is a sum over these.
    """
    for tap in np.ndindex(*problem.kernel):
        outputs, inputs = [], []
        for axis in range(3):
            output = np.arange(problem.out[axis])
            first = output * problem.stride[axis] - problem.pad_low[axis]
            position = first + tap[axis] * problem.dilation[axis]
            source = _source(position, problem.size[axis], problem.padding_mode)
            outputs.append(output[source >= 0])
            inputs.append(source[source >= 0])
        yield tap, (..., *np.ix_(*outputs)), (..., *np.ix_(*inputs))


def _grouped_shapes(problem):
    """The shapes of x, weight and y with the groups as an axis: within a group, c and k count from 0."""
    G, C, K = problem.groups, problem.C // problem.groups, problem.K // problem.groups
    return (problem.N, G, C, *problem.size), (G, K, C, *problem.kernel), (problem.N, G, K, *problem.out)


@np.errstate(all="ignore")
def conv_forward(x, weight, bias, problem, algorithm, out):
    """y[n, k, o] = activation(bias[k] + sum over c and t of weight[k, c, t] * x[n, c, i]).

    i = o * stride - pad_low + t * dilation, the input that output o reads through tap t.
    """
    _only_direct(problem.op, algorithm)
    x_shape, weight_shape, y_shape = _grouped_shapes(problem)
    x, weight, y = _wide(x, *x_shape), _wide(weight, *weight_shape), np.zeros(y_shape)
    for tap, outputs, inputs in _connections(problem):
        y[outputs] += np.einsum("gkc,ngcdhw->ngkdhw", weight[(..., *tap)], x[inputs])
    if bias is not None:
        y += _wide(bias, *y_shape[1:3], 1, 1, 1)
    if problem.activation is not None:
        y = _activate(problem.activation, y, 0.01)
    if out is None:
        return _rounded(y, problem.dtype, *problem.y_shape)
    out[...] = y.reshape(out.shape)
    return out


@np.errstate(all="ignore")
def conv_backward_input(dy, weight, bias, problem, algorithm):
    """dx[n, c, i] = bias[c] + sum of weight[k, c, t] * dy[n, k, o] over all k and the (t, o) that read i."""
    _only_direct(problem.op, algorithm)
    x_shape, weight_shape, y_shape = _grouped_shapes(problem)
    dy, weight, dx = _wide(dy, *y_shape), _wide(weight, *weight_shape), np.zeros(x_shape)
    for tap, outputs, inputs in _connections(problem):
        np.add.at(dx, inputs, np.einsum("gkc,ngkdhw->ngcdhw", weight[(..., *tap)], dy[outputs]))
    if bias is not None:
        dx += _wide(bias, *x_shape[1:3], 1, 1, 1)
    return _rounded(dx, problem.dtype, *problem.x_shape)


@np.errstate(all="ignore")
def conv_backward_weight(dy, x, problem, algorithm):
    """dweight[k, c, t] = sum of dy[n, k, o] * x[n, c, i] over all n and o; i is what o reads through t."""
    _only_direct(problem.op, algorithm)
    x_shape, weight_shape, y_shape = _grouped_shapes(problem)
    dy, x, dweight = _wide(dy, *y_shape), _wide(x, *x_shape), np.zeros(weight_shape)
    for tap, outputs, inputs in _connections(problem):
        dweight[(..., *tap)] = np.einsum("ngkdhw,ngcdhw->gkc", dy[outputs], x[inputs])
    return _rounded(dweight, problem.dtype, *problem.weight_shape)


def conv_backward_weight_bias(dy, x, problem, algorithm):
    """Both gradients for which dy is read: (dweight, dbias)."""
    return conv_backward_weight(dy, x, problem, algorithm), channel_sum(dy, int(problem.batched))


@np.errstate(all="ignore")
def channel_sum(dy, axis):
    """The sum over all axes but one: the gradient of a bias."""
    others = tuple(a for a in range(np.ndim(dy)) if a != axis)
    return _rounded(_wide(dy).sum(axis=others), _native(dy))


def im2col(x, problem):
    """cols[n, c * taps + t, o] = the input of channel c that o reads through tap t, 0 in the padding."""
    x = _wide(x, problem.N, problem.C, *problem.size)
    cols = np.zeros((problem.N, problem.C, *problem.kernel, *problem.out))
    for (t, r, s), outputs, inputs in _connections(problem):
        cols[:, :, t, r, s][outputs] = x[inputs]
    taps, positions = int(np.prod(problem.kernel)), int(np.prod(problem.out))
    batch = (problem.N,) if problem.batched else ()
    return _rounded(cols, problem.dtype, *batch, problem.C * taps, positions)


@np.errstate(all="ignore")
def col2im(cols, problem):
    """The adjoint of im2col: every column entry is added to the input that it was read from."""
    cols = _wide(cols, problem.N, problem.C, *problem.kernel, *problem.out)
    x = np.zeros((problem.N, problem.C, *problem.size))
    for (t, r, s), outputs, inputs in _connections(problem):
        np.add.at(x, inputs, cols[:, :, t, r, s][outputs])
    return _rounded(x, problem.dtype, *problem.x_shape)


# ---- Pooling ---------------------------------------------------------------------------------------------


def _windows(problem):
    """Yields (output, window, valid, counted) for every output (o, p, q).

    `window` selects the last three axes of x, `valid` is the number of its elements and `counted` the number
    of taps inside the padded plane.
    """
    axes = [list(zip(*(np.asarray(a).tolist() for a in axis))) for axis in problem.windows]
    for output in np.ndindex(*problem.out):
        taps = [axes[a][output[a]] for a in range(3)]
        window = tuple(
            slice(begin, begin + valid * step, step)
            for (begin, valid, _), step in zip(taps, problem.dilation)
        )
        yield (
            output,
            window,
            int(np.prod([valid for _, valid, _ in taps])),
            int(np.prod([counted for _, _, counted in taps])),
        )


def max_pool(x, problem, return_indices):
    """The maximum of every window and its flat position in the plane.

    The first of equals; a NaN is the maximum. A window wholly in the padding gives -inf and the index -1.
    """
    x = _wide(x, problem.N, problem.C, *problem.size)
    positions = np.arange(np.prod(problem.size)).reshape(problem.size)
    y = np.full((problem.N, problem.C, *problem.out), -np.inf)
    indices = np.full(y.shape, -1, np.int64)
    for output, window, valid, _ in _windows(problem):
        if valid > 0:
            values = x[(..., *window)].reshape(problem.N, problem.C, valid)
            first = values.argmax(axis=2)  # NumPy takes the first NaN for the maximum, as we want it
            y[(..., *output)] = np.take_along_axis(values, first[:, :, None], axis=2)[:, :, 0]
            indices[(..., *output)] = positions[window].reshape(valid)[first]
    y = _rounded(y, problem.dtype, *problem.y_shape)
    return y, indices.reshape(problem.y_shape) if return_indices else None


@np.errstate(all="ignore")
def max_pool_backward(dy, indices, problem):
    """Every dy is added to dx at its index; -1 is ignored, any other outside the plane is a ValueError."""
    plane = int(np.prod(problem.size))
    dy = _wide(dy, problem.N * problem.C, int(np.prod(problem.out)))
    indices = np.array(indices, np.int64).reshape(dy.shape)
    wrong = (indices < -1) | (indices >= plane)
    if wrong.any():
        raise ValueError(
            f"{problem.op}: index {indices[wrong][0]} is outside the plane of {plane} elements "
            f"(need 0 <= index < {plane}, or -1 for a window wholly in padding)"
        )
    dx = np.zeros((problem.N * problem.C, plane))
    row, output = np.nonzero(indices >= 0)
    np.add.at(dx, (row, indices[row, output]), dy[row, output])
    return _rounded(dx, problem.dtype, *problem.x_shape)


def _divisor(problem, valid, counted):
    """What the sum of a window is divided by; the empty sum is 0 whatever divides it."""
    if problem.divisor_override is not None:
        return problem.divisor_override
    return counted if problem.count_include_pad else max(valid, 1)


@np.errstate(all="ignore")
def avg_pool(x, problem):
    """The sum of every window over its divisor: the number of its elements, or of its taps, or as given."""
    x = _wide(x, problem.N, problem.C, *problem.size)
    y = np.zeros((problem.N, problem.C, *problem.out))
    for output, window, valid, counted in _windows(problem):
        y[(..., *output)] = x[(..., *window)].sum(axis=(2, 3, 4)) / _divisor(problem, valid, counted)
    return _rounded(y, problem.dtype, *problem.y_shape)


@np.errstate(all="ignore")
def avg_pool_backward(dy, problem):
    """Every dy over its divisor is added to all elements of its window."""
    dy = _wide(dy, problem.N, problem.C, *problem.out)
    dx = np.zeros((problem.N, problem.C, *problem.size))
    for output, window, valid, counted in _windows(problem):
        dx[(..., *window)] += (dy[(..., *output)] / _divisor(problem, valid, counted))[:, :, None, None, None]
    return _rounded(dx, problem.dtype, *problem.x_shape)


# ---- Elementwise -----------------------------------------------------------------------------------------


def _activate(name, x, parameter):
    """The activations on float64; a comparison with NaN is false, so every branch below lets NaN through."""
    if name == "relu":
        return np.where(x <= 0, 0.0, x)
    if name == "leaky_relu":
        return np.where(x <= 0, parameter * x, x)
    if name == "elu":
        return np.where(x <= 0, parameter * np.expm1(x), x)
    if name == "sigmoid":
        return _sigmoid(x)
    return np.tanh(x)


def _sigmoid(x):
    """1 / (1 + exp(-x)), through the exponential that cannot overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


@np.errstate(all="ignore")
def activation(name, x, parameter):
    """relu max(0, x); leaky_relu x or parameter * x; elu x or parameter * (exp(x) - 1); sigmoid; tanh."""
    return _rounded(_activate(name, _wide(x), parameter), _native(x))


@np.errstate(all="ignore")
def activation_backward(name, dy, y, parameter):
    """dx = dy * f'(x), the derivative written in the output y."""
    dtype, dy, y = _native(dy), _wide(dy), _wide(y)
    if name == "relu":
        dx = np.where(y <= 0, 0.0, dy)
    elif name == "leaky_relu":
        dx = np.where(y <= 0, parameter * dy, dy)
    elif name == "elu":
        dx = np.where(y <= 0, (y + parameter) * dy, dy)
    elif name == "sigmoid":
        dx = dy * y * (1 - y)
    else:
        dx = dy * (1 - y * y)
    return _rounded(dx, dtype)


def _log_softmax(x, axis):
    """x - log(sum of exp(x)), the maximum taken out first so that nothing overflows."""
    shifted = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _softmax(x, axis):
    """exp(x) / sum of exp(x), the maximum taken out first."""
    e = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return e / np.sum(e, axis=axis, keepdims=True)


@np.errstate(all="ignore")
def softmax(x, axis, log):
    """y = exp(x) / sum of exp(x) along the axis, or its logarithm; a 0-d x counts as one class."""
    wide = np.atleast_1d(_wide(x))
    y = _log_softmax(wide, axis) if log else _softmax(wide, axis)
    return _rounded(y, _native(x)).reshape(np.shape(x))


@np.errstate(all="ignore")
def softmax_backward(dy, y, axis, log):
    """softmax: dx = y * (dy - sum of dy * y);  log_softmax: dx = dy - exp(y) * sum of dy."""
    dtype, shape = _native(dy), np.shape(dy)
    dy, y = np.atleast_1d(_wide(dy)), np.atleast_1d(_wide(y))
    if log:
        dx = dy - np.exp(y) * dy.sum(axis=axis, keepdims=True)
    else:
        dx = y * (dy - (dy * y).sum(axis=axis, keepdims=True))
    return _rounded(dx, dtype).reshape(shape)


def maxout(x, pieces, axis):
    """y[c] = max of x[c * pieces + i] over 0 <= i < pieces; the index is that i, the first of equals."""
    shape = np.shape(x)
    x = np.asarray(x, _native(x)).reshape(*shape[:axis], shape[axis] // pieces, pieces, *shape[axis + 1 :])
    indices = x.argmax(axis=axis + 1)
    y = np.take_along_axis(x, np.expand_dims(indices, axis + 1), axis + 1).squeeze(axis + 1)
    return _rounded(y, x.dtype), _rounded(indices, np.int64)


def maxout_backward(dy, indices, pieces, axis):
    """dx = dy at the piece that won, 0 at the others; an index that is no piece is a ValueError."""
    indices = np.array(indices, np.int64)
    wrong = (indices < 0) | (indices >= pieces)
    if wrong.any():
        raise ValueError(
            f"maxout_backward: index {indices[wrong][0]} is not one of {pieces} pieces "
            f"(need 0 <= index < {pieces})"
        )
    shape = np.shape(dy)
    piece = np.arange(pieces).reshape(pieces, *[1] * (len(shape) - axis - 1))
    won = np.expand_dims(indices, axis + 1) == piece
    dx = np.where(won, np.expand_dims(np.asarray(dy), axis + 1), 0.0)
    return _rounded(dx, _native(dy), *shape[:axis], shape[axis] * pieces, *shape[axis + 1 :])


def dropout_mask(x, p, rng):
    """Where x is kept: whether a random number of 24 bits, between 0 and 1, is at least p."""
    return np.asarray(rng.random(np.shape(x), dtype=np.float32) >= p)


def dropout(x, mask, p):
    """y = x / (1 - p) where the mask is set, 0 elsewhere."""
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    with np.errstate(all="ignore"):
        return _rounded(np.where(mask, _wide(x) * scale, 0.0), _native(x))


def dropout_backward(dy, mask, p):
    """dx = dy / (1 - p) where the mask is set, 0 elsewhere."""
    return dropout(dy, mask, p)


# ---- Losses: (loss, gradient of the summed loss) ---------------------------------------------------------


def _reduced(losses, gradient, count, reduction, dtype):
    """Sum, mean (over `count`) or all of the losses, and the gradient that goes with it."""
    if reduction == "none":
        return _rounded(losses, dtype), _rounded(gradient, dtype)
    if reduction == "sum":
        return dtype.type(np.sum(losses)), _rounded(gradient, dtype)
    mean = np.divide(np.sum(losses), count)  # 0 / 0 is nan, the mean of nothing; its gradient stays 0
    return dtype.type(mean), _rounded(np.where(gradient == 0, 0.0, np.divide(gradient, count)), dtype)


def _one_hot(operation, target, shape, ignore_index=None):
    """Class indices (N, *d) as a (N, C, *d) array of 0 and 1; an ignored target has no 1."""
    target = np.array(target)  # a copy: what is checked is what is used
    ignored = target == ignore_index if ignore_index is not None else np.zeros(target.shape, bool)
    wrong = ~ignored & ((target < 0) | (target >= shape[1]))
    if wrong.any():
        otherwise = "" if ignore_index is None else f", or ignore_index={ignore_index}"
        raise ValueError(
            f"{operation}: target {target[wrong][0]} is not a class "
            f"(need 0 <= target < {shape[1]}{otherwise})"
        )
    classes = np.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    return (classes == np.expand_dims(np.where(ignored, -1, target.astype(np.int64)), 1)).astype(np.float64)


def _class_weights(weight, shape):
    """Class weights, ones if None, in a shape that broadcasts over (N, C, *d)."""
    weight = np.ones(shape[1]) if weight is None else _wide(weight)
    return weight.reshape(1, -1, *[1] * (len(shape) - 2))


def _picked(chosen, values):
    """The sum over classes of chosen * values; classes with chosen = 0 take no part (no NaN from 0 * inf)."""
    return np.where(chosen != 0, chosen * values, 0.0).sum(axis=1)


@np.errstate(all="ignore")
def softmax_cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing):
    """loss[n] = - sum over classes c of weight[c] * q[n, c] * log softmax(logits[n])[c].

    q are the target probabilities, or 1 at the target class, in both cases smoothed to (1 - s) q + s / C. The
    mean divides by the sum of weight[target] over the targets not ignored; with probabilities by the number
    of positions.
    """
    dtype, shape, x = _native(logits), np.shape(logits), _wide(logits)
    weight = _class_weights(weight, shape)
    smooth = label_smoothing / shape[1]
    if np.issubdtype(np.asarray(target).dtype, np.integer):
        hot = _one_hot("softmax_cross_entropy", target, shape, ignore_index)
        kept = hot.sum(axis=1, keepdims=True)  # 0 where the target is ignored
        count = (weight * hot).sum()
        q = (1 - label_smoothing) * hot + smooth * kept
    else:
        kept = np.ones((1,) * len(shape))
        count = x.size // shape[1]
        q = (1 - label_smoothing) * _wide(target) + smooth
    log_p = _log_softmax(x, 1)
    losses = -_picked(weight * q, log_p)
    gradient = np.where(kept > 0, _softmax(x, 1) * (weight * q).sum(axis=1, keepdims=True) - weight * q, 0.0)
    return _reduced(losses, gradient, count, reduction, dtype)


@np.errstate(all="ignore")
def nll(log_probs, target, weight, ignore_index, reduction):
    """loss[n] = - weight[target[n]] * log_probs[n, target[n]]; the mean is over the sum of these weights."""
    dtype, shape = _native(log_probs), np.shape(log_probs)
    chosen = _class_weights(weight, shape) * _one_hot("nll", target, shape, ignore_index)
    return _reduced(-_picked(chosen, _wide(log_probs)), -chosen, chosen.sum(), reduction, dtype)


@np.errstate(all="ignore")
def sigmoid_cross_entropy(logits, target, weight, pos_weight, reduction):
    """loss = -weight * (pos_weight * t * log s + (1 - t) * log(1 - s)), s = sigmoid(logits).

    The mean is over all elements.
    """
    dtype, x, target = _native(logits), _wide(logits), _wide(target)
    weight = np.broadcast_to(1.0 if weight is None else _wide(weight), x.shape)
    positive = target if pos_weight is None else _wide(pos_weight) * target
    log_1p = np.log1p(np.exp(-np.abs(x)))
    yes, no = log_1p + np.maximum(-x, 0), log_1p + np.maximum(x, 0)  # -log s and -log(1 - s)
    losses = weight * (positive * yes + (1 - target) * no)
    gradient = weight * ((1 - target) * _sigmoid(x) - positive * _sigmoid(-x))
    return _reduced(losses, gradient, x.size, reduction, dtype)


@np.errstate(all="ignore")
def squared_error(prediction, target, reduction):
    """loss = (prediction - target)^2, the mean over all elements."""
    difference = np.asarray(_wide(prediction) - _wide(target))
    return _reduced(difference**2, 2 * difference, difference.size, reduction, _native(prediction))


@np.errstate(all="ignore")
def hinge(scores, target, margin, reduction):
    """loss[n] = sum over j != t of max(0, s[n, j] - s[n, t] + margin), t = target[n]; the mean is over n."""
    dtype, shape, scores = _native(scores), np.shape(scores), _wide(scores)
    hot = _one_hot("hinge", target, shape)
    own = np.expand_dims(_picked(hot, scores), 1)
    excess = np.where(hot > 0, 0.0, scores - own + margin)
    over = (excess > 0).astype(np.float64)
    gradient = over - hot * over.sum(axis=1, keepdims=True)
    return _reduced(np.maximum(excess, 0).sum(axis=1), gradient, scores.size // shape[1], reduction, dtype)


# ---- Dense and normalisation -----------------------------------------------------------------------------


@np.errstate(all="ignore")
def linear(x, weight, bias):
    """y[..., o] = bias[o] + sum over i of weight[o, i] * x[..., i]."""
    y = np.einsum("...i,oi->...o", _wide(x), _wide(weight))
    return _rounded(y if bias is None else y + _wide(bias), _native(x))


@np.errstate(all="ignore")
def linear_backward(dy, x, weight, output_mask):
    """dx = dy weight, dweight = dy^T x, dbias = sum of dy; None where masked out."""
    dtype, dy, x, weight = _native(dy), _wide(dy), _wide(x), _wide(weight)
    others = tuple(range(dy.ndim - 1))
    dx = np.einsum("...o,oi->...i", dy, weight)
    dweight = np.einsum("...o,...i->...oi", dy, x).sum(axis=others)
    dbias = dy.sum(axis=others)
    return tuple(
        _rounded(g, dtype) if wanted else None for g, wanted in zip((dx, dweight, dbias), output_mask)
    )


def _per_channel(values, ndim, default):
    """(C,) values, a default if None, in a shape that broadcasts over (N, C, *d)."""
    return default if values is None else _wide(values).reshape(1, -1, *[1] * (ndim - 2))


def _statistics(x, running_mean, running_var, training):
    """Mean and biased variance per channel, the batch's or the running ones; the number of values in each."""
    if not training:
        return _per_channel(running_mean, x.ndim, None), _per_channel(running_var, x.ndim, None), None
    axes, count = (0, *range(2, x.ndim)), x.size // x.shape[1]
    mean = np.divide(x.sum(axis=axes, keepdims=True), count)
    return mean, np.divide(((x - mean) ** 2).sum(axis=axes, keepdims=True), count), count


@np.errstate(all="ignore")
def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    """y = (x - mean) / sqrt(var + eps) * weight + bias per channel.

    In training mean and var are those of the batch, and running_* (where given) are updated in place:
    running = (1 - momentum) * running + momentum * batch, the variance unbiased.
    """
    dtype, x = _native(x), _wide(x)
    mean, var, count = _statistics(x, running_mean, running_var, training)
    if training and running_mean is not None:
        running_mean[...] = (1 - momentum) * _wide(running_mean) + momentum * mean.ravel()
    if training and running_var is not None:
        unbiased = var.ravel() * np.divide(count, count - 1)
        running_var[...] = (1 - momentum) * _wide(running_var) + momentum * unbiased
    y = (x - mean) / np.sqrt(var + eps) * _per_channel(weight, x.ndim, 1.0) + _per_channel(bias, x.ndim, 0.0)
    return _rounded(y, dtype)


@np.errstate(all="ignore")
def batch_norm_backward(dy, x, weight, running_mean, running_var, training, eps):
    """dbias = sum of dy, dweight = sum of dy * z with z = (x - mean) / sqrt(var + eps), and

    dx = weight / sqrt(var + eps) * dy; in training, where the statistics depend on x too,
    dx = weight / sqrt(var + eps) * (dy - mean(dy) - z * mean(dy * z)).
    """
    dtype, dy, x = _native(dy), _wide(dy), _wide(x)
    mean, var, count = _statistics(x, running_mean, running_var, training)
    axes = (0, *range(2, x.ndim))
    z = (x - mean) / np.sqrt(var + eps)
    dbias = dy.sum(axis=axes, keepdims=True)
    dweight = (dy * z).sum(axis=axes, keepdims=True)
    through = dy - np.divide(dbias, count) - z * np.divide(dweight, count) if training else dy
    dx = _per_channel(weight, x.ndim, 1.0) / np.sqrt(var + eps) * through
    return _rounded(dx, dtype), _rounded(dweight.ravel(), dtype), _rounded(dbias.ravel(), dtype)


def _neighbours(c, channels, size):
    """The channels whose squares normalise channel c: size of them, size // 2 below c, cut at the ends."""
    return slice(max(c - size // 2, 0), min(c - size // 2 + size, channels))


def _denominator(x, size, alpha, k):
    """s[c] = k + alpha / size * sum of x^2 over the neighbours of c."""
    s = np.empty_like(x)
    for c in range(x.shape[1]):
        s[:, c] = k + alpha / size * (x[:, _neighbours(c, x.shape[1], size)] ** 2).sum(axis=1)
    return s


@np.errstate(all="ignore")
def local_response_norm(x, size, alpha, beta, k):
    """y[c] = x[c] / (k + alpha / size * sum of x^2 over the neighbouring channels of c)^beta."""
    dtype, x = _native(x), _wide(x)
    return _rounded(x * _denominator(x, size, alpha, k) ** -beta, dtype)


@np.errstate(all="ignore")
def local_response_norm_backward(dy, x, size, alpha, beta, k):
    """dx[i] = dy[i] s[i]^-beta - 2 alpha beta / size * x[i] * sum of dy[c] x[c] s[c]^(-beta - 1).

    The sum is over the channels c that have i among their neighbours.
    """
    dtype, dy, x = _native(dy), _wide(dy), _wide(x)
    s = _denominator(x, size, alpha, k)
    dx = dy * s**-beta
    for c in range(x.shape[1]):
        near = _neighbours(c, x.shape[1], size)
        dx[:, near] -= 2 * alpha * beta / size * x[:, near] * (dy * x * s ** (-beta - 1))[:, c : c + 1]
    return _rounded(dx, dtype)
