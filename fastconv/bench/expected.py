"""What a problem's results should be: float64, NumPy alone. Every implementation is checked against this.

Independent of the kernels and of the other implementations, and quick enough for real layers: convolution
is a gather of patches, a block of channels at a time, and a matrix product.
"""

import math

import numpy as np

from . import networks
from .problems import RESPONSE_NORM

BLOCK_BYTES = 64 << 20  # of gathered patches


def expected(problem, direction):
    """The results of a problem in one direction: a list of float64 arrays.

    Convolution and linear: [y], [dx] or [dweight, dbias]; "backward": [dx], or [dx, dweight, dbias] of what
    has weights; "loss": [loss, dx]. Of a network [y], or of a step [loss, y, all gradients of weights].
    """
    if problem.family == "network":
        return networks.expected(problem, direction)
    a = {
        k: v if v is None or v.dtype.kind != "f" else v.astype(np.float64)
        for k, v in problem.arrays().items()
    }
    if problem.family == "conv":
        return _convolution(problem, direction, **a)
    if problem.family == "pool":
        return [(_pool if direction == "forward" else _pool_backward)(problem, **a)]
    if problem.op == "linear":
        x, w, b, dy = a["x"], a["weight"], a["bias"], a["dy"]
        return [x @ w.T + b] if direction == "forward" else [dy @ w, dy.T @ x, dy.sum(0)]
    with np.errstate(over="ignore"):
        return _PLAIN[problem.op](a, direction)


# -- convolution ---------------------------------------------------------------------------------------------


def _convolution(problem, direction, x, weight, bias, dy):
    p, ndim = problem.problem, problem.ndim
    dbias = dy.sum(tuple(axis for axis in range(dy.ndim) if axis != dy.ndim - ndim - 1))
    if problem.transposed:  # the adjoint of p: x and dy change places, and so do two of the directions
        x, dy = dy, x
        what = {"forward": "backward_input", "backward_input": "forward"}.get(direction, direction)
    else:
        what = direction
    result = {"forward": _forward, "backward_input": _backward_input, "backward_weight": _backward_weight}[
        what
    ](
        p,
        x.reshape(p.N, p.C, *p.size),
        weight.reshape(p.groups, p.K // p.groups, -1),
        dy.reshape(p.N, p.groups, p.K // p.groups, math.prod(p.out)),
    )
    if direction == "backward_weight":
        return [result.reshape(problem.weight_shape), dbias]
    if direction == "backward_input":
        return [result.reshape(problem.x_shape)]
    y = result.reshape(problem.y_shape)
    if bias is not None:
        y += bias.reshape(-1, *(1,) * ndim)
    return [_ACTIVATIONS[p.activation](y) if p.activation else y]


def _sources(p):
    """For each axis an array (taps, outputs): which position of x is read, one past the end for a zero."""
    tables = []
    for size, out, taps, stride, dilation, low in zip(
        p.size, p.out, p.kernel, p.stride, p.dilation, p.pad_low
    ):
        at = np.arange(taps)[:, None] * dilation + np.arange(out) * stride - low
        if p.padding_mode == "zeros":
            at = np.where((at < 0) | (at >= size), size, at)
        elif p.padding_mode == "replicate":
            at = at.clip(0, size - 1)
        elif p.padding_mode == "circular":
            at %= size
        else:  # reflect: there and back again
            at %= max(2 * (size - 1), 1)
            at = np.minimum(at, 2 * (size - 1) - at)
        tables.append(at)
    return tables


def _blocks(p):
    """(sample, group, channels of a block, columns of the group's weight matrix that they meet)."""
    per_group = p.C // p.groups
    step = max(1, BLOCK_BYTES // (8 * p.taps * math.prod(p.out)))
    for n in range(p.N):
        for g in range(p.groups):
            for c in range(0, per_group, step):
                end = min(c + step, per_group)
                yield n, g, slice(g * per_group + c, g * per_group + end), slice(c * p.taps, end * p.taps)


def _patches(p, x, sources):
    """(channels * taps, outputs) of x (channels, D, H, W)."""
    x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 1)))
    d, h, w = (table.reshape(-1) for table in sources)
    (t, o), (r, q), (s, v) = (table.shape for table in sources)
    cols = x[:, d][:, :, h][:, :, :, w].reshape(-1, t, o, r, q, s, v)
    return cols.transpose(0, 1, 3, 5, 2, 4, 6).reshape(-1, o * q * v)


