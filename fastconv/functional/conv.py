"""Convolution, its gradients, transposed convolution, im2col and col2im: docstring, problem, dispatch.

Every user argument ends in a ConvProblem; what is left is the choice of the backend and its call.
"""

from numpy import ndarray

from .. import _arguments as arguments
from .._backends import of as backend_of
from .._errors import UnsupportedError
from .._problem import ConvProblem
from ._doc import doc

__all__ = [
    *(f"conv{n}d" for n in (1, 2, 3)),
    *(f"conv{n}d_backward" for n in (1, 2, 3)),
    *(f"conv_transpose{n}d" for n in (1, 2, 3)),
    *(f"conv_transpose{n}d_backward" for n in (1, 2, 3)),
    "im2col",
    "col2im",
]

ALL = (True, True, True)


# -- forward -------------------------------------------------------------------------------------------------

_CONV = """{n}-d convolution (cross-correlation, as in every deep-learning library).

    y[n, k, o] = activation(bias[k] + sum over c, t of weight[k, c, t] * x[n, c, i]),
    i = o * stride - pad_low + t * dilation

    x: (N, C, {spatial}), or (C, {spatial}) for one sample without a batch axis; float32 or float64, any
        strides, read where it lies. N may be 0.
    weight: (K, C / groups, {kernel}), of x's dtype. With groups, output channels [g * K / groups, (g + 1) * K
        / groups) see input channels [g * C / groups, (g + 1) * C / groups).
    bias: (K,) or None.
    stride, dilation: an int or one per axis, at least 1.
    padding: an int, one int per axis, one (low, high) pair per axis, or a word: "valid" (none), "full"
        (dilation * (kernel - 1) on each side), "same" (output size ceil(size / stride), an odd element goes
        to the high side) or "same_lower" (to the low side).
    padding_mode: what stands in the padding: "zeros", "reflect" (mirror without the edge; padding smaller
        than the size), "replicate" (the edge), "circular" (padding at most the size).
    activation: None, "relu", "leaky_relu" (slope 0.01), "sigmoid" or "tanh", fused into the convolution.
    algorithm: "auto" or one of ``fc.algorithms("conv{n}d")``, which then runs or raises.
    out: an array for the result: its exact shape and dtype, C-contiguous, writable, no memory shared with an
        input.

    Returns y (N, K, {out}), C-contiguous, of x's dtype, with size
    floor((size + pad_low + pad_high - dilation * (kernel - 1) - 1) / stride) + 1 on each axis.

    Raises ValueError (shapes, values), TypeError (dtypes, kinds), UnsupportedError (a named algorithm that
    cannot compute this), DeviceError (arrays on different devices).

    Source: torch.nn.functional.conv{n}d; ONNX Conv.
    """


@doc(_CONV, 1)
def conv1d(
    x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1,
    *, padding_mode="zeros", activation=None, algorithm="auto", out=None,
):  # fmt: skip
    if not (type(x) is type(weight) is ndarray and (bias is None or type(bias) is ndarray)):
        x, weight, bias = _canonical("conv1d", x=x, weight=weight, bias=bias)
    problem = ConvProblem.of(
        x, weight, bias, stride, padding, dilation, groups, padding_mode, activation, ndim=1, op="conv1d"
    )
    return _forward("conv1d", x, weight, bias, problem, algorithm, out)


@doc(_CONV, 2)
def conv2d(
    x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1,
    *, padding_mode="zeros", activation=None, algorithm="auto", out=None,
):  # fmt: skip
    if not (type(x) is type(weight) is ndarray and (bias is None or type(bias) is ndarray)):
        x, weight, bias = _canonical("conv2d", x=x, weight=weight, bias=bias)
    problem = ConvProblem.of(
        x, weight, bias, stride, padding, dilation, groups, padding_mode, activation, ndim=2, op="conv2d"
    )
    return _forward("conv2d", x, weight, bias, problem, algorithm, out)


@doc(_CONV, 3)
def conv3d(
    x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1,
    *, padding_mode="zeros", activation=None, algorithm="auto", out=None,
):  # fmt: skip
    if not (type(x) is type(weight) is ndarray and (bias is None or type(bias) is ndarray)):
        x, weight, bias = _canonical("conv3d", x=x, weight=weight, bias=bias)
    problem = ConvProblem.of(
        x, weight, bias, stride, padding, dilation, groups, padding_mode, activation, ndim=3, op="conv3d"
    )
    return _forward("conv3d", x, weight, bias, problem, algorithm, out)


