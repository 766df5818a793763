"""PoolProblem: maximum and average pooling, adaptive or not, and their gradients."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy import ndarray

from .. import _arguments as arguments
from .geometry import (
    AXES,
    CACHE,
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

WINDOWS_KEPT = 2**16  # longer window tables are made anew for each call, not kept with the cached problem


@dataclass(frozen=True, slots=True)
class PoolProblem:
    """One pooling, y[n, c, o] = max or mean of x[n, c, o * stride - pad_low + t * dilation] over taps t
    inside.

    Adaptive pools have windows of varying length and dilation 1; `kernel` is a bound on their length.
    The backward pass of a maximum needs no windows: its problem has only sizes, and `kernel` is 0.
    """

    op: str
    dtype: np.dtype  # native float32 or float64; on a device also float16 and `_arguments.BFLOAT16`
    ndim: int  # spatial axes the user sees: 1, 2, 3
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
    # derived; kept, because every call reads them. Shapes are in the user's rank, with N only if batched
    x_shape: tuple = field(init=False, repr=False, compare=False)
    y_shape: tuple = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)
    _windows: tuple | None = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        keep = object.__setattr__
        first, lead = 3 - self.ndim, (self.N, self.C) if self.batched else (self.C,)
        keep(self, "x_shape", (*lead, *self.size[first:]))
        keep(self, "y_shape", (*lead, *self.out[first:]))
        keep(self, "_hash", hash(tuple(getattr(self, name) for name in FIELDS)))
        keep(self, "_windows", None)

    def __hash__(self):
        return self._hash

    @property
    def windows(self):
        """For each of the three axes (begin, valid, counted), int64 arrays with one entry per output index.

        begin: input index of the first tap inside the plane (0 if there is none). valid: number of taps
        inside the plane (0: the window lies wholly in padding). counted: number of taps inside the padded
        extent. Tap t of the window sits at begin + t * dilation.
        """
        if self._windows is not None:
            return self._windows
        table = tuple(
            _adaptive_windows(size, out) if self.adaptive else _windows(size, out, *geometry)
            for size, out, *geometry in self._axes()
        )
        if sum(self.out) <= WINDOWS_KEPT:
            object.__setattr__(self, "_windows", table)
        return table

    @property
    def name(self):
        """One line, unique, in the manner of `ConvProblem.name`: ``max_pool2d:n8c64h56w56r3s3_st2p1d1_f32``.

        The output size is told where the rest does not imply it: ``..._o28x28``.
        """
        first = 3 - self.ndim
        head = f"{self.op}:{plane_name(self.N if self.batched else None, self.C, self.size[first:])}"
        told = f"_o{joined(self.out[first:], always=True)}"
        tail = f"_{dtype_word(self.dtype)}"
        if self.adaptive or 0 in self.kernel:
            return head + told + tail
        pads = tuple(zip(self.pad_low, self.pad_high))[first:]
        implied = all((s + p + q - d * (k - 1) - 1) // st + 1 == o for s, o, k, st, d, p, q in self._axes())
        return (
            f"{head}{letters('trs', self.kernel[first:])}_st{joined(self.stride[first:])}"
            f"p{joined_pads(pads)}d{joined(self.dilation[first:])}"
            + ("" if implied else told)
            + tail
            + ("" if self.count_include_pad else "_nopad")
            + (f"_div{self.divisor_override}" if self.divisor_override is not None else "")
        )

    def _axes(self):
        return zip(self.size, self.out, self.kernel, self.stride, self.dilation, self.pad_low, self.pad_high)

    # -- from the arguments of a call ------------------------------------------------------------------------

    @staticmethod
    def of(
        x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, count_include_pad=True,
        divisor_override=None, *, ndim, op, input_shape=None,
    ):  # fmt: skip
        """The problem of a pool over x. For a backward pass x is dy, and `input_shape` the shape of x."""
        what = "x" if input_shape is None else "dy"
        if type(x) is ndarray:
            shape, char = x.shape, x.dtype.char
        else:
            x = arguments.any_array(op, what, x)
            shape, char = key(x)
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
        if char not in arguments.FLOATS:
            x = arguments.float_array(op, what, x)  # those of 16 bits pass, if they are on a device
        pooled = shape if input_shape is None else arguments.shape_of(op, "input_shape", input_shape)
        problem = _pool(
            op, ndim, char, pooled, kernel_size, stride, padding, dilation,
            ceil_mode, count_include_pad, divisor_override,
        )  # fmt: skip
        if input_shape is not None and shape != problem.y_shape:
            raise ValueError(
                f"{op}: dy has shape {shape}, need {problem.y_shape} (what pooling {pooled} gives)"
            )
        return problem

    @staticmethod
    def of_adaptive(x, output_size=None, *, ndim, op, input_shape=None):
        """The problem of an adaptive pool over x. For a backward pass x is dy, of the output's size."""
        x = arguments.float_array(op, "x" if input_shape is None else "dy", x)
        shape, char = key(x)
        if input_shape is not None:
            return _sizes(op, ndim, char, shape, arguments.shape_of(op, "input_shape", input_shape), True)
        if output_size is None or type(output_size) is int:
            return _adaptive(op, ndim, char, shape, (output_size,))
        if isinstance(output_size, (tuple, list)):
            wanted = tuple(v if v is None else arguments.canonical(op, "output_size", v) for v in output_size)
        else:
            wanted = arguments.canonical(op, "output_size", output_size)
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        return _adaptive(op, ndim, char, shape, wanted)

    @staticmethod
    def of_indices(dy, input_shape, *, ndim, op):
        """The problem of a maximum's backward pass: dy is scattered into planes of `input_shape`."""
        shape, char = key(arguments.float_array(op, "dy", dy))
        return _sizes(op, ndim, char, shape, arguments.shape_of(op, "input_shape", input_shape), False)


