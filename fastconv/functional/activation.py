"""Activations, softmax, maxout, dropout and their gradients: docstring, check, dispatch.

Every backward takes the output y and not the input: y is what a network keeps anyway. Elementwise functions
and softmax accept any shape, 0-d and zero sizes included.
"""

import numpy as np

from .. import _arguments as arguments
from .._backends import of as backend_of

__all__ = [
    "sigmoid",
    "sigmoid_backward",
    "tanh",
    "tanh_backward",
    "relu",
    "relu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "elu",
    "elu_backward",
    "softmax",
    "softmax_backward",
    "log_softmax",
    "log_softmax_backward",
    "maxout",
    "maxout_backward",
    "dropout",
    "dropout_backward",
]

# -- elementwise ---------------------------------------------------------------------------------------------


def sigmoid(x):
    """y = 1 / (1 + exp(-x)), elementwise.

    x: any shape, float32 or float64. Returns an array of its shape and dtype. Raises TypeError (dtypes,
    kinds).
    Source: torch.sigmoid; ONNX Sigmoid.
    """
    return _activation("sigmoid", x, 0.0)


def sigmoid_backward(dy, y):
    """dx = dy * y * (1 - y), y = sigmoid(x). Raises ValueError (shapes) and TypeError (dtypes, kinds)."""
    return _activation_backward("sigmoid", dy, y, 0.0)


def tanh(x):
    """y = tanh(x), elementwise.

    x: any shape, float32 or float64. Returns an array of its shape and dtype. Raises TypeError (dtypes,
    kinds).
    Source: torch.tanh; ONNX Tanh.
    """
    return _activation("tanh", x, 0.0)


def tanh_backward(dy, y):
    """dx = dy * (1 - y^2), y = tanh(x). Raises ValueError (shapes) and TypeError (dtypes, kinds)."""
    return _activation_backward("tanh", dy, y, 0.0)


def relu(x):
    """y = max(0, x), elementwise; NaN stays NaN.

    x: any shape, float32 or float64. Returns an array of its shape and dtype. Raises TypeError (dtypes,
    kinds).
    Source: torch.nn.functional.relu; ONNX Relu.
    """
    return _activation("relu", x, 0.0)


def relu_backward(dy, y):
    """dx = dy where y > 0, else 0; y = relu(x). Raises ValueError (shapes) and TypeError (dtypes, kinds)."""
    return _activation_backward("relu", dy, y, 0.0)


def leaky_relu(x, negative_slope=0.01):
    """y = x where x > 0, else negative_slope * x.

    x: any shape, float32 or float64; negative_slope: finite, >= 0, since backward works from y.
    Returns an array of x's shape and dtype. Raises ValueError (slope) and TypeError (dtypes, kinds).
    Source: torch.nn.functional.leaky_relu; ONNX LeakyRelu.
    """
    return _activation("leaky_relu", x, arguments.real("leaky_relu", "negative_slope", negative_slope, 0))


def leaky_relu_backward(dy, y, negative_slope=0.01):
    """dx = dy where y > 0, else negative_slope * dy; y = leaky_relu(x, ...). Raises as leaky_relu."""
    slope = arguments.real("leaky_relu_backward", "negative_slope", negative_slope, 0)
    return _activation_backward("leaky_relu", dy, y, slope)


def elu(x, alpha=1.0):
    """y = x where x > 0, else alpha * (exp(x) - 1).

    x: any shape, float32 or float64; alpha: finite, >= 0, since backward works from y.
    Returns an array of x's shape and dtype. Raises ValueError (alpha) and TypeError (dtypes, kinds).
    Source: torch.nn.functional.elu; ONNX Elu.
    """
    return _activation("elu", x, arguments.real("elu", "alpha", alpha, 0))


def elu_backward(dy, y, alpha=1.0):
    """dx = dy where y > 0, else dy * (y + alpha); y = elu(x, alpha). Raises as elu."""
    return _activation_backward("elu", dy, y, arguments.real("elu_backward", "alpha", alpha, 0))


def _activation(name, x, parameter):
    x = arguments.float_array(name, "x", x, scalars=True)
    return backend_of(name, x).activation(name, x, parameter)


def _activation_backward(name, dy, y, parameter):
    op = f"{name}_backward"
    dy, y = arguments.alike(op, "dy", dy, "y", y, scalars=True)
    return backend_of(op, dy, y).activation_backward(name, dy, y, parameter)


# -- softmax -------------------------------------------------------------------------------------------------


def softmax(x, axis=-1):
    """y = exp(x) / sum of exp(x) along one axis, with the maximum taken out first, so that nothing overflows.

    x: any shape, float32 or float64 (a 0-d array counts as one class). Returns an array of its shape and
    dtype. Raises ValueError (axis out of range) and TypeError (dtypes, kinds).
    Source: torch.nn.functional.softmax; ONNX Softmax.
    """
    return _softmax("softmax", x, axis, False)


def softmax_backward(dy, y, axis=-1):
    """dx = y * (dy - sum of dy * y along the axis), y = softmax(x, axis). Raises as softmax."""
    return _softmax_backward("softmax_backward", dy, y, axis, False)