def _forward(op, x, weight, bias, problem, algorithm, out):
    backend = backend_of(op, x, weight, bias, out)
    if type(algorithm) is not str or algorithm != "auto":
        _must_run(backend, op, problem, algorithm)
    if out is None:
        return backend.conv_forward(x, weight, bias, problem, algorithm, None)
    inputs = (("x", x), ("weight", weight), ("bias", bias))
    plain = arguments.output_array(op, out, problem.y_shape, problem.dtype, inputs)
    backend.conv_forward(x, weight, bias, problem, algorithm, plain)
    return out


# -- backward ------------------------------------------------------------------------------------------------

_CONV_BACKWARD = """The gradients of conv{n}d.

    With y = conv{n}d(x, weight, bias, ...) and dy the gradient of a scalar with respect to y:
    dx[n, c, i] = sum over k, t, o of weight[k, c, t] * dy[n, k, o]
    dweight[k, c, t] = sum over n, o of dy[n, k, o] * x[n, c, i]
    dbias[k] = sum over n, o of dy[n, k, o]
    for all (t, o) with i = o * stride - pad_low + t * dilation, which padding_mode maps into x.

    dy: (N, K, {out}); x and weight as in the forward call, as are stride to padding_mode. One dtype for all.
    output_mask: which of the three gradients to compute; the others are None.
    algorithm: "auto" or a name that must be valid for every gradient asked for, among
        ``fc.algorithms("conv{n}d_backward_input")`` and ``fc.algorithms("conv{n}d_backward_weight")``.

    Returns (dx, dweight, dbias) in the shapes of x, weight and (K,).

    An activation that was fused into the forward call has its own backward (``fc.relu_backward(dy, y)``).
    Raises what conv{n}d raises.
    """


@doc(_CONV_BACKWARD, 1)
def conv1d_backward(
    dy, x, weight, stride=1, padding=0, dilation=1, groups=1,
    *, padding_mode="zeros", output_mask=ALL, algorithm="auto",
):  # fmt: skip
    options = (stride, padding, dilation, groups, padding_mode)
    return _backward(1, "conv1d_backward", dy, x, weight, options, output_mask, algorithm)


@doc(_CONV_BACKWARD, 2)
def conv2d_backward(
    dy, x, weight, stride=1, padding=0, dilation=1, groups=1,
    *, padding_mode="zeros", output_mask=ALL, algorithm="auto",
):  # fmt: skip
    options = (stride, padding, dilation, groups, padding_mode)
    return _backward(2, "conv2d_backward", dy, x, weight, options, output_mask, algorithm)


@doc(_CONV_BACKWARD, 3)
def conv3d_backward(
    dy, x, weight, stride=1, padding=0, dilation=1, groups=1,
    *, padding_mode="zeros", output_mask=ALL, algorithm="auto",
):  # fmt: skip
    options = (stride, padding, dilation, groups, padding_mode)
    return _backward(3, "conv3d_backward", dy, x, weight, options, output_mask, algorithm)


def _backward(ndim, op, dy, x, weight, options, output_mask, algorithm):
    x, weight = _canonical(op, x=x, weight=weight)
    problem = ConvProblem.of(x, weight, None, *options, ndim=ndim, op=op)
    dy = arguments.float_array(op, "dy", dy)
    arguments.same_dtype(op, x=x, dy=dy)
    arguments.shape_is(op, "dy", dy, problem.y_shape, "the shape of the forward result")
    want_dx, want_dweight, want_dbias = _mask(op, output_mask)
    backend = backend_of(op, dy, x, weight)
    if type(algorithm) is not str or algorithm != "auto":  # before anything is computed
        if want_dx or not want_dweight:
            _must_run(backend, f"{op}_input", problem, algorithm)
        if want_dweight:
            _must_run(backend, f"{op}_weight", problem, algorithm)
    dx = backend.conv_backward_input(dy, weight, None, problem, algorithm) if want_dx else None
    if want_dweight and want_dbias:  # dy need be read only once
        return dx, *backend.conv_backward_weight_bias(dy, x, problem, algorithm)
    return (
        dx,
        backend.conv_backward_weight(dy, x, problem, algorithm) if want_dweight else None,
        backend.channel_sum(dy, dy.ndim - ndim - 1) if want_dbias else None,
    )