FIELDS = tuple(name for name, f in PoolProblem.__dataclass_fields__.items() if f.init)

_one = lru_cache(CACHE)(PoolProblem)  # equal problems are one object, see ConvProblem's


# -- from canonical arguments to the problem -----------------------------------------------------------------


@lru_cache(CACHE)
def _pool(
    op, ndim, char, shape, kernel, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override
):
    """A pool with windows of one length, over x of this shape."""
    name = "input_shape" if op.endswith("_backward") else "x"
    batched, N, C, size = spatial(op, name, shape, ndim)
    kernel = arguments.per_axis(op, "kernel_size", kernel, ndim, 1)
    stride = arguments.per_axis(op, "stride", stride, ndim, 1)
    dilation = arguments.per_axis(op, "dilation", dilation, ndim, 1)
    if divisor_override == 0:
        raise ValueError(f"{op}: divisor_override=0, need None or a number other than 0")
    pads = pairs(op, padding, ndim)
    out = (_ceil_size if ceil_mode else output_size)(op, size, kernel, stride, dilation, pads)
    arguments.addressable(op, (N, C, *size), 8)
    arguments.addressable(op, (N, C, *out), 8)
    low, high = zip(*pads)
    return _one(
        op.removesuffix("_backward"), arguments.native_dtype(char), ndim, batched, N, C,
        three(size, 1), three(out, 1),
        three(kernel, 1), three(stride, 1), three(dilation, 1), three(low, 0), three(high, 0),
        False, count_include_pad, divisor_override,
    )  # fmt: skip


