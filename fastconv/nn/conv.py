"""Layers with a weight: Conv1d/2d/3d, ConvTranspose1d/2d/3d, Linear.

Arguments, their order, the weights' shapes and names and the initial values are those of `torch.nn`; `dtype`
and `rng` (a `Generator` or a seed) are ours. What the options mean is said in `fastconv.conv2d` and its
sisters.
"""

import operator

import numpy as np

from .. import functional as F
from . import init
from .module import Module, Parameter


def _per_axis(value, ndim, what):
    """`value`, an int or one int per axis, as a tuple of `ndim` positive ints."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    try:
        items = tuple(operator.index(item) for item in (items * ndim if len(items) == 1 else items))
    except TypeError:
        raise TypeError(f"{what} is {value!r} (need an int or a tuple of {ndim} ints)") from None
    if len(items) != ndim or min(items) < 1:
        raise ValueError(f"{what} is {value!r} (need an int or {ndim} of them, all >= 1)")
    return items


def _count(value, what):
    """`value` as a positive int."""
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} is {value!r} (need an int)") from None
    if value < 1:
        raise ValueError(f"{what} is {value} (need >= 1)")
    return value


def _real(dtype, layer):
    """`dtype` as float32 or float64."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"{layer}: dtype is {np.dtype(dtype)} (need float32 or float64)")
    return np.dtype(dtype)


class _Affine(Module):
    """A weight and perhaps a bias; `_apply` and `_gradients` of a subclass say what is done with them."""

    def _make(self, weight_shape, bias_size, dtype, rng):
        """Create the parameters in PyTorch's order, from its distributions; `bias_size` None: no bias."""
        dtype, rng = _real(dtype, type(self).__name__), np.random.default_rng(rng)
        self.weight = Parameter(init.kaiming_uniform(weight_shape, rng=rng, dtype=dtype))
        self.bias = None
        if bias_size is not None:
            self.bias = Parameter(init.default_bias(bias_size, weight_shape, rng=rng, dtype=dtype))

    def _apply(self, x, weight, bias):
        """y"""
        raise NotImplementedError

    def _gradients(self, dy, x, weight, output_mask):
        """(dx, dweight, dbias)"""
        raise NotImplementedError

    def predict(self, x):
        return self._apply(x, self.weight.data, None if self.bias is None else self.bias.data)

    def forward(self, x):
        # The parameters of now, should somebody assign others before `backward`.
        weight, bias = self.weight, self.bias
        values = weight.data
        y = self._apply(x, values, None if bias is None else bias.data)

        def backward(dy):
            dx, dweight, dbias = self._gradients(dy, x, values, (True, True, bias is not None))
            weight.accumulate(dweight)
            if bias is not None:
                bias.accumulate(dbias)
            return dx

        return y, backward


class _AnyConv(_Affine):
    """What convolution and its transpose share: the constructor's checks, the options, the text."""

    ndim = None
    _defaults = {"padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros"}

    def _set(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode):
        name = type(self).__name__
        self.in_channels = _count(in_channels, f"{name}: in_channels")
        self.out_channels = _count(out_channels, f"{name}: out_channels")
        self.kernel_size = _per_axis(kernel_size, self.ndim, f"{name}: kernel_size")
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.padding_mode = _count(groups, f"{name}: groups"), padding_mode
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"{name}: in_channels={in_channels}, out_channels={out_channels}, groups={groups} "
                "(need groups to divide both)"
            )

    def extra_repr(self):
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        for name, default in self._defaults.items():
            if getattr(self, name, default) != default:
                text += f", {name}={getattr(self, name)!r}"
        return text + ("" if self.bias is not None else ", bias=False")


class _Conv(_AnyConv):
    """Convolution (cross-correlation) of `x (N, in_channels, *spatial)`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or one per axis
    padding : int, one per axis, (low, high) pairs, or a word ("same", ...)
    groups : int dividing both channel counts
    bias : bool
    padding_mode : "zeros", "reflect", "replicate" or "circular"

    `weight` is `(out_channels, in_channels / groups, *kernel_size)`, `bias` `(out_channels,)`, both uniform
    in +-1/sqrt(in_channels / groups * prod(kernel_size)) at first.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
        *,
        dtype=np.float32,
        rng=None,
    ):
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self._make(
            (self.out_channels, self.in_channels // self.groups, *self.kernel_size),
            self.out_channels if bias else None,
            dtype,
            rng,
        )

    def _options(self):
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        return {name: getattr(self, name) for name in names}

    def _apply(self, x, weight, bias):
        return getattr(F, f"conv{self.ndim}d")(x, weight, bias, **self._options())

    def _gradients(self, dy, x, weight, output_mask):
        return getattr(F, f"conv{self.ndim}d_backward")(
            dy, x, weight, **self._options(), output_mask=output_mask
        )


class Conv1d(_Conv):
    __doc__ = _Conv.__doc__
    ndim = 1


class Conv2d(_Conv):
    __doc__ = _Conv.__doc__
    ndim = 2


class Conv3d(_Conv):
    __doc__ = _Conv.__doc__
    ndim = 3


class _ConvTranspose(_AnyConv):
    """Transposed convolution of `x (N, in_channels, *spatial)`: the adjoint of a convolution; it enlarges.

    Along an axis the output has
    (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1 elements. Parameters as in
    the convolution, with `output_padding` (int or one per axis) and PyTorch's order; `padding_mode` can only
    be "zeros".

    `weight` is `(in_channels, out_channels / groups, *kernel_size)`, `bias` `(out_channels,)`, both uniform
    in +-1/sqrt(out_channels / groups * prod(kernel_size)) at first, as in PyTorch.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
        padding_mode="zeros",
        *,
        dtype=np.float32,
        rng=None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f"{type(self).__name__}: padding_mode is {padding_mode!r} (need 'zeros')")
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self.output_padding = output_padding
        self._make(
            (self.in_channels, self.out_channels // self.groups, *self.kernel_size),
            self.out_channels if bias else None,
            dtype,
            rng,
        )

    def _options(self):
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}

    def _apply(self, x, weight, bias):
        return getattr(F, f"conv_transpose{self.ndim}d")(
            x, weight, bias, output_padding=self.output_padding, **self._options()
        )

    def _gradients(self, dy, x, weight, output_mask):
        return getattr(F, f"conv_transpose{self.ndim}d_backward")(
            dy, x, weight, **self._options(), output_mask=output_mask
        )


class ConvTranspose1d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    ndim = 1


class ConvTranspose2d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    ndim = 2


class ConvTranspose3d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    ndim = 3


class Linear(_Affine):
    """y = x weight^T + bias over the last axis of `x (..., in_features)`.

    `weight` is `(out_features, in_features)`, `bias` `(out_features,)`, both uniform in +-1/sqrt(in_features)
    at first.
    """

    def __init__(self, in_features, out_features, bias=True, *, dtype=np.float32, rng=None):
        self.in_features = _count(in_features, "Linear: in_features")
        self.out_features = _count(out_features, "Linear: out_features")
        self._make((self.out_features, self.in_features), self.out_features if bias else None, dtype, rng)

    def _apply(self, x, weight, bias):
        return F.linear(x, weight, bias)

    def _gradients(self, dy, x, weight, output_mask):
        return F.linear_backward(dy, x, weight)

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")