# -- transposed ----------------------------------------------------------------------------------------------

_CONV_TRANSPOSE = """{n}-d transposed convolution: the gradient of conv{n}d with respect to its input.

    y[n, k, o] = bias[k] + sum of weight[c, k, t] * x[n, c, i] over all c, t, i with
    o = i * stride - pad_low + t * dilation

    x: (N, C, {spatial}) or (C, {spatial}); float32 or float64.
    weight: (C, K / groups, {kernel}), of x's dtype; input channels [g * C / groups, (g + 1) * C / groups)
        reach output channels [g * K / groups, (g + 1) * K / groups).
    bias: (K,) or None.
    stride, dilation: an int or one per axis, at least 1.
    padding: an int, one per axis, or one (low, high) pair per axis: what is cut from the result.
    output_padding: an int or one per axis, less than the stride or the dilation: what is added at the high
        side, to tell apart the input sizes that a strided convolution maps to one output size.

    Returns y (N, K, {out}) with (size - 1) * stride - pad_low - pad_high + dilation * (kernel - 1) + 1 +
    output_padding elements on each axis.

    Raises ValueError (shapes, values), TypeError (dtypes, kinds), DeviceError (arrays on different devices).

    Source: torch.nn.functional.conv_transpose{n}d; ONNX ConvTranspose.
    """


@doc(_CONV_TRANSPOSE, 1)
def conv_transpose1d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    options = (stride, padding, output_padding, groups, dilation)
    return _transpose(1, "conv_transpose1d", x, weight, bias, options)


@doc(_CONV_TRANSPOSE, 2)
def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    options = (stride, padding, output_padding, groups, dilation)
    return _transpose(2, "conv_transpose2d", x, weight, bias, options)


@doc(_CONV_TRANSPOSE, 3)
def conv_transpose3d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    options = (stride, padding, output_padding, groups, dilation)
    return _transpose(3, "conv_transpose3d", x, weight, bias, options)


def _transpose(ndim, op, x, weight, bias, options):
    x, weight, bias = _canonical(op, x=x, weight=weight, bias=bias)
    problem = ConvProblem.of_transpose(x, weight, bias, *options, ndim=ndim, op=op)
    backend = backend_of(op, x, weight, bias)
    return backend.conv_backward_input(x, weight, bias, problem, "auto")


_CONV_TRANSPOSE_BACKWARD = """The gradients of conv_transpose{n}d.

    dy: (N, K, {out}), from whose shape the output_padding follows; x and weight as in the forward call, as
    are stride, padding, groups and dilation. dx = conv{n}d(dy, weight), dweight is the weight gradient of
    that convolution with x in the place of its output gradient, dbias[k] = sum over n, o of dy[n, k, o].
    output_mask: which of the three gradients to compute; the others are None.

    Returns (dx, dweight, dbias) in the shapes of x, weight and (K,). Raises what conv_transpose{n}d raises.
    """


@doc(_CONV_TRANSPOSE_BACKWARD, 1)
def conv_transpose1d_backward(dy, x, weight, stride=1, padding=0, groups=1, dilation=1, *, output_mask=ALL):
    options = (stride, padding, 0, groups, dilation)  # output_padding follows from dy
    return _transpose_backward(1, "conv_transpose1d_backward", dy, x, weight, options, output_mask)


@doc(_CONV_TRANSPOSE_BACKWARD, 2)
def conv_transpose2d_backward(dy, x, weight, stride=1, padding=0, groups=1, dilation=1, *, output_mask=ALL):
    options = (stride, padding, 0, groups, dilation)  # output_padding follows from dy
    return _transpose_backward(2, "conv_transpose2d_backward", dy, x, weight, options, output_mask)


