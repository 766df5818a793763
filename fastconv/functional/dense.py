"""linear, batch and local response normalisation, and their gradients: docstring, check, dispatch."""

import math

from .. import _arguments as arguments
from .._backends import of as backend_of

__all__ = [
    "linear",
    "linear_backward",
    "batch_norm",
    "batch_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
]

# -- linear --------------------------------------------------------------------------------------------------


def linear(x, weight, bias=None):
    """y[..., o] = bias[o] + sum over i of weight[o, i] * x[..., i].

    x: (..., in) with at least one axis, float32 or float64; weight: (out, in); bias: (out,) or None; one
    dtype. in and out are at least 1, the other axes may have size 0.

    Returns y (..., out). Raises ValueError (shapes) and TypeError (dtypes, kinds).
    Source: torch.nn.functional.linear; ONNX Gemm.
    """
    x, weight = _linear_arrays("linear", x, weight)
    if bias is not None:
        bias = arguments.float_array("linear", "bias", bias)
        if bias.dtype is not x.dtype:
            arguments.same_dtype("linear", x=x, bias=bias)
        arguments.shape_is("linear", "bias", bias, weight.shape[:1], "one value per row of weight")
    arguments.addressable("linear", (*x.shape[:-1], weight.shape[0]), 8)
    return backend_of("linear", x, weight, bias).linear(x, weight, bias)


def linear_backward(dy, x, weight):
    """The gradients of linear: dx = dy weight, dweight = sum of dy^T x, dbias = sum of dy over all axes but
    the last.

    dy: (..., out); x (..., in) and weight (out, in) as in the forward call.
    Returns (dx, dweight, dbias). Raises what linear raises.
    """
    op = "linear_backward"
    x, weight = _linear_arrays(op, x, weight)
    dy = arguments.float_array(op, "dy", dy)
    if dy.dtype is not x.dtype:
        arguments.same_dtype(op, x=x, dy=dy)
    arguments.shape_is(op, "dy", dy, (*x.shape[:-1], weight.shape[0]), "the shape of the forward result")
    return backend_of(op, dy, x, weight).linear_backward(dy, x, weight, (True, True, True))


def _linear_arrays(op, x, weight):
    x = arguments.float_array(op, "x", x)
    weight = arguments.float_array(op, "weight", weight)
    if x.dtype is not weight.dtype:
        arguments.same_dtype(op, x=x, weight=weight)
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"{op}: weight has shape {weight.shape}, need (out, in) with at least 1 each")
    if x.ndim == 0 or x.shape[x.ndim - 1] != weight.shape[1]:
        raise ValueError(
            f"{op}: x has shape {x.shape}, weight {weight.shape} (need x.shape[-1] == weight.shape[1])"
        )
    return x, weight


# -- batch normalisation -------------------------------------------------------------------------------------


def batch_norm(x, weight, bias, running_mean, running_var, training=False, momentum=0.1, eps=1e-5):
    """y[:, c] = (x[:, c] - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c].

    x: (N, C, *d), float32 or float64. weight, bias: (C,) or None (1 and 0); running_mean, running_var: (C,);
        all of x's dtype, or float32 for x of 16 bits (on a device), which keeps the digits of statistics.
    training: normalise by the mean and the biased variance of the batch, and update the running arrays (those
        that are not None) in place, running = (1 - momentum) * running + momentum * batch, with the unbiased
        variance. It needs more than one value per channel. Otherwise normalise by the running arrays.
    momentum: between 0 and 1; eps: >= 0.

    Returns y of x's shape. Raises ValueError (shapes, values, read-only running arrays) and TypeError
    (dtypes, kinds).
    Source: torch.nn.functional.batch_norm; ONNX BatchNormalization.
    """
    op = "batch_norm"
    training = arguments.flag(op, "training", training)
    x, weight, bias, running_mean, running_var = _batch_norm_arrays(
        op, x, training, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var
    )
    momentum = arguments.real(op, "momentum", momentum, 0, 1)
    eps = arguments.real(op, "eps", eps, 0)
    if training:
        _may_update(op, x, weight, bias, running_mean, running_var)
    backend = backend_of(op, x, weight, bias, running_mean, running_var)
    return backend.batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)


