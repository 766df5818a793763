"""ConvProblem: convolution, its gradients, transposed convolution, im2col and col2im."""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy import ndarray

from .. import _arguments as arguments
from .._arguments import DEVICE_TYPES
from .geometry import (
    AXES,
    CACHE,
    device_char,
    dtype_word,
    joined,
    joined_pads,
    key,
    letters,
    output_size,
    pairs,
    plane_name,
    spatial,
    three,
)

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
PADDING_WORDS = ("valid", "full", "same", "same_lower")
HALVES = ("float16", "bfloat16")  # as `key` gives them
ON_DEVICE = (*arguments.FLOATS, *HALVES)
ACTIVATIONS = (None, "relu", "leaky_relu", "sigmoid", "tanh")


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One convolution, y[n, k, o] = activation(bias[k] + sum over c, t of weight[k, c, t] * x[n, c, i]),

    i = o * stride - pad_low + t * dilation.

    A transposed convolution is described by the ordinary convolution it is the adjoint of: C counts its
    output channels, K its input channels, `size` is its output size and `out` its input size. torch's
    transposed weight (in, out/groups, *kernel) is then the ordinary weight (K, C/groups, *kernel). `out` is
    stored and not computed from `size`, since output_padding lets several sizes lead to one `out`.

    im2col and col2im are the convolution with the identity filter: K = C * taps, one group.
    """

    op: str
    dtype: np.dtype  # native float32 or float64; on a device also float16 and `_arguments.BFLOAT16`
    ndim: int  # spatial axes the user sees: 1, 2, 3
    batched: bool
    N: int
    C: int
    K: int
    groups: int
    size: tuple  # (D, H, W) of x
    kernel: tuple  # (T, R, S) of weight
    out: tuple  # (O, P, Q) of y
    stride: tuple
    dilation: tuple
    pad_low: tuple
    pad_high: tuple
    padding_mode: str
    activation: str | None
    bias: bool
    # derived; kept, because every call reads them. Shapes are in the user's rank, with N only if batched
    x_shape: tuple = field(init=False, repr=False, compare=False)
    weight_shape: tuple = field(init=False, repr=False, compare=False)
    y_shape: tuple = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        keep = object.__setattr__
        first, batch = 3 - self.ndim, (self.N,) if self.batched else ()
        keep(self, "x_shape", (*batch, self.C, *self.size[first:]))
        keep(self, "weight_shape", (self.K, self.C // self.groups, *self.kernel[first:]))
        keep(self, "y_shape", (*batch, self.K, *self.out[first:]))
        keep(self, "_hash", hash(tuple(getattr(self, name) for name in FIELDS)))

    def __hash__(self):
        return self._hash

    @property
    def taps(self):
        """Elements of one kernel plane: T * R * S."""
        return math.prod(self.kernel)

    @property
    def flops(self):
        """Multiplications and additions of the direct sum over all taps, whatever algorithm computes it."""
        if self.op == "im2col":
            return 0
        columns = self.N * math.prod(self.out)
        if self.op == "col2im":
            return columns * self.K
        return 2 * columns * self.K * (self.C // self.groups) * self.taps

    @property
    def columns_shape(self):
        """Of the im2col matrix: (N, C * taps, positions)."""
        return (self.N, self.C * self.taps, math.prod(self.out))

    @property
    def name(self):
        """One line, unique: test id, benchmark id, log line, command line argument.

        ``conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32``. Options that differ between axes are joined by x
        (``st2x1``), low and high padding by - (``p1-0``). A transposed convolution is named as its user sees
        it: c, h, w are those of its input, k its output channels, ``op`` its output padding.
        """
        first = 3 - self.ndim
        pads = tuple(zip(self.pad_low, self.pad_high))
        c, k, size, spare = self.C, self.K, self.size, ()
        if self.op.startswith("conv_transpose"):
            c, k, size = self.K, self.C, self.out
            spare = [s - transposed_size(*axis) for s, *axis in self._axes(pads)][first:]
        return (
            f"{self.op}:{plane_name(self.N if self.batched else None, c, size[first:])}"
            f"k{k}{letters('trs', self.kernel[first:])}"
            f"_st{joined(self.stride[first:])}p{joined_pads(pads[first:])}"
            + (f"op{joined(spare)}" if any(spare) else "")
            + f"d{joined(self.dilation[first:])}g{self.groups}_{dtype_word(self.dtype)}"
            + (f"_{self.padding_mode}" if self.padding_mode != "zeros" else "")
            + ("_bias" if self.bias else "")
            + (f"_{self.activation}" if self.activation else "")
        )

    def _axes(self, pads):
        return zip(self.size, self.out, self.kernel, self.stride, self.dilation, pads)

    # -- from the arguments of a call ------------------------------------------------------------------------

    @staticmethod
    def of(
        x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros",
        activation=None, *, ndim, op,
    ):  # fmt: skip
        """The problem of ``conv{n}d(x, weight, bias, ...)``; raises TypeError and ValueError for all."""
        if type(x) is type(weight) is ndarray and (bias is None or type(bias) is ndarray):
            shape, char, w_shape, w_char = x.shape, x.dtype.char, weight.shape, weight.dtype.char
            b_shape, b_char = (None, None) if bias is None else (bias.shape, bias.dtype.char)
        elif type(x) is type(weight) and type(x) in DEVICE_TYPES and (bias is None or type(bias) is type(x)):
            shape, char, w_shape, w_char = x.shape, device_char(x), weight.shape, device_char(weight)
            b_shape, b_char = (None, None) if bias is None else (bias.shape, device_char(bias))
            if char not in ON_DEVICE or w_char not in ON_DEVICE or bias is not None and b_char not in ON_DEVICE:
                _arrays(op, x, weight, bias)  # raises for the first that is not
        else:
            x, weight, bias = _arrays(op, x, weight, bias)
            (shape, char), (w_shape, w_char), (b_shape, b_char) = key(x), key(weight), key(bias)
        if type(stride) is not int:
            stride = arguments.canonical(op, "stride", stride)
        if type(padding) is not int:
            padding = arguments.canonical(op, "padding", padding)
        if type(dilation) is not int:
            dilation = arguments.canonical(op, "dilation", dilation)
        if type(groups) is not int:
            groups = arguments.canonical(op, "groups", groups)
        if type(padding_mode) is not str:
            padding_mode = arguments.word(op, "padding_mode", padding_mode, PADDING_MODES)
        if activation is not None and type(activation) is not str:
            activation = arguments.word(op, "activation", activation, ACTIVATIONS)
        return _conv(
            op, ndim, shape, char, w_shape, w_char, b_shape, b_char,
            stride, padding, dilation, groups, padding_mode, activation,
        )  # fmt: skip

    @staticmethod
    def of_transpose(
        x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1,
        *, ndim, op, dy_shape=None,
    ):  # fmt: skip
        """The problem of ``conv_transpose{n}d(x, weight, bias, ...)``: the convolution it is the adjoint of.

        A backward pass gives the shape of dy, from which the output_padding follows.
        """
        x, weight, bias = _arrays(op, x, weight, bias)
        return _transpose(
            op, ndim, *key(x), *key(weight), *key(bias), dy_shape,
            arguments.canonical(op, "stride", stride),
            arguments.canonical(op, "padding", padding),
            arguments.canonical(op, "output_padding", output_padding),
            arguments.canonical(op, "dilation", dilation),
            arguments.canonical(op, "groups", groups),
        )  # fmt: skip

    @staticmethod
    def of_im2col(x, kernel_size, dilation=1, padding=0, stride=1):
        """The problem of ``im2col(x, kernel_size, ...)``; x is (N, C, *spatial), up to three axes."""
        op = "im2col"
        shape, char = key(arguments.float_array(op, "x", x))
        if not 3 <= len(shape) <= 5:
            raise ValueError(
                f"{op}: x has {len(shape)} dimensions {shape}, need (N, C, *spatial) with 1 to 3 spatial axes"
                " (N too, since without it the rank would be ambiguous)"
            )
        return _columns(op, char, shape, *_column_options(op, kernel_size, dilation, padding, stride))

    @staticmethod
    def of_col2im(cols, output_size, kernel_size, dilation=1, padding=0, stride=1):
        """The problem of ``col2im(cols, output_size, ...)``; an int output_size means two axes."""
        op = "col2im"
        shape, char = key(arguments.float_array(op, "cols", cols))
        size = arguments.canonical(op, "output_size", output_size)
        if isinstance(size, int):
            size = (size, size)
        if not 1 <= len(size) <= 3:
            shown = arguments.show(output_size)
            raise ValueError(f"{op}: output_size={shown}, need one int per spatial axis, 1 to 3 of them")
        size = arguments.per_axis(op, "output_size", size, len(size), 1)
        options = _column_options(op, kernel_size, dilation, padding, stride)
        taps = math.prod(arguments.per_axis(op, "kernel_size", options[0], len(size), 1))
        if len(shape) != 3 or shape[1] == 0 or shape[1] % taps:
            raise ValueError(
                f"{op}: cols has shape {shape}, need (N, C * {taps}, L) ({taps} = prod(kernel_size))"
            )
        problem = _columns(op, char, (shape[0], shape[1] // taps, *size), *options)
        if shape != problem.columns_shape:
            raise ValueError(
                f"{op}: cols has {shape[2]} columns, need {problem.columns_shape[2]}"
                f" (the positions of the kernel over {size})"
            )
        return problem


FIELDS = tuple(name for name, f in ConvProblem.__dataclass_fields__.items() if f.init)

# Equal problems, such as those of a forward and a backward call, are one object: what is kept for a problem
# is then found by identity, without comparing all of its fields.
_one = lru_cache(CACHE)(ConvProblem)


def _arrays(op, x, weight, bias):
    return (
        _array(op, "x", x),
        _array(op, "weight", weight),
        None if bias is None else _array(op, "bias", bias),
    )


def _array(op, name, array):
    """Host arrays have their dtypes checked with the shapes; those on a device may have more of them."""
    array = arguments.any_array(op, name, array)
    return array if isinstance(array, ndarray) else arguments.float_array(op, name, array)


def _column_options(op, kernel_size, dilation, padding, stride):
    return (
        arguments.canonical(op, "kernel_size", kernel_size),
        arguments.canonical(op, "dilation", dilation),
        arguments.canonical(op, "padding", padding),
        arguments.canonical(op, "stride", stride),
    )


# -- from canonical arguments to the problem -----------------------------------------------------------------


@lru_cache(CACHE)
def _conv(
    op, ndim, x, x_char, weight, w_char, bias, b_char,
    stride, padding, dilation, groups, padding_mode, activation,
):  # fmt: skip
    dtype = _one_dtype(op, x=x_char, weight=w_char, bias=b_char)
    batched, N, C, size = spatial(op, "x", x, ndim)
    K, kernel = _rows_and_kernel(op, weight, ndim, groups)
    if weight[1] * groups != C:
        raise ValueError(
            f"{op}: weight has {weight[1]} input channels, x has {C} and groups={groups}"
            " (need x channels == groups * weight.shape[1])"
        )
    _bias(op, bias, K, "weight.shape[0]")
    arguments.word(op, "padding_mode", padding_mode, PADDING_MODES)
    arguments.word(op, "activation", activation, ACTIVATIONS)
    stride = arguments.per_axis(op, "stride", stride, ndim, 1)
    dilation = arguments.per_axis(op, "dilation", dilation, ndim, 1)
    if isinstance(padding, str):
        pads = _word_pairs(op, padding, size, kernel, stride, dilation)
    else:
        pads = pairs(op, padding, ndim)
    _mode_fits(op, padding_mode, size, pads)
    out = output_size(op, size, kernel, stride, dilation, pads)
    return _problem(
        op, dtype, ndim, batched, N, C, K, groups, size, kernel, out, stride, dilation, pads,
        padding_mode, activation, bias is not None,
    )  # fmt: skip


@lru_cache(CACHE)
def _transpose(
    op, ndim, x, x_char, weight, w_char, bias, b_char, dy, stride, padding, output_padding, dilation, groups
):
    dtype = _one_dtype(op, x=x_char, weight=w_char, bias=b_char)
    batched, N, K, out = spatial(op, "x", x, ndim)
    rows, kernel = _rows_and_kernel(op, weight, ndim, groups)
    if rows != K:
        raise ValueError(
            f"{op}: weight has {rows} input channels, x has {K} (need x channels == weight.shape[0])"
        )
    C = weight[1] * groups
    _bias(op, bias, C, "groups * weight.shape[1]")
    stride = arguments.per_axis(op, "stride", stride, ndim, 1)
    dilation = arguments.per_axis(op, "dilation", dilation, ndim, 1)
    pads = pairs(op, padding, ndim)
    least = tuple(transposed_size(*axis) for axis in zip(out, kernel, stride, dilation, pads))
    room = tuple(max(s, d) for s, d in zip(stride, dilation))
    if dy is None:
        spare = arguments.per_axis(op, "output_padding", output_padding, ndim, 0)
        if any(v >= r for v, r in zip(spare, room)):
            raise ValueError(
                f"{op}: output_padding={arguments.show(output_padding)}, need less than the stride or the"
                f" dilation (stride={stride}, dilation={dilation})"
            )
        size = tuple(a + v for a, v in zip(least, spare))
    else:
        size, lead = dy[-ndim:], (N, C) if batched else (C,)
        fits = all(a <= s < a + r for s, a, r in zip(size, least, room))
        if len(dy) != len(x) or dy[:-ndim] != lead or not fits:
            most = (*lead, *(a + r - 1 for a, r in zip(least, room)))
            raise ValueError(
                f"{op}: dy has shape {dy}, need {(*lead, *least)}"
                + (f" to {most} (by output_padding)" if most != (*lead, *least) else "")
            )
    for name, s, a, pad in zip(AXES[ndim], size, out, pads):
        if s < 1:
            raise ValueError(
                f"{op}: output {name} would be {s} (x {name} {a}, padding {pad}), need at least 1"
                " = (size - 1) * stride - padding + dilation * (kernel - 1) + 1 + output_padding"
            )
    return _problem(
        op, dtype, ndim, batched, N, C, K, groups, size, kernel, out, stride, dilation, pads,
        "zeros", None, bias is not None,
    )  # fmt: skip


@lru_cache(CACHE)
def _columns(op, char, shape, kernel, dilation, padding, stride):
    ndim = len(shape) - 2
    _, N, C, size = spatial(op, "x", shape, ndim)
    kernel = arguments.per_axis(op, "kernel_size", kernel, ndim, 1)
    stride = arguments.per_axis(op, "stride", stride, ndim, 1)
    dilation = arguments.per_axis(op, "dilation", dilation, ndim, 1)
    pads = pairs(op, padding, ndim)
    out = output_size(op, size, kernel, stride, dilation, pads)
    return _problem(
        op, arguments.native_dtype(char), ndim, True, N, C, C * math.prod(kernel), 1, size, kernel, out,
        stride, dilation, pads, "zeros", None, False,
    )  # fmt: skip


def _problem(
    op, dtype, ndim, batched, N, C, K, groups, size, kernel, out, stride, dilation, pads,
    padding_mode, activation, bias,
):  # fmt: skip
    """The problem with its leading unit axes, once its results are known to be addressable.

    A backward call has the problem of its forward call: one problem, one name.
    """
    arguments.addressable(op, (N, C, *size), dtype.itemsize)
    arguments.addressable(op, (N, K, *out), dtype.itemsize)
    if not op.endswith("2col") and not op.startswith("col2"):
        arguments.addressable(
            op, (K, C // groups, *kernel), 64 * dtype.itemsize
        )  # kernels keep packed copies
    low, high = zip(*pads)
    return _one(
        op.removesuffix("_backward"), dtype, ndim, batched, N, C, K, groups,
        three(size, 1), three(kernel, 1), three(out, 1), three(stride, 1), three(dilation, 1),
        three(low, 0), three(high, 0), padding_mode, activation, bias,
    )  # fmt: skip


def _one_dtype(op, **chars):
    """The native dtype that x, weight and bias share, from their one-letter codes."""
    names = {name: _dtype_name(char) for name, char in chars.items() if char is not None}
    halves = [char for char in chars.values() if char in HALVES]
    accepted = (
        None,
        *arguments.FLOATS,
        *HALVES,
        *("e" if halves else ""),
    )  # mixed devices have their own error
    for name, char in chars.items():
        if char not in accepted:
            raise TypeError(
                f"{op}: {name} has dtype {names[name]}, accepted: float32 or float64"
                f" (convert it with {name}.astype(...))"
            )
    for name in names:
        if names[name] != names["x"]:
            raise TypeError(
                f"{op}: {name} has dtype {names[name]}, x has {names['x']} (all arrays must share one"
                f" dtype, {arguments.accepted_floats(bool(halves))}; nothing is promoted)"
            )
    return arguments.native_dtype(chars["x"])


def _dtype_name(char):
    try:
        return np.dtype(char).name
    except TypeError:
        return char


def _rows_and_kernel(op, shape, ndim, groups):
    """(rows, kernel) of a weight (rows, columns per group, *kernel)."""
    if not isinstance(groups, int):
        raise TypeError(f"{op}: groups must be an int, got {arguments.show(groups)}")
    if groups < 1:
        raise ValueError(f"{op}: groups={arguments.show(groups)}, need at least 1")
    if len(shape) != ndim + 2:
        rows, columns = ("x", "out") if "transpose" in op else ("out", "x")
        raise ValueError(
            f"{op}: weight has {len(shape)} dimensions {shape}, need {ndim + 2}"
            f" ({rows} channels, {columns} channels / groups, {', '.join('TRS'[3 - ndim :])})"
        )
    if 0 in shape:
        raise ValueError(f"{op}: weight has shape {shape}, need at least 1 on every axis")
    if shape[0] % groups:
        raise ValueError(
            f"{op}: weight.shape[0] is {shape[0]} and groups={arguments.show(groups)}"
            " (need a multiple of groups)"
        )
    return shape[0], shape[2:]


def _bias(op, shape, channels, whose):
    if shape is not None and shape != (channels,):
        raise ValueError(
            f"{op}: bias has shape {shape}, need ({channels},) (one value per output channel, {whose})"
        )


def _word_pairs(op, word, size, kernel, stride, dilation):
    """The (low, high) pairs that a padding word stands for."""
    arguments.word(op, "padding", word, PADDING_WORDS)
    pads = []
    for s, k, st, d in zip(size, kernel, stride, dilation):
        reach = d * (k - 1)
        if word == "valid":
            low = high = 0
        elif word == "full":
            low = high = reach
        else:  # the output is ceil(s / st); the odd element goes high for "same", low for "same_lower"
            total = max((-(-s // st) - 1) * st + reach + 1 - s, 0)
            low, high = total // 2, total - total // 2
            if word == "same_lower":
                low, high = high, low
        if max(low, high) > arguments.INT_MAX:
            most = max(low, high)
            raise ValueError(f"{op}: padding={word!r} means {most}, need at most {arguments.INT_MAX}")
        pads.append((low, high))
    return tuple(pads)


def _mode_fits(op, mode, size, pads):
    """Reflection leaves out the edge and has size - 1 elements to give; going round in a circle has all."""
    spare = {"reflect": 1, "circular": 0}.get(mode)
    if spare is None:
        return
    for s, pad in zip(size, pads):
        if max(pad) > s - spare:
            rule = "smaller than" if spare else "at most"
            raise ValueError(
                f"{op}: padding {pad} on an axis of size {s}, padding_mode={mode!r} needs it {rule} the size"
            )


def transposed_size(a, k, stride, dilation, pad):
    """The least output size of a transposed convolution over `a` elements, without output_padding."""
    return (a - 1) * stride + dilation * (k - 1) + 1 - sum(pad)
