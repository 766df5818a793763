"""Problems: the arguments of convolution and pooling, parsed once and valid from here on. The only parser.

A problem is frozen, hashable and complete: backends read it and never look at a user's option again. Axes are
always three, D H W; 1-d and 2-d problems have unit leading axes (size 1, kernel 1, stride 1, dilation 1, no
padding). Every ValueError and TypeError about shapes and options is raised here, with operation, value, rule.

`of...` functions take the user's arguments, bring the options into one hashable form and look the problem up in
a cache keyed by dtypes, shapes and options, so that a repeated call costs one dictionary lookup.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy import ndarray

from . import _arguments as arguments

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
PADDING_WORDS = ("valid", "full", "same", "same_lower")
ACTIVATIONS = (None, "relu", "leaky_relu", "sigmoid", "tanh")

CACHE = 2048  # problems kept of each kind: more than the layers of any network times its batch sizes
WINDOWS_KEPT = (
    2**16
)  # window tables longer than this are made anew for each call instead of kept in the cache

AXES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One convolution: y[n,k,o] = act(bias[k] + sum over c, t of x[n,c, o*stride - pad_low + t*dilation] * w[k,c,t]).

    A transposed convolution is described by the ordinary convolution it is the adjoint of: C counts its output
    channels, K its input channels, `size` is its output size and `out` its input size. torch's transposed weight
    (in, out/groups, *kernel) is then the ordinary weight (K, C/groups, *kernel). `out` is stored and not computed
    from `size`, since output_padding makes several sizes lead to one `out`.

    im2col and col2im are the convolution with the identity filter: K = C * taps, one group.
    """

    op: str
    dtype: np.dtype  # native float32 or float64
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
    # derived, and kept because every call reads them
    x_shape: tuple = field(
        init=False, repr=False, compare=False
    )  # in the user's rank, batch axis only if batched
    weight_shape: tuple = field(init=False, repr=False, compare=False)
    y_shape: tuple = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        keep = object.__setattr__
        first, batch = 3 - self.ndim, (self.N,) if self.batched else ()
        keep(self, "x_shape", (*batch, self.C, *self.size[first:]))
        keep(self, "weight_shape", (self.K, self.C // self.groups, *self.kernel[first:]))
        keep(self, "y_shape", (*batch, self.K, *self.out[first:]))
        keep(self, "_hash", hash(tuple(getattr(self, name) for name in _CONV_FIELDS)))

    def __hash__(self):
        return self._hash

    @property
    def taps(self):
        """Elements of one kernel plane: T * R * S."""
        return math.prod(self.kernel)

    @property
    def flops(self):
        """Multiplications and additions of the direct sum, padding included, whatever algorithm computes it."""
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

        ``conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32``. Options that differ between axes are joined by x (``st2x1``),
        low and high padding by - (``p1-0``). A transposed convolution is named as its user sees it: c and h, w are
        its input's, k its output channels, ``op`` its output padding.
        """
        first = 3 - self.ndim
        pads3 = tuple(zip(self.pad_low, self.pad_high))
        pads = pads3[first:]
        c, size, k = self.C, self.size, self.K
        extra = ""
        if self.op.startswith("conv_transpose"):
            c, size, k = self.K, self.out, self.C
            spare = tuple(
                size - _transposed(*axis)
                for size, *axis in list(
                    zip(self.size, self.out, self.kernel, self.stride, self.dilation, pads3)
                )[first:]
            )
            extra = f"op{_joined(spare)}" if any(spare) else ""
        return (
            f"{self.op}:{_plane(self.N if self.batched else None, c, size[first:])}"
            f"k{k}{_letters('trs', self.kernel[first:])}"
            f"_st{_joined(self.stride[first:])}p{_joined_pads(pads)}{extra}"
            f"d{_joined(self.dilation[first:])}g{self.groups}_f{8 * self.dtype.itemsize}"
            + (f"_{self.padding_mode}" if self.padding_mode != "zeros" else "")
            + ("_bias" if self.bias else "")
            + (f"_{self.activation}" if self.activation else "")
        )

    # -- from the arguments of a call -------------------------------------------------------------------------

    @staticmethod
    def of(
        x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros", activation=None,
        *, ndim, op,
    ):  # fmt: skip
        """The problem of ``conv{n}d(x, weight, bias, ...)``; raises TypeError and ValueError for all its arguments."""
        if not (type(x) is ndarray and type(weight) is ndarray and (bias is None or type(bias) is ndarray)):
            x, weight, bias = _conv_arrays(op, x, weight, bias)
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
            op, ndim, *_key(x), *_key(weight), *_key(bias),
            stride, padding, dilation, groups, padding_mode, activation,
        )  # fmt: skip

    @staticmethod
    def of_transpose(
        x,
        weight,
        bias=None,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        dilation=1,
        *,
        ndim,
        op,
        dy_shape=None,
    ):
        """The problem of ``conv_transpose{n}d(x, weight, bias, ...)``: the ordinary convolution it is the adjoint of.

        Backward passes give the shape of dy instead of an output_padding, which follows from it.
        """
        x, weight, bias = _conv_arrays(op, x, weight, bias)
        options = {
            name: arguments.canonical(op, name, value)
            for name, value in dict(
                stride=stride,
                padding=padding,
                output_padding=output_padding,
                dilation=dilation,
                groups=groups,
            ).items()
        }
        return _conv_transpose(op, ndim, *_key(x), *_key(weight), *_key(bias), dy_shape, **options)

    @staticmethod
    def of_im2col(x, kernel_size, dilation=1, padding=0, stride=1):
        """The problem of ``im2col(x, kernel_size, ...)``; x is (N, C, *spatial) with one to three spatial axes."""
        x = arguments.float_array("im2col", "x", x)
        shape, char = _key(x)
        if not 3 <= len(shape) <= 5:
            raise ValueError(
                f"im2col: x has {len(shape)} dimensions {shape}, need (N, C, *spatial) with 1 to 3 spatial axes"
                " (the batch axis is required, since without it the rank would be ambiguous)"
            )
        return _columns(
            "im2col", char, shape, *_column_options("im2col", kernel_size, dilation, padding, stride)
        )

    @staticmethod
    def of_col2im(cols, output_size, kernel_size, dilation=1, padding=0, stride=1):
        """The problem of ``col2im(cols, output_size, ...)``; an int output_size means two axes, as in torch."""
        op = "col2im"
        cols = arguments.float_array(op, "cols", cols)
        shape, char = _key(cols)
        size = arguments.canonical(op, "output_size", output_size)
        size = (size, size) if isinstance(size, int) else size
        if not 1 <= len(size) <= 3:
            raise ValueError(
                f"{op}: output_size={arguments.show(output_size)}, need one int per spatial axis, 1 to 3 of them"
            )
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
                f" (positions of a kernel {options[0]} over an output of {size})"
            )
        return problem


_CONV_FIELDS = tuple(name for name, f in ConvProblem.__dataclass_fields__.items() if f.init)


@dataclass(frozen=True, slots=True)
class PoolProblem:
    """One pooling: y[n,c,o] = max or mean over the taps t of x[n,c, o*stride - pad_low + t*dilation] that are inside.

    Adaptive pools have windows of varying length, and dilation 1; their `kernel` is the longest window.
    The backward pass of a maximum needs no windows: its problem has only sizes.
    """

    op: str
    dtype: np.dtype  # native float32 or float64
    ndim: int
    batched: bool
    N: int
    C: int
    size: tuple  # (D, H, W) of x
    out: tuple  # (O, P, Q) of y
    kernel: tuple
    stride: tuple
    dilation: tuple
    pad_low: tuple
    pad_high: tuple
    adaptive: bool
    count_include_pad: bool
    divisor_override: int | None
    x_shape: tuple = field(init=False, repr=False, compare=False)
    y_shape: tuple = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)
    _windows: tuple | None = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        keep = object.__setattr__
        first, lead = 3 - self.ndim, (self.N, self.C) if self.batched else (self.C,)
        keep(self, "x_shape", (*lead, *self.size[first:]))
        keep(self, "y_shape", (*lead, *self.out[first:]))
        keep(self, "_hash", hash(tuple(getattr(self, name) for name in _POOL_FIELDS)))
        keep(self, "_windows", None)

    def __hash__(self):
        return self._hash

    @property
    def windows(self):
        """For each of the three axes (begin, valid, counted), int64 arrays with one entry per output index.

        begin: input index of the first tap inside the plane (0 if there is none); valid: number of taps inside the
        plane (0: the window lies wholly in padding); counted: number of taps inside the padded extent. Tap t of
        the window sits at begin + t * dilation.
        """
        if self._windows is not None:
            return self._windows
        table = tuple(
            _adaptive_windows(size, out) if self.adaptive else _windows(size, out, *geometry)
            for size, out, *geometry in zip(
                self.size, self.out, self.kernel, self.stride, self.dilation, self.pad_low, self.pad_high
            )
        )
        if sum(self.out) <= WINDOWS_KEPT:
            object.__setattr__(self, "_windows", table)
        return table

    @property
    def name(self):
        """One line, unique, in the manner of `ConvProblem.name`: ``max_pool2d:n8c64h56w56r3s3_st2p1d1_f32``.

        Where ceil_mode changes the result its size is told: ``..._o28x28``.
        """
        first = 3 - self.ndim
        head = f"{self.op}:{_plane(self.N if self.batched else None, self.C, self.size[first:])}"
        tail = f"_f{8 * self.dtype.itemsize}"
        if self.adaptive or self.kernel == (0, 0, 0):
            return f"{head}_o{_joined(self.out[first:], always=True)}{tail}"
        axes = list(zip(self.size, self.kernel, self.stride, self.dilation, self.pad_low, self.pad_high))[
            first:
        ]
        floor = tuple((s + low + high - d * (k - 1) - 1) // st + 1 for s, k, st, d, low, high in axes)
        return (
            f"{head}{_letters('trs', self.kernel[first:])}_st{_joined(self.stride[first:])}"
            f"p{_joined_pads([axis[4:] for axis in axes])}d{_joined(self.dilation[first:])}"
            + (f"_o{_joined(self.out[first:], always=True)}" if floor != self.out[first:] else "")
            + tail
            + ("" if self.count_include_pad else "_nopad")
            + (f"_div{self.divisor_override}" if self.divisor_override is not None else "")
        )

    # -- from the arguments of a call -------------------------------------------------------------------------

    @staticmethod
    def of(
        x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, count_include_pad=True,
        divisor_override=None, *, ndim, op, input_shape=None,
    ):  # fmt: skip
        """The problem of a pool over x. For a backward pass, x is dy and `input_shape` the shape that was pooled."""
        what = "x" if input_shape is None else "dy"
        if type(x) is not ndarray:
            x = arguments.any_array(op, what, x)
        shape, char = _key(x)
        if type(kernel_size) is not int:
            kernel_size = arguments.canonical(op, "kernel_size", kernel_size)
        if stride is None:
            stride = kernel_size
        elif type(stride) is not int:
            stride = arguments.canonical(op, "stride", stride)
        if type(padding) is not int:
            padding = arguments.canonical(op, "padding", padding)
        if type(dilation) is not int:
            dilation = arguments.canonical(op, "dilation", dilation)
        if type(ceil_mode) is not bool:
            ceil_mode = arguments.flag(op, "ceil_mode", ceil_mode)
        if type(count_include_pad) is not bool:
            count_include_pad = arguments.flag(op, "count_include_pad", count_include_pad)
        if divisor_override is not None:
            divisor_override = arguments.integer(op, "divisor_override", divisor_override, -arguments.INT_MAX)
        if char not in "fd":
            raise arguments.wrong_dtype(op, what, x, "float32 or float64")
        pooled = shape if input_shape is None else arguments.shape_of(op, "input_shape", input_shape)
        problem = _pool(
            op, ndim, char, pooled, kernel_size, stride, padding, dilation,
            ceil_mode, count_include_pad, divisor_override,
        )  # fmt: skip
        if input_shape is not None and shape != problem.y_shape:
            raise ValueError(
                f"{op}: dy has shape {shape}, need {problem.y_shape} (what pooling input_shape={pooled} gives)"
            )
        return problem

    @staticmethod
    def of_adaptive(x, output_size=None, *, ndim, op, input_shape=None):
        """The problem of an adaptive pool over x. For a backward pass, x is dy, whose own shape is the output size."""
        what = "x" if input_shape is None else "dy"
        x = arguments.float_array(op, what, x)
        shape, char = _key(x)
        if input_shape is not None:
            return _pool_sizes(
                op, ndim, char, shape, arguments.shape_of(op, "input_shape", input_shape), True
            )
        if isinstance(output_size, (tuple, list)):
            output_size = tuple(
                None if v is None else arguments.canonical(op, "output_size", v) for v in output_size
            )
        elif output_size is not None:
            output_size = arguments.canonical(op, "output_size", output_size)
        _spatial(op, "x", shape, ndim)
        wanted = output_size if isinstance(output_size, tuple) else (output_size,)
        wanted = wanted * ndim if len(wanted) == 1 else wanted
        if len(wanted) != ndim:
            raise ValueError(
                f"{op}: output_size={arguments.show(output_size)} has {len(wanted)} values, need 1 or {ndim}"
                " (one per spatial axis, None keeps that axis)"
            )
        kept = tuple(size if v is None else v for v, size in zip(wanted, shape[-ndim:]))
        if any(not isinstance(v, int) for v in kept):
            shown = arguments.show(output_size)
            raise TypeError(f"{op}: output_size must be an int or {ndim} ints (or None), got {shown}")
        if any(v < 1 or v > arguments.INT_MAX for v, w in zip(kept, wanted) if w is not None):
            raise ValueError(
                f"{op}: output_size={arguments.show(output_size)}, need at least 1 on every axis"
            )
        return _pool_sizes(op, ndim, char, (*shape[:-ndim], *kept), shape, True)

    @staticmethod
    def of_indices(dy, input_shape, *, ndim, op):
        """The problem of a maximum's backward pass: dy is scattered into planes of `input_shape`; no windows."""
        dy = arguments.float_array(op, "dy", dy)
        shape, char = _key(dy)
        return _pool_sizes(op, ndim, char, shape, arguments.shape_of(op, "input_shape", input_shape), False)


_POOL_FIELDS = tuple(name for name, f in PoolProblem.__dataclass_fields__.items() if f.init)


# -- keys ----------------------------------------------------------------------------------------------------


def _key(array):
    """What a problem needs to know of an array: shape and one-letter dtype code (equal for both byte orders)."""
    if array is None:
        return None, None
    if type(array) is ndarray:
        return array.shape, array.dtype.char
    return tuple(array.shape), arguments.dtype_char(array)


def _conv_arrays(op, x, weight, bias):
    return (
        arguments.any_array(op, "x", x),
        arguments.any_array(op, "weight", weight),
        None if bias is None else arguments.any_array(op, "bias", bias),
    )


def _column_options(op, kernel_size, dilation, padding, stride):
    return (
        arguments.canonical(op, "kernel_size", kernel_size),
        arguments.canonical(op, "dilation", dilation),
        arguments.canonical(op, "padding", padding),
        arguments.canonical(op, "stride", stride),
    )


# -- convolution: from canonical arguments to the problem -------------------------------------------------------


@lru_cache(CACHE)
def _conv(
    op,
    ndim,
    x,
    x_char,
    weight,
    w_char,
    bias,
    b_char,
    stride,
    padding,
    dilation,
    groups,
    padding_mode,
    activation,
):
    dtype = _one_dtype(op, x=x_char, weight=w_char, bias=b_char)
    batched, N, C, size = _spatial(op, "x", x, ndim)
    K, kernel, groups = _weight(op, weight, ndim, groups)
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
        pads = _word_pads(op, padding, size, kernel, stride, dilation)
    else:
        pads = _pads(op, padding, ndim)
    _mode_fits(op, padding_mode, size, pads)
    out = _output_size(op, size, kernel, stride, dilation, pads)
    return _problem(
        op, dtype, ndim, batched, N, C, K, groups, size, kernel, out, stride, dilation, pads,
        padding_mode, activation, bias is not None,
    )  # fmt: skip


@lru_cache(CACHE)
def _conv_transpose(
    op,
    ndim,
    x,
    x_char,
    weight,
    w_char,
    bias,
    b_char,
    dy_shape,
    *,
    stride,
    padding,
    output_padding,
    dilation,
    groups,
):
    dtype = _one_dtype(op, x=x_char, weight=w_char, bias=b_char)
    batched, N, K, out = _spatial(op, "x", x, ndim)
    rows, kernel, groups = _weight(op, weight, ndim, groups)
    if rows != K:
        raise ValueError(
            f"{op}: weight has {rows} input channels, x has {K} (need x channels == weight.shape[0])"
        )
    C = weight[1] * groups
    _bias(op, bias, C, "groups * weight.shape[1]")
    stride = arguments.per_axis(op, "stride", stride, ndim, 1)
    dilation = arguments.per_axis(op, "dilation", dilation, ndim, 1)
    if isinstance(padding, str):
        raise TypeError(
            f"{op}: padding must be an int, {ndim} ints or {ndim} (low, high) pairs, got {padding!r}"
        )
    pads = _pads(op, padding, ndim)
    least = tuple(_transposed(*axis) for axis in zip(out, kernel, stride, dilation, pads))
    room = tuple(max(s, d) for s, d in zip(stride, dilation))
    if dy_shape is None:
        spare = arguments.per_axis(op, "output_padding", output_padding, ndim, 0)
        for v, r in zip(spare, room):
            if v >= r:
                raise ValueError(
                    f"{op}: output_padding={arguments.show(output_padding)}, need less than the stride or the dilation"
                    f" (stride={stride}, dilation={dilation})"
                )
        size = tuple(a + v for a, v in zip(least, spare))
    else:
        size = dy_shape[-ndim:] if len(dy_shape) == len(x) else ()
        lead = (N, C) if batched else (C,)
        fits = len(size) == ndim and all(a <= s < a + r for s, a, r in zip(size, least, room))
        if not fits or dy_shape[:-ndim] != lead:
            raise ValueError(
                f"{op}: dy has shape {dy_shape}, need {(*lead, *least)}"
                f" (or up to {tuple(r - 1 for r in room)} more on the spatial axes, from output_padding)"
            )
    for name, s, a, p in zip(AXES[ndim], size, out, pads):
        if s < 1:
            raise ValueError(
                f"{op}: output {name} would be {s} (x {name} {a}, padding {p}),"
                " need at least 1: (size - 1) * stride - padding + dilation * (kernel - 1) + 1 + output_padding"
            )
    return _problem(
        op, dtype, ndim, batched, N, C, K, groups, size, kernel, out, stride, dilation, pads, "zeros", None,
        bias is not None,
    )  # fmt: skip


@lru_cache(CACHE)
def _columns(op, char, shape, kernel, dilation, padding, stride):
    ndim = len(shape) - 2
    dtype = np.dtype(char)
    _, N, C, size = _spatial(op, "x", shape, ndim)
    kernel = arguments.per_axis(op, "kernel_size", kernel, ndim, 1)
    stride = arguments.per_axis(op, "stride", stride, ndim, 1)
    dilation = arguments.per_axis(op, "dilation", dilation, ndim, 1)
    if isinstance(padding, str):
        raise TypeError(
            f"{op}: padding must be an int, {ndim} ints or {ndim} (low, high) pairs, got {padding!r}"
        )
    pads = _pads(op, padding, ndim)
    out = _output_size(op, size, kernel, stride, dilation, pads)
    K = C * math.prod(kernel)
    return _problem(
        op, dtype, ndim, True, N, C, K, 1, size, kernel, out, stride, dilation, pads, "zeros", None, False
    )


def _problem(
    op,
    dtype,
    ndim,
    batched,
    N,
    C,
    K,
    groups,
    size,
    kernel,
    out,
    stride,
    dilation,
    pads,
    padding_mode,
    activation,
    bias,
):
    """The problem with its leading unit axes, once its results are known to be addressable.

    A backward call has the problem of its forward call: one problem, one name.
    """
    for what, channels, plane in (("x", C, size), ("y", K, out)):
        arguments.addressable(op, (N, channels, *plane), dtype.itemsize)
    low, high = zip(*pads)
    return ConvProblem(
        op.removesuffix("_backward"), dtype, ndim, batched, N, C, K, groups,
        _three(size, 1), _three(kernel, 1), _three(out, 1), _three(stride, 1), _three(dilation, 1),
        _three(low, 0), _three(high, 0), padding_mode, activation, bias,
    )  # fmt: skip


def _one_dtype(op, **chars):
    for name, char in chars.items():
        if char is not None and char not in "fd":
            raise TypeError(
                f"{op}: {name} has dtype {_dtype_name(char)}, accepted: float32 or float64"
                f" (convert it with {name}.astype(...))"
            )
    x = chars["x"]
    for name, char in chars.items():
        if char is not None and char != x:
            raise TypeError(
                f"{op}: {name} has dtype {_dtype_name(char)}, x has {_dtype_name(x)}"
                " (all arrays must share one dtype, float32 or float64; nothing is promoted)"
            )
    return np.dtype(x)


def _dtype_name(char):
    try:
        return np.dtype(char).name
    except TypeError:
        return char


def _spatial(op, name, shape, ndim):
    """(batched, N, C, size) of (N, C, *spatial) or (C, *spatial)."""
    if len(shape) not in (ndim + 1, ndim + 2):
        axes = ", ".join("DHW"[3 - ndim :])
        raise ValueError(
            f"{op}: {name} has {len(shape)} dimensions {shape},"
            f" need {ndim + 2} (N, C, {axes}) or {ndim + 1} (C, {axes})"
        )
    batched = len(shape) == ndim + 2
    if 0 in shape[batched:]:
        raise ValueError(f"{op}: {name} has shape {shape}, need at least 1 on every axis but N")
    return batched, shape[0] if batched else 1, shape[-ndim - 1], shape[-ndim:]


def _weight(op, shape, ndim, groups):
    """(rows, kernel, groups) of a weight (rows, columns per group, *kernel)."""
    if not isinstance(groups, int):
        raise TypeError(f"{op}: groups must be an int, got {arguments.show(groups)}")
    if groups < 1:
        raise ValueError(f"{op}: groups={groups}, need at least 1")
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
            f"{op}: weight.shape[0] is {shape[0]} and groups={arguments.show(groups)} (need a multiple of groups)"
        )
    return shape[0], shape[2:], groups


def _bias(op, shape, channels, whose):
    if shape is not None and shape != (channels,):
        raise ValueError(
            f"{op}: bias has shape {shape}, need ({channels},) (one value per output channel, {whose})"
        )


def _pads(op, padding, ndim):
    """A canonical padding (not a word) as one (low, high) pair per axis."""
    values = (padding,) * ndim if isinstance(padding, int) else padding
    pairs = [v if isinstance(v, tuple) else (v, v) for v in values]
    kinds = {isinstance(v, tuple) for v in values}
    if len(kinds) > 1 or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"{op}: padding={arguments.show(padding)}, need an int, one int per axis, or one (low, high) pair per axis"
        )
    if len(pairs) == 1:
        pairs *= ndim
    if len(pairs) != ndim:
        hint = (
            " (one axis with unequal sides is written ((low, high),))"
            if ndim == 1 and kinds == {False}
            else ""
        )
        raise ValueError(
            f"{op}: padding={arguments.show(padding)} has {len(pairs)} values,"
            f" need 1 or {ndim} (one per spatial axis){hint}"
        )
    for low, high in pairs:
        if min(low, high) < 0:
            raise ValueError(f"{op}: padding={arguments.show(padding)}, need at least 0 on every side")
        if max(low, high) > arguments.INT_MAX:
            shown = arguments.show(padding)
            raise ValueError(f"{op}: padding={shown}, need at most {arguments.INT_MAX} on every side")
    return tuple(pairs)