def log_softmax(x, axis=-1):
    """y = x - log(sum of exp(x)) along one axis, with the maximum taken out first.

    x: any shape, float32 or float64 (a 0-d array counts as one class). Returns an array of its shape and
    dtype. Raises ValueError (axis out of range) and TypeError (dtypes, kinds).
    Source: torch.nn.functional.log_softmax; ONNX LogSoftmax.
    """
    return _softmax("log_softmax", x, axis, True)


def log_softmax_backward(dy, y, axis=-1):
    """dx = dy - exp(y) * sum of dy along the axis, y = log_softmax(x, axis). Raises as log_softmax."""
    return _softmax_backward("log_softmax_backward", dy, y, axis, True)


def _softmax(op, x, axis, log):
    x = arguments.float_array(op, "x", x, scalars=True)
    axis = arguments.axis_of(op, axis, x.ndim)
    backend = backend_of(op, x)
    if x.ndim == 0:
        return backend.softmax(x.reshape(1), axis, log).reshape(())
    return backend.softmax(x, axis, log)


def _softmax_backward(op, dy, y, axis, log):
    dy, y = arguments.alike(op, "dy", dy, "y", y, scalars=True)
    axis = arguments.axis_of(op, axis, y.ndim)
    backend = backend_of(op, dy, y)
    if y.ndim == 0:
        return backend.softmax_backward(dy.reshape(1), y.reshape(1), axis, log).reshape(())
    return backend.softmax_backward(dy, y, axis, log)


# -- maxout --------------------------------------------------------------------------------------------------


def maxout(x, pieces, axis=1):
    """y[c] = max over 0 <= i < pieces of x[c * pieces + i] along one axis: pieces are consecutive channels.

    x: an array with that axis, of a size that `pieces` divides; float32 or float64.

    Returns (y, indices): the axis is `pieces` times shorter; indices (int64) are the i that won, the first of
    equals, a NaN before all others. Raises ValueError (pieces, axis) and TypeError (dtypes, kinds).
    Source: Goodfellow et al., Maxout networks, 2013.
    """
    x = arguments.float_array("maxout", "x", x)
    pieces = arguments.integer("maxout", "pieces", pieces, 1)
    axis = _own_axis("maxout", "x", x, axis)
    if x.shape[axis] % pieces:
        size = x.shape[axis]
        raise ValueError(f"maxout: axis {axis} of x has size {size}, need a multiple of pieces={pieces}")
    return backend_of("maxout", x).maxout(x, pieces, axis)


def maxout_backward(dy, indices, pieces, axis=1):
    """dx = dy at the piece that won, 0 at the others.

    dy, indices: of the shape that maxout returned (indices int64). Returns dx, `pieces` times longer on the
    axis. Raises ValueError (shapes, axis, an index outside 0 ... pieces - 1) and TypeError (dtypes, kinds).
    """
    op = "maxout_backward"
    dy = arguments.float_array(op, "dy", dy)
    indices = arguments.array_of(op, "indices", indices, np.int64)
    pieces = arguments.integer(op, "pieces", pieces, 1)
    axis = _own_axis(op, "dy", dy, axis)
    arguments.shape_is(op, "indices", indices, tuple(dy.shape), "the shape of dy")
    arguments.addressable(op, (*dy.shape, pieces), 8)
    return backend_of(op, dy, indices).maxout_backward(dy, indices, pieces, axis)


def _own_axis(op, name, array, axis):
    if array.ndim == 0:
        raise ValueError(f"{op}: {name} has no axes, need at least one")
    return arguments.axis_of(op, axis, array.ndim)


# -- dropout -------------------------------------------------------------------------------------------------


def dropout(x, p=0.5, *, rng=None):
    """y = x * mask / (1 - p), each element of the mask 0 with probability p; p = 1 gives zeros.

    x: any shape, float32 or float64. rng: a numpy.random.Generator, a seed, or None for fresh randomness. The
    mask depends on the generator, p and the shape alone, not on the dtype.

    Returns (y, mask), the mask of dtype bool. Raises ValueError (p outside 0 ... 1) and TypeError (dtypes,
    kinds).
    Source: Srivastava et al., Dropout, 2014; torch.nn.functional.dropout.
    """
    x = arguments.float_array("dropout", "x", x, scalars=True)
    p = arguments.real("dropout", "p", p, 0, 1)
    rng, backend = _generator("dropout", rng), backend_of("dropout", x)
    mask = backend.dropout_mask(x, p, rng)
    return backend.dropout(x, mask, p), mask


def dropout_backward(dy, mask, p):
    """dx = dy * mask / (1 - p), with the mask and p of the forward call.

    Raises ValueError (shapes, p) and TypeError (dtypes, kinds).
    """
    op = "dropout_backward"
    dy = arguments.float_array(op, "dy", dy, scalars=True)
    mask = arguments.array_of(op, "mask", mask, np.bool_, scalars=True)
    p = arguments.real(op, "p", p, 0, 1)
    arguments.shape_is(op, "mask", mask, tuple(dy.shape), "the shape of dy")
    return backend_of(op, dy, mask).dropout_backward(dy, mask, p)


def _generator(op, rng):
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    try:
        return np.random.default_rng(arguments.integer(op, "rng", rng, 0, 2**128))
    except TypeError:
        raise TypeError(
            f"{op}: rng must be a numpy.random.Generator, an int or None, got {arguments.show(rng)}"
        ) from None
