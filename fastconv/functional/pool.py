"""Pooling and its gradients: docstring, problem, dispatch. Every user argument ends in a PoolProblem."""

import numpy as np
from numpy import ndarray

from .. import _arguments as arguments
from .._backends import of as backend_of
from .._problem import PoolProblem
from ._doc import doc

__all__ = [
    f"{kind}_pool{n}d{suffix}"
    for kind in ("max", "avg", "adaptive_max", "adaptive_avg")
    for suffix in ("", "_backward")
    for n in (1, 2, 3)
]

# -- maximum -------------------------------------------------------------------------------------------------

_MAX_POOL = """{n}-d maximum pooling.

    y[n, c, o] = max over the taps t inside the plane of x[n, c, o * stride - pad_low + t * dilation]

    x: (N, C, {spatial}) or (C, {spatial}); float32 or float64. N may be 0.
    kernel_size, stride (default: kernel_size), dilation: an int or one per axis, at least 1.
    padding: an int, one per axis, or one (low, high) pair per axis. It may exceed half the window: a window
        wholly in padding has maximum -inf and index -1.
    ceil_mode: also count windows that reach beyond the end, as long as they start before the high padding.
    return_indices: also return where each maximum is.

    Returns y (N, C, {out}), or (y, indices): int64 flat positions inside one input plane. Of equal values the
    first is taken; a window that holds a NaN gives NaN.

    Raises ValueError (shapes, values) and TypeError (dtypes, kinds).

    Source: torch.nn.functional.max_pool{n}d; ONNX MaxPool.
    """