def _word_pads(op, word, size, kernel, stride, dilation):
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
            raise ValueError(
                f"{op}: padding={word!r} means {max(low, high)} here, need at most {arguments.INT_MAX}"
            )
        pads.append((low, high))
    return tuple(pads)


def _mode_fits(op, mode, size, pads):
    """Reflection skips the edge and has size - 1 elements to give; going round in a circle has all of them."""
    most = {"reflect": -1, "circular": 0}.get(mode)
    if most is None:
        return
    for s, pad in zip(size, pads):
        if max(pad) > s + most:
            rule = "smaller than" if mode == "reflect" else "at most"
            raise ValueError(
                f"{op}: padding {pad} on an axis of size {s}, padding_mode={mode!r} needs it {rule} the size"
            )


def _output_size(op, size, kernel, stride, dilation, pads):
    out = []
    for name, s, k, st, d, (low, high) in zip(AXES[len(size)], size, kernel, stride, dilation, pads):
        reach = d * (k - 1) + 1
        padded = s + low + high
        if padded < reach:
            raise ValueError(
                f"{op}: output {name} would be {(padded - reach) // st + 1} (x {name} {s}, padding {(low, high)},"
                f" kernel {k}, dilation {d}, stride {st}), need the kernel to fit the padded input"
            )
        out.append((padded - reach) // st + 1)
    return tuple(out)


def _transposed(a, k, stride, dilation, pad):
    """Least output size of a transposed convolution over `a` elements."""
    return (a - 1) * stride + dilation * (k - 1) + 1 - sum(pad)


# -- pooling: from canonical arguments to the problem -----------------------------------------------------------


@lru_cache(CACHE)
def _pool(
    op, ndim, char, shape, kernel, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override
):
    name = "input_shape" if op.endswith("_backward") else "x"
    batched, N, C, size = _spatial(op, name, shape, ndim)
    kernel = arguments.per_axis(op, "kernel_size", kernel, ndim, 1)
    stride = arguments.per_axis(op, "stride", stride, ndim, 1)
    dilation = arguments.per_axis(op, "dilation", dilation, ndim, 1)
    if divisor_override == 0:
        raise ValueError(f"{op}: divisor_override=0, need None or a number other than 0")
    if isinstance(padding, str):
        raise TypeError(
            f"{op}: padding must be an int, {ndim} ints or {ndim} (low, high) pairs, got {padding!r}"
        )
    pads = _pads(op, padding, ndim)
    if not ceil_mode:
        out = _output_size(op, size, kernel, stride, dilation, pads)
    else:
        out = []
        for axis, s, k, st, d, (low, high) in zip(AXES[ndim], size, kernel, stride, dilation, pads):
            windows = -(-(s + low + high - d * (k - 1) - 1) // st) + 1
            if windows < 1:
                raise ValueError(
                    f"{op}: output {axis} would be {windows} (x {axis} {s}, padding {(low, high)}, kernel {k},"
                    f" dilation {d}, stride {st}, ceil_mode), need at least 1"
                )
            out.append(min(windows, -(-(s + low) // st)))  # the last window starts before the high padding
        out = tuple(out)
    arguments.addressable(op, (N, C, *size), 8)
    arguments.addressable(op, (N, C, *out), 8)
    low, high = zip(*pads)
    return PoolProblem(
        op.removesuffix("_backward"), np.dtype(char), ndim, batched, N, C, _three(size, 1), _three(out, 1),
        _three(kernel, 1), _three(stride, 1), _three(dilation, 1), _three(low, 0), _three(high, 0),
        False, count_include_pad, divisor_override,
    )  # fmt: skip


@lru_cache(CACHE)
def _pool_sizes(op, ndim, char, y_shape, x_shape, adaptive):
    """A problem that is all in its two shapes: an adaptive pool, or the scatter of a maximum's gradient."""
    given = op.endswith("_backward")
    batched, N, C, size = _spatial(op, "input_shape" if given else "x", x_shape, ndim)
    if given and (
        len(y_shape) != len(x_shape) or y_shape[:-ndim] != x_shape[:-ndim] or 0 in y_shape[batched:]
    ):
        raise ValueError(
            f"{op}: dy has shape {y_shape} and input_shape is {x_shape}"
            " (need the same N and C, and at least 1 on every spatial axis)"
        )
    out = y_shape[-ndim:]
    arguments.addressable(op, (N, C, *size), 8)
    arguments.addressable(op, (N, C, *out), 8)
    for s, o in zip(size, out):
        arguments.addressable(op, (s, o), 1)  # window bounds are o * s / out
    if adaptive:  # no window [floor(i*s/o), ceil((i+1)*s/o)) is longer than this
        kernel = tuple(s // o if s % o == 0 else min(s, s // o + 2) for s, o in zip(size, out))
    else:
        kernel = (0,) * ndim
    return PoolProblem(
        op.removesuffix("_backward") if adaptive else op, np.dtype(char), ndim, batched, N, C,
        _three(size, 1), _three(out, 1), _three(kernel, int(adaptive)), (1, 1, 1), (1, 1, 1),
        (0, 0, 0), (0, 0, 0), adaptive, True, None,
    )  # fmt: skip


def _windows(size, out, kernel, stride, dilation, low, high):
    """(begin, valid, counted) along one axis; see `PoolProblem.windows`."""
    start = np.arange(out, dtype=np.int64) * stride - low  # where tap 0 would be
    first = np.minimum(
        np.maximum(-(start // dilation), 0), kernel
    )  # taps before the plane: ceil(-start / dilation)
    last = np.minimum(np.maximum(-((start - size) // dilation), 0), kernel)  # taps before the plane's end
    valid = np.maximum(last - first, 0)
    begin = np.where(valid > 0, start + first * dilation, 0)
    counted = np.minimum(np.maximum(-((start - size - high) // dilation), 0), kernel)
    return begin, valid, counted


def _adaptive_windows(size, out):
    """Window o covers [floor(o * size / out), ceil((o + 1) * size / out))."""
    o = np.arange(out, dtype=np.int64)
    begin = o * size // out
    valid = -(-(o + 1) * size // out) - begin
    return begin, valid, valid


# -- small helpers ----------------------------------------------------------------------------------------------


def _three(values, unit):
    return (unit,) * (3 - len(values)) + tuple(values)


def _letters(letters, values):
    return "".join(f"{a}{v}" for a, v in zip(letters[-len(values) :], values))


def _plane(N, C, size):
    return ("" if N is None else f"n{N}") + f"c{C}" + _letters("dhw", size)


def _joined(values, always=False):
    values = tuple(values)
    return str(values[0]) if len(set(values)) == 1 and not always else "x".join(map(str, values))


def _joined_pads(pads):
    return _joined(str(low) if low == high else f"{low}-{high}" for low, high in pads)