def batch_norm_backward(dy, x, weight, running_mean=None, running_var=None, training=True, eps=1e-5):
    """The gradients of batch_norm, through the batch's own statistics when training.

    With z = (x - mean) / sqrt(var + eps): dbias = sum of dy, dweight = sum of dy * z per channel, and
    dx = weight / sqrt(var + eps) * (dy - mean(dy) - z * mean(dy * z)), without the two means if not training.

    dy, x: (N, C, *d); weight: (C,) or None; running_mean and running_var are used when not training.
    Returns (dx, dweight, dbias), the last two in the dtype of weight; nothing is updated. Raises what
    batch_norm raises.
    """
    op = "batch_norm_backward"
    training = arguments.flag(op, "training", training)
    x, weight, running_mean, running_var = _batch_norm_arrays(
        op, x, training, weight=weight, running_mean=running_mean, running_var=running_var
    )
    dy, x = arguments.alike(op, "dy", dy, "x", x)
    eps = arguments.real(op, "eps", eps, 0)
    backend = backend_of(op, dy, x, weight, running_mean, running_var)
    return backend.batch_norm_backward(dy, x, weight, running_mean, running_var, training, eps)


def _batch_norm_arrays(op, x, training, **per_channel):
    """x (N, C, *d), and the (C,) arrays or None in their order."""
    x = _channels_first(op, "x", x)
    shape, dtype, kind = x.shape, x.dtype, arguments.plain_type(x)
    channels = (shape[1],)
    if training:
        values = math.prod(shape) // shape[1]
        if values <= (op == "batch_norm"):
            raise ValueError(
                f"{op}: x has shape {shape}, {values} value{'s' * (values != 1)} per channel"
                " (training needs more than one, since it divides by their variance)"
            )
    for name, array in per_channel.items():
        if type(array) is kind and array.dtype is dtype and array.shape == channels:
            continue  # nearly every call: one look instead of the checks that say what is wrong
        if array is not None:
            array = per_channel[name] = arguments.float_array(op, name, array)
            if not (arguments.dtype_char(array) == "f" and arguments.dtype_char(x) in arguments.HALVES):
                arguments.same_dtype(op, **{"x": x, name: array})
            arguments.shape_is(op, name, array, channels, "one value per channel of x")
        elif name.startswith("running") and not training:
            raise ValueError(f"{op}: {name} is None, need an array {channels} when training=False")
    return x, *per_channel.values()


def _may_update(op, x, weight, bias, running_mean, running_var):
    """The running arrays may be written, and nothing else lies in their memory."""
    arrays = [array for array in (x, weight, bias, running_mean, running_var) if array is not None]
    all_own = all(map(arguments.owns_memory, arrays))
    for name, array in (("running_mean", running_mean), ("running_var", running_var)):
        if array is None:
            continue
        if not arguments.writable(array):
            raise ValueError(f"{op}: {name} is read-only, need a writable array to update when training=True")
        others = {"x": x, "weight": weight, "bias": bias}
        if name == "running_var":
            others["running_mean"] = running_mean
        for other, value in others.items():
            if value is None:
                continue
            if value is array or (not all_own and arguments.overlap(array, value)):
                raise ValueError(f"{op}: {name} shares memory with {other} (it is updated, the other is not)")


def _channels_first(op, name, array):
    array = arguments.float_array(op, name, array)
    shape = array.shape
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(
            f"{op}: {name} has shape {array.shape}, need (N, C, *d) with at least 1 on every axis but N"
        )
    return array


# -- local response normalisation ----------------------------------------------------------------------------


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """y[:, c] = x[:, c] / (k + alpha / size * sum of x[:, j]^2 over the `size` channels j around c)^beta.

    The channels are c - size // 2 ... c + (size - 1) // 2, cut at the ends.

    x: (N, C, *d), float32 or float64; size: an int, at least 1; alpha, beta, k: finite.
    Returns y of x's shape. Raises ValueError (shapes, values) and TypeError (dtypes, kinds).
    Source: Krizhevsky et al., 2012; torch.nn.functional.local_response_norm; ONNX LRN.
    """
    op = "local_response_norm"
    x = _channels_first(op, "x", x)
    options = _lrn_options(op, size, alpha, beta, k)
    return backend_of(op, x).local_response_norm(x, *options)


def local_response_norm_backward(dy, x, size, alpha, beta, k):
    """The gradient of local_response_norm: with s the sum in brackets there,

    dx[:, i] = dy[:, i] * s[:, i]^-beta
               - 2 * alpha * beta / size * x[:, i] * sum over c of dy[:, c] * x[:, c] * s[:, c]^(-beta - 1)

    where c are the channels that have i among theirs.

    dy, x: (N, C, *d). Returns dx of x's shape. Raises what local_response_norm raises.
    """
    op = "local_response_norm_backward"
    x = _channels_first(op, "x", x)
    dy, x = arguments.alike(op, "dy", dy, "x", x)
    options = _lrn_options(op, size, alpha, beta, k)
    return backend_of(op, dy, x).local_response_norm_backward(dy, x, *options)


def _lrn_options(op, size, alpha, beta, k):
    return (
        arguments.integer(op, "size", size, 1),
        arguments.real(op, "alpha", alpha),
        arguments.real(op, "beta", beta),
        arguments.real(op, "k", k),
    )