def _ceil_size(op, size, kernel, stride, dilation, pads):
    """Output sizes that count windows beyond the end too, as long as they start before the high padding."""
    out = []
    for name, s, k, st, d, (low, high) in zip(AXES[len(size)], size, kernel, stride, dilation, pads):
        windows = -(-(s + low + high - d * (k - 1) - 1) // st) + 1
        if windows < 1:
            raise ValueError(
                f"{op}: output {name} would be {windows} (x {name} {s}, padding {(low, high)}, kernel {k},"
                f" dilation {d}, stride {st}, ceil_mode), need at least 1"
            )
        out.append(min(windows, -(-(s + low) // st)))
    return tuple(out)


@lru_cache(CACHE)
def _adaptive(op, ndim, char, shape, wanted):
    """An adaptive pool over x of this shape to the sizes wanted: one or one per axis, None keeps an axis."""
    spatial(op, "x", shape, ndim)
    shown = arguments.show(wanted if len(wanted) != 1 else wanted[0])
    if any(v is not None and not isinstance(v, int) for v in wanted):
        raise TypeError(f"{op}: output_size must be an int or {ndim} ints (or None), got {shown}")
    wanted = wanted * ndim if len(wanted) == 1 else wanted
    if len(wanted) != ndim:
        raise ValueError(
            f"{op}: output_size={shown} has {len(wanted)} values, need 1 or {ndim}"
            " (one per spatial axis, None keeps that axis)"
        )
    if any(v is not None and not 1 <= v <= arguments.INT_MAX for v in wanted):
        raise ValueError(f"{op}: output_size={shown}, need 1 to {arguments.INT_MAX} on every axis")
    out = tuple(size if v is None else v for v, size in zip(wanted, shape[-ndim:]))
    return _sizes(op, ndim, char, (*shape[:-ndim], *out), shape, True)


@lru_cache(CACHE)
def _sizes(op, ndim, char, y_shape, x_shape, adaptive):
    """A problem that is all in its two shapes: an adaptive pool, or the scatter of a maximum's gradient."""
    backward = op.endswith("_backward")
    batched, N, C, size = spatial(op, "input_shape" if backward else "x", x_shape, ndim)
    out = y_shape[-ndim:]
    if backward and (len(y_shape) != len(x_shape) or y_shape[:-ndim] != x_shape[:-ndim] or 0 in out):
        raise ValueError(
            f"{op}: dy has shape {y_shape} and input_shape is {x_shape}"
            " (need the same N and C, and at least 1 on every spatial axis)"
        )
    arguments.addressable(op, (N, C, *size), 8)
    arguments.addressable(op, (N, C, *out), 8)
    for s, o in zip(size, out):
        arguments.addressable(op, (s, o), 1)  # windows begin at o * s / out
    if adaptive:  # no window [floor(i * s / o), ceil((i + 1) * s / o)) is longer than this
        kernel = three((s // o if s % o == 0 else min(s, s // o + 2) for s, o in zip(size, out)), 1)
    else:
        kernel = (0, 0, 0)
    return _one(
        op.removesuffix("_backward") if adaptive else op, arguments.native_dtype(char), ndim, batched, N, C,
        three(size, 1), three(out, 1), kernel, (1, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0),
        adaptive, True, None,
    )  # fmt: skip


# -- windows -------------------------------------------------------------------------------------------------


def _windows(size, out, kernel, stride, dilation, low, high):
    """(begin, valid, counted) along one axis; see `PoolProblem.windows`."""
    start = np.arange(out, dtype=np.int64) * stride - low  # where tap 0 would be

    def taps_below(end):
        """How many taps start, start + dilation, ... lie below `end`: ceil((end - start) / dilation)."""
        return np.clip(-((start - end) // dilation), 0, kernel)

    first = taps_below(0)
    valid = taps_below(size) - first
    begin = np.where(valid > 0, start + first * dilation, 0)
    return begin, valid, taps_below(size + high)


def _adaptive_windows(size, out):
    """Window o covers [floor(o * size / out), ceil((o + 1) * size / out))."""
    o = np.arange(out, dtype=np.int64)
    begin = o * size // out
    valid = -(-(o + 1) * size // out) - begin
    return begin, valid, valid