@doc(_MAX_POOL, 1)
def max_pool1d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    return _max_pool(1, "max_pool1d", x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@doc(_MAX_POOL, 2)
def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    return _max_pool(2, "max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@doc(_MAX_POOL, 3)
def max_pool3d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    return _max_pool(3, "max_pool3d", x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _max_pool(ndim, op, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    if type(x) is not ndarray:
        x = arguments.float_array(op, "x", x)
    problem = PoolProblem.of(x, kernel_size, stride, padding, dilation, ceil_mode, ndim=ndim, op=op)
    return _maximum(op, x, problem, return_indices)


def _maximum(op, x, problem, return_indices):
    if type(return_indices) is not bool:
        return_indices = arguments.flag(op, "return_indices", return_indices)
    y, indices = backend_of(op, x).max_pool(x, problem, return_indices)
    return (y, indices) if return_indices else y


_MAX_BACKWARD = """The gradient of {name}: every dy is added to the element its maximum came from.

    dy, indices: (N, C, {out}), as the forward pass returned them (indices int64); -1, a window wholly in
        padding, is ignored.
    input_shape: the shape of x.

    Returns dx of input_shape. Raises ValueError (shapes; an index outside the plane) and TypeError (dtypes,
    kinds).
    """


@doc(_MAX_BACKWARD.replace("{name}", "max_pool{n}d"), 1)
def max_pool1d_backward(dy, indices, input_shape):
    return _max_backward(1, "max_pool1d_backward", dy, indices, input_shape)


@doc(_MAX_BACKWARD.replace("{name}", "max_pool{n}d"), 2)
def max_pool2d_backward(dy, indices, input_shape):
    return _max_backward(2, "max_pool2d_backward", dy, indices, input_shape)


@doc(_MAX_BACKWARD.replace("{name}", "max_pool{n}d"), 3)
def max_pool3d_backward(dy, indices, input_shape):
    return _max_backward(3, "max_pool3d_backward", dy, indices, input_shape)


def _max_backward(ndim, op, dy, indices, input_shape):
    dy = arguments.float_array(op, "dy", dy)
    indices = arguments.array_of(op, "indices", indices, np.int64)
    problem = PoolProblem.of_indices(dy, input_shape, ndim=ndim, op=op)
    if indices.shape != dy.shape:
        arguments.shape_is(op, "indices", indices, tuple(dy.shape), "the shape of dy")
    return backend_of(op, dy, indices).max_pool_backward(dy, indices, problem)


# -- average -------------------------------------------------------------------------------------------------

_AVG_POOL = """{n}-d average pooling.

    y[n, c, o] = 1 / divisor * sum over the taps t inside of x[n, c, o * stride - pad_low + t * dilation]

    x: (N, C, {spatial}) or (C, {spatial}); float32 or float64. N may be 0.
    kernel_size, stride (default: kernel_size), dilation: an int or one per axis, at least 1.
    padding: an int, one per axis, or one (low, high) pair per axis. It may exceed half the window.
    ceil_mode: also count windows that reach beyond the end, as long as they start before the high padding.
    count_include_pad: whether the divisor counts the taps in the padding, or only those inside the plane (a
        window wholly in padding then has average 0). Taps beyond the padding never count.
    divisor_override: None, or the divisor itself, an int other than 0.

    Returns y (N, C, {out}). Raises ValueError (shapes, values) and TypeError (dtypes, kinds).

    Source: torch.nn.functional.avg_pool{n}d; ONNX AveragePool.
    """


@doc(_AVG_POOL, 1)
def avg_pool1d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None,
    *, dilation=1,
):  # fmt: skip
    op = "avg_pool1d"
    if type(x) is not ndarray:
        x = arguments.float_array(op, "x", x)
    problem = PoolProblem.of(
        x, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override, ndim=1, op=op
    )
    return backend_of(op, x).avg_pool(x, problem)


@doc(_AVG_POOL, 2)
def avg_pool2d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None,
    *, dilation=1,
):  # fmt: skip
    op = "avg_pool2d"
    if type(x) is not ndarray:
        x = arguments.float_array(op, "x", x)
    problem = PoolProblem.of(
        x, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override, ndim=2, op=op
    )
    return backend_of(op, x).avg_pool(x, problem)


@doc(_AVG_POOL, 3)
def avg_pool3d(
    x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None,
    *, dilation=1,
):  # fmt: skip
    op = "avg_pool3d"
    if type(x) is not ndarray:
        x = arguments.float_array(op, "x", x)
    problem = PoolProblem.of(
        x, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override, ndim=3, op=op
    )
    return backend_of(op, x).avg_pool(x, problem)


_AVG_BACKWARD = """The gradient of avg_pool{n}d: every dy, over its divisor, is added to its whole window.

    dy: (N, C, {out}); input_shape: the shape of x; the other arguments as in the forward call.

    Returns dx of input_shape. Raises ValueError (shapes, values) and TypeError (dtypes, kinds).
    """


@doc(_AVG_BACKWARD, 1)
def avg_pool1d_backward(
    dy, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
    divisor_override=None, *, dilation=1,
):  # fmt: skip
    options = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    return _avg_backward(1, "avg_pool1d_backward", dy, input_shape, options)


@doc(_AVG_BACKWARD, 2)
def avg_pool2d_backward(
    dy, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
    divisor_override=None, *, dilation=1,
):  # fmt: skip
    options = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    return _avg_backward(2, "avg_pool2d_backward", dy, input_shape, options)


@doc(_AVG_BACKWARD, 3)
def avg_pool3d_backward(
    dy, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
    divisor_override=None, *, dilation=1,
):  # fmt: skip
    options = (kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override)
    return _avg_backward(3, "avg_pool3d_backward", dy, input_shape, options)


def _avg_backward(ndim, op, dy, input_shape, options):
    dy = arguments.float_array(op, "dy", dy)
    input_shape = arguments.shape_of(op, "input_shape", input_shape)
    problem = PoolProblem.of(dy, *options, ndim=ndim, op=op, input_shape=input_shape)
    return backend_of(op, dy).avg_pool_backward(dy, problem)


# -- adaptive ------------------------------------------------------------------------------------------------

_ADAPTIVE_AVG = """{n}-d average pooling to a given output size.

    y[n, c, o] = mean of x[n, c, floor(o * size / out) : ceil((o + 1) * size / out)] on every axis

    x: (N, C, {spatial}) or (C, {spatial}); float32 or float64. N may be 0.
    output_size: an int or one per axis, at least 1; None keeps the size of that axis.

    Returns y (N, C, {out}). Raises ValueError (shapes, values) and TypeError (dtypes, kinds).

    Source: torch.nn.functional.adaptive_avg_pool{n}d.
    """


@doc(_ADAPTIVE_AVG, 1)
def adaptive_avg_pool1d(x, output_size):
    return _adaptive_avg(1, "adaptive_avg_pool1d", x, output_size)


@doc(_ADAPTIVE_AVG, 2)
def adaptive_avg_pool2d(x, output_size):
    return _adaptive_avg(2, "adaptive_avg_pool2d", x, output_size)


@doc(_ADAPTIVE_AVG, 3)
def adaptive_avg_pool3d(x, output_size):
    return _adaptive_avg(3, "adaptive_avg_pool3d", x, output_size)


def _adaptive_avg(ndim, op, x, output_size):
    x = arguments.float_array(op, "x", x)
    problem = PoolProblem.of_adaptive(x, output_size, ndim=ndim, op=op)
    return backend_of(op, x).avg_pool(x, problem)


_ADAPTIVE_AVG_BACKWARD = """The gradient of adaptive_avg_pool{n}d.

    dy: (N, C, {out}), whose size is the output size; input_shape: the shape of x.

    Returns dx of input_shape. Raises ValueError (shapes) and TypeError (dtypes, kinds).
    """


@doc(_ADAPTIVE_AVG_BACKWARD, 1)
def adaptive_avg_pool1d_backward(dy, input_shape):
    return _adaptive_avg_backward(1, "adaptive_avg_pool1d_backward", dy, input_shape)


@doc(_ADAPTIVE_AVG_BACKWARD, 2)
def adaptive_avg_pool2d_backward(dy, input_shape):
    return _adaptive_avg_backward(2, "adaptive_avg_pool2d_backward", dy, input_shape)


@doc(_ADAPTIVE_AVG_BACKWARD, 3)
def adaptive_avg_pool3d_backward(dy, input_shape):
    return _adaptive_avg_backward(3, "adaptive_avg_pool3d_backward", dy, input_shape)


def _adaptive_avg_backward(ndim, op, dy, input_shape):
    dy = arguments.float_array(op, "dy", dy)
    input_shape = arguments.shape_of(op, "input_shape", input_shape)
    problem = PoolProblem.of_adaptive(dy, ndim=ndim, op=op, input_shape=input_shape)
    return backend_of(op, dy).avg_pool_backward(dy, problem)


_ADAPTIVE_MAX = """{n}-d maximum pooling to a given output size.

    y[n, c, o] = max of x[n, c, floor(o * size / out) : ceil((o + 1) * size / out)] on every axis

    x: (N, C, {spatial}) or (C, {spatial}); float32 or float64. N may be 0.
    output_size: an int or one per axis, at least 1; None keeps the size of that axis.
    return_indices: also return where each maximum is.

    Returns y (N, C, {out}), or (y, indices) as max_pool{n}d does.
    Raises ValueError (shapes, values) and TypeError (dtypes, kinds).

    Source: torch.nn.functional.adaptive_max_pool{n}d.
    """


@doc(_ADAPTIVE_MAX, 1)
def adaptive_max_pool1d(x, output_size, return_indices=False):
    return _adaptive_max(1, "adaptive_max_pool1d", x, output_size, return_indices)


@doc(_ADAPTIVE_MAX, 2)
def adaptive_max_pool2d(x, output_size, return_indices=False):
    return _adaptive_max(2, "adaptive_max_pool2d", x, output_size, return_indices)


@doc(_ADAPTIVE_MAX, 3)
def adaptive_max_pool3d(x, output_size, return_indices=False):
    return _adaptive_max(3, "adaptive_max_pool3d", x, output_size, return_indices)


def _adaptive_max(ndim, op, x, output_size, return_indices):
    x = arguments.float_array(op, "x", x)
    return _maximum(op, x, PoolProblem.of_adaptive(x, output_size, ndim=ndim, op=op), return_indices)


@doc(_MAX_BACKWARD.replace("{name}", "adaptive_max_pool{n}d"), 1)
def adaptive_max_pool1d_backward(dy, indices, input_shape):
    return _max_backward(1, "adaptive_max_pool1d_backward", dy, indices, input_shape)


@doc(_MAX_BACKWARD.replace("{name}", "adaptive_max_pool{n}d"), 2)
def adaptive_max_pool2d_backward(dy, indices, input_shape):
    return _max_backward(2, "adaptive_max_pool2d_backward", dy, indices, input_shape)


@doc(_MAX_BACKWARD.replace("{name}", "adaptive_max_pool{n}d"), 3)
def adaptive_max_pool3d_backward(dy, indices, input_shape):
    return _max_backward(3, "adaptive_max_pool3d_backward", dy, indices, input_shape)