@doc(_CONV_TRANSPOSE_BACKWARD, 3)
def conv_transpose3d_backward(dy, x, weight, stride=1, padding=0, groups=1, dilation=1, *, output_mask=ALL):
    options = (stride, padding, 0, groups, dilation)  # output_padding follows from dy
    return _transpose_backward(3, "conv_transpose3d_backward", dy, x, weight, options, output_mask)


def _transpose_backward(ndim, op, dy, x, weight, options, output_mask):
    dy = arguments.float_array(op, "dy", dy)
    x, weight = _canonical(op, x=x, weight=weight)
    problem = ConvProblem.of_transpose(x, weight, None, *options, ndim=ndim, op=op, dy_shape=tuple(dy.shape))
    arguments.same_dtype(op, x=x, dy=dy)
    want_dx, want_dweight, want_dbias = _mask(op, output_mask)
    backend = backend_of(op, dy, x, weight)
    return (
        backend.conv_forward(dy, weight, None, problem, "auto", None) if want_dx else None,
        backend.conv_backward_weight(x, dy, problem, "auto") if want_dweight else None,
        backend.channel_sum(dy, dy.ndim - ndim - 1) if want_dbias else None,
    )


# -- columns -------------------------------------------------------------------------------------------------


def im2col(x, kernel_size, dilation=1, padding=0, stride=1):
    """The patches that a convolution sees, as the columns of a matrix.

    cols[n, c * taps + t, o] = x[n, c, o * stride - pad_low + t * dilation], zero in the padding; taps and
    positions count in row-major order. conv(x, w) is the matrix product of w.reshape(K, -1) with these
    columns.

    x: (N, C, *spatial) with one to three spatial axes, float32 or float64. The batch axis is required, since
        without it the number of spatial axes would be ambiguous.
    kernel_size, dilation, stride: an int or one per axis, at least 1.
    padding: an int, one per axis, or one (low, high) pair per axis.

    Returns (N, C * prod(kernel_size), L), L the number of output positions.
    Raises ValueError (shapes, values) and TypeError (dtypes, kinds).

    Source: torch.nn.functional.unfold, here for any rank.
    """
    (x,) = _canonical("im2col", x=x)
    problem = ConvProblem.of_im2col(x, kernel_size, dilation, padding, stride)
    return backend_of("im2col", x).im2col(x, problem)


def col2im(cols, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """The adjoint of im2col: every entry of `cols` is added to the element that im2col would read it from.

    cols: (N, C * prod(kernel_size), L), float32 or float64, L the number of positions of the kernel.
    output_size: one int per spatial axis, one to three of them (an int means two equal axes, as in torch).
    kernel_size, dilation, padding, stride: as for im2col.

    Returns (N, C, *output_size). Raises ValueError (shapes, values) and TypeError (dtypes, kinds).

    Source: torch.nn.functional.fold, here for any rank; ONNX Col2Im.
    """
    (cols,) = _canonical("col2im", cols=cols)
    problem = ConvProblem.of_col2im(cols, output_size, kernel_size, dilation, padding, stride)
    return backend_of("col2im", cols).col2im(cols, problem)


# -- what the above share ------------------------------------------------------------------------------------


def _canonical(op, **arrays):
    """The arrays as `arguments.any_array` gives them, so that indexing is ordinary. None stays None."""
    return [
        array if array is None or type(array) is ndarray else arguments.any_array(op, name, array)
        for name, array in arrays.items()
    ]


def _mask(op, output_mask):
    """output_mask as three bools."""
    if output_mask is ALL:
        return ALL
    if isinstance(output_mask, (tuple, list, ndarray)) and len(output_mask) == 3:
        return tuple(arguments.flag(op, "output_mask", wanted) for wanted in output_mask)
    shown = arguments.show(output_mask)
    raise TypeError(f"{op}: output_mask must be three bools (dx, dweight, dbias), got {shown}")


def _must_run(backend, direction, problem, algorithm):
    """A named algorithm is known to run before anything is computed; otherwise this raises."""
    if not isinstance(algorithm, str):
        raise TypeError(f"{direction}: algorithm must be a string, got {arguments.show(algorithm)}")
    try:
        backend.plan(direction, problem, str(algorithm))
    except UnsupportedError:
        raise
    except NotImplementedError as refusal:  # the reference knows no fastconv type
        raise UnsupportedError(str(refusal)) from None