def _forward(p, x, w, dy):
    y, sources = np.zeros((p.N, p.groups, p.K // p.groups, math.prod(p.out))), _sources(p)
    for n, g, channels, columns in _blocks(p):
        y[n, g] += w[g][:, columns] @ _patches(p, x[n, channels], sources)
    return y


def _backward_weight(p, x, w, dy):
    dw, sources = np.zeros(w.shape), _sources(p)
    for n, g, channels, columns in _blocks(p):
        dw[g][:, columns] += dy[n, g] @ _patches(p, x[n, channels], sources).T
    return dw


def _backward_input(p, x, w, dy):
    dx, sources = np.zeros((p.N, p.C, *(size + 1 for size in p.size))), _sources(p)
    for n, g, channels, columns in _blocks(p):
        cols = (w[g][:, columns].T @ dy[n, g]).reshape(-1, *p.kernel, *p.out)
        for tap in np.ndindex(*p.kernel):
            where = (slice(None), *np.ix_(*(table[t] for table, t in zip(sources, tap))))
            if p.padding_mode == "zeros":  # a tap meets a position once, but for the zero, which is cut off
                dx[n, channels][where] += cols[(slice(None), *tap)]
            else:
                np.add.at(dx[n, channels], where, cols[(slice(None), *tap)])
    return dx[:, :, :-1, :-1, :-1]


# -- pooling -------------------------------------------------------------------------------------------------


def _windows(p):
    """For each tap: (index of y, index of x), both (planes, D, H, W), where the tap lies inside the plane."""
    for tap in np.ndindex(*p.kernel):
        places = []
        for t, size, out, stride, dilation, low in zip(tap, p.size, p.out, p.stride, p.dilation, p.pad_low):
            at = np.arange(out) * stride - low + t * dilation
            inside = np.flatnonzero((at >= 0) & (at < size))
            places.append((inside, at[inside]))
        yield tuple((slice(None), *np.ix_(*axes)) for axes in zip(*places))


def _divisor(p, options):
    """What an average divides by, over the outputs."""
    if options.get("divisor_override"):
        return options["divisor_override"]
    counts = [valid if not p.count_include_pad else counted for _, valid, counted in p.windows]
    product = np.einsum("i,j,k->ijk", *(np.asarray(count, np.float64) for count in counts))
    return np.maximum(product, 1)


def _pool(problem, x, dy):
    p = problem.problem
    x = x.reshape(-1, *p.size)
    if p.adaptive:
        y = _adaptive(p, x, np.max if "max" in p.op else np.mean)
    elif "max" in p.op:
        y = np.full((len(x), *p.out), -np.inf)
        for to, at in _windows(p):
            y[to] = np.maximum(y[to], x[at])
    else:
        y = np.zeros((len(x), *p.out))
        for to, at in _windows(p):
            y[to] += x[at]
        y /= _divisor(p, problem.options)
    return y.reshape(p.y_shape)


def _adaptive_windows(p):
    """(index of y, index of x) of each window, both (planes, ...)."""
    for o in np.ndindex(*p.out):
        window = (slice(begin[i], begin[i] + valid[i]) for (begin, valid, _), i in zip(p.windows, o))
        yield (slice(None), *o), (slice(None), *window)


def _adaptive(p, x, reduce):
    y = np.empty((len(x), *p.out))
    for to, at in _adaptive_windows(p):
        y[to] = reduce(x[at], axis=(1, 2, 3))
    return y


def _pool_backward(problem, x, dy):
    p = problem.problem
    x, dy = x.reshape(-1, *p.size), dy.reshape(-1, *p.out)
    dx = np.zeros(x.shape)
    if p.adaptive:
        for to, at in _adaptive_windows(p):
            part, g = x[at], dy[to][:, None, None, None]
            if "max" in p.op:
                dx[at] += g * (part == part.max(axis=(1, 2, 3), keepdims=True))
            else:
                dx[at] += g / math.prod(part.shape[1:])
    elif "max" in p.op:
        y = _pool(problem, x.reshape(p.x_shape), dy).reshape(dy.shape)
        for to, at in _windows(p):  # the inputs are random reals: no ties
            dx[at] += np.where(x[at] == y[to], dy[to], 0)
    else:
        dy = dy / _divisor(p, problem.options)
        for to, at in _windows(p):
            dx[at] += dy[to]
    return dx.reshape(p.x_shape)


# -- the rest ------------------------------------------------------------------------------------------------


def _relu(x):
    return np.maximum(x, 0)


def _leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def _elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


_ACTIVATIONS = {"relu": _relu, "leaky_relu": _leaky, "sigmoid": _sigmoid, "tanh": np.tanh}


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _activation(function, slope):
    """`slope(x, y)` is the derivative."""

    def run(a, direction):
        y = function(a["x"])
        return [y] if direction == "forward" else [a["dy"] * slope(a["x"], y)]

    return run


def _softmaxes(log):
    def run(a, direction):
        p, dy = _softmax(a["x"]), a.get("dy")
        if direction == "forward":
            return [np.log(p) if log else p]
        if log:
            return [dy - p * dy.sum(-1, keepdims=True)]
        return [p * (dy - (p * dy).sum(-1, keepdims=True))]

    return run


def _cross_entropy(a, direction):
    p, target = _softmax(a["x"]), a["target"]
    hot = np.arange(p.shape[1]) == target[:, None]
    return [-np.log(p[hot]).mean(), (p - hot) / len(p)]


def _binary_cross_entropy(a, direction):
    x, t = a["x"], a["target"]
    return [(np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean(), (_sigmoid(x) - t) / x.size]


def _squared_error(a, direction):
    difference = a["x"] - a["target"]
    return [(difference**2).mean(), 2 * difference / difference.size]


def _hinge(a, direction):
    x, rows = a["x"], np.arange(len(a["x"]))
    excess = np.maximum(x - x[rows, a["target"]][:, None] + 1, 0)
    excess[rows, a["target"]] = 0
    dx = (excess > 0).astype(np.float64)
    dx[rows, a["target"]] = -dx.sum(1)
    return [excess.sum(1).mean(), dx / len(x)]


def _batch_norm(a, direction):
    x, axes = a["x"], (0, *range(2, a["x"].ndim))
    weight, bias = (a[name].reshape(1, -1, *(1,) * (x.ndim - 2)) for name in ("weight", "bias"))
    inverse = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
    z = (x - x.mean(axis=axes, keepdims=True)) * inverse
    if direction == "forward":
        return [z * weight + bias]
    dy = a["dy"]
    mean, along = dy.mean(axis=axes, keepdims=True), (dy * z).mean(axis=axes, keepdims=True)
    return [weight * inverse * (dy - mean - z * along), (dy * z).sum(axis=axes), dy.sum(axis=axes)]


def _response_norm(a, direction):
    size, alpha, beta, k = RESPONSE_NORM.values()
    x, low = a["x"], size // 2

    def across(values, low):
        """Sums of `size` neighbouring channels, the first `low` channels before."""
        widths = ((0, 0), (low + 1, size - 1 - low), *((0, 0),) * (values.ndim - 2))
        total = np.pad(values, widths).cumsum(1)
        return total[:, size:] - total[:, :-size]

    scale = k + alpha / size * across(x * x, low)
    if direction == "forward":
        return [x * scale**-beta]
    dy = a["dy"]
    return [
        dy * scale**-beta
        - 2 * alpha * beta / size * x * across(dy * x * scale ** (-beta - 1), size - 1 - low)
    ]


_PLAIN = {
    "relu": _activation(_relu, lambda x, y: x > 0),
    "leaky_relu": _activation(_leaky, lambda x, y: np.where(x > 0, 1, 0.01)),
    "elu": _activation(_elu, lambda x, y: np.where(x > 0, 1, y + 1)),
    "sigmoid": _activation(_sigmoid, lambda x, y: y * (1 - y)),
    "tanh": _activation(np.tanh, lambda x, y: 1 - y * y),
    "softmax": _softmaxes(log=False),
    "log_softmax": _softmaxes(log=True),
    "softmax_cross_entropy": _cross_entropy,
    "sigmoid_cross_entropy": _binary_cross_entropy,
    "squared_error": _squared_error,
    "hinge": _hinge,
    "batch_norm": _batch_norm,
    "local_response_norm": _response_norm,
}
