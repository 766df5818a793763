"""The list of cases: real layers, pairwise combinations of options, edges around tile sizes, memory layouts.

Deterministic and shared by the tests, the benchmarks and ``fastconv check``.
"""

import itertools

import numpy as np

from .arrays import LAYOUTS
from .operations import (
    Activation,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    AvgPool,
    BatchNorm,
    Columns,
    Convolution,
    Dropout,
    Linear,
    LocalResponseNorm,
    Loss,
    Maxout,
    MaxPool,
    Softmax,
    Transposed,
)

EDGES = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65)  # around register tiles
LENGTHS = (127, 128, 129, 255, 256, 257, 511, 513)  # around blocks of the accumulation

# (name, input channels, input size, output channels, kernel, options): kernel, stride and padding are the
# network's; channels and sizes are scaled down so that the naive loops stay quick.
LAYERS = (
    ("lenet5-conv1", 1, 32, 6, 5, {}),
    ("lenet5-conv2", 6, 14, 16, 5, {}),
    ("lenet5-conv3", 16, 5, 120, 5, {}),
    ("alexnet-conv1", 3, 47, 12, 11, {"stride": 4}),
    ("alexnet-conv1-padded", 3, 46, 12, 11, {"stride": 4, "padding": 2}),
    ("alexnet-conv2", 12, 13, 16, 5, {}),
    ("alexnet-conv2-groups", 12, 13, 16, 5, {"padding": 2, "groups": 2}),
    ("alexnet-conv3", 16, 11, 24, 3, {}),
    ("alexnet-conv4", 24, 9, 24, 3, {"padding": 1}),
    ("zfnet-conv1", 3, 37, 12, 7, {"stride": 2, "padding": 1}),
    ("zfnet-conv2", 12, 14, 16, 5, {"stride": 2}),
    ("vgg-conv1_1", 3, 28, 16, 3, {"padding": 1}),
    ("vgg-conv3_2", 24, 14, 24, 3, {"padding": 1}),
    ("vgg-conv5_1", 40, 7, 40, 3, {"padding": 1}),
    ("googlenet-conv1", 3, 32, 16, 7, {"stride": 2, "padding": 3}),
    ("googlenet-1x1", 48, 7, 16, 1, {}),
    ("googlenet-3x3", 24, 7, 32, 3, {"padding": 1}),
    ("googlenet-5x5", 8, 7, 16, 5, {"padding": 2}),
    ("resnet-conv1", 3, 33, 16, 7, {"stride": 2, "padding": 3}),
    ("resnet-3x3", 16, 14, 16, 3, {"padding": 1}),
    ("resnet-3x3-down", 16, 14, 32, 3, {"stride": 2, "padding": 1}),
    ("resnet-1x1-down", 16, 14, 32, 1, {"stride": 2}),
    ("resnet-1x1-expand", 16, 7, 64, 1, {}),
    ("deeplab-rate2", 16, 17, 24, 3, {"padding": 2, "dilation": 2}),
    ("deeplab-rate4", 12, 33, 16, 3, {"padding": 4, "dilation": 4}),
    ("mobilenet-depthwise", 24, 14, 24, 3, {"padding": 1, "groups": 24}),
    ("mobilenet-depthwise-down", 24, 14, 24, 3, {"padding": 1, "groups": 24, "stride": 2}),
)


def pairwise(factors):
    """Rows (dicts factor -> value) such that every two values of different factors meet in one row at least.

    Greedy and deterministic: each row starts from the first pair not yet met and takes, factor by factor, the
    value that meets most new pairs with those already in the row, the first of equals.
    """
    names = list(factors)
    missing = {((a, i), (b, j)) for a, b in itertools.combinations(names, 2)
               for i in range(len(factors[a])) for j in range(len(factors[b]))}
    order = {name: position for position, name in enumerate(names)}

    def pair(a, b):
        return (a, b) if order[a[0]] < order[b[0]] else (b, a)

    rows = []
    while missing:
        row = dict(min(missing, key=lambda p: tuple((order[name], i) for name, i in p)))
        for name in names:
            if name not in row:
                def new(i, name=name):
                    return sum(pair((name, i), other) in missing for other in row.items())
                row[name] = max(range(len(factors[name])), key=lambda i: (new(i), -i))
        missing -= {pair(a, b) for a, b in itertools.combinations(row.items(), 2)}
        rows.append({name: factors[name][row[name]] for name in names})
    return rows


def _per_axis(value, ndim):
    """The last ndim of a triple; anything else is left as it is."""
    return value[-ndim:] if isinstance(value, tuple) and len(value) == 3 else value


def _triple(value, ndim):
    value = _per_axis(value, ndim)
    return value if isinstance(value, tuple) else (value,) * ndim


def _fitting(ndim, kernel, dilation, base=5):
    """Spatial sizes, different on every axis, that hold the kernel and can be reflected over its reach."""
    pairs = zip(_triple(kernel, ndim), _triple(dilation, ndim))
    return tuple(base + axis + d * (k - 1) for axis, (k, d) in enumerate(pairs))


def convolutions():
    """conv1d, conv2d, conv3d."""
    for name, C, size, K, kernel, options in LAYERS:
        weight = (K, C // options.get("groups", 1), kernel, kernel)
        yield Convolution(2, (2, C, size, size), weight, label=name, **options)
    for power in range(4):  # WaveNet: causal, the padding on the past only
        yield Convolution(1, (2, 8, 40), (16, 8, 2), dilation=2 ** power, padding=((2 ** power, 0),),
                          activation="tanh", label="wavenet")
    yield Convolution(3, (1, 3, 6, 9, 10), (8, 3, 3, 3, 3), padding=1, label="c3d-conv1")
    for depth in ((1, 0), (0, 1)):  # 2-d but for the padding: two outputs over a depth of one
        pads = (depth, (1, 1), (1, 1))
        yield Convolution(3, (2, 16, 1, 8, 8), (16, 16, 1, 3, 3), padding=pads, label="padded-depth")

    for row in pairwise({
        "ndim": (1, 2, 3),
        "kernel": (3, 1, 2, 5, (1, 3, 2), (2, 1, 4)),
        "stride": (1, 2, 3, (1, 2, 3), (3, 1, 2)),
        "padding": (0, 1, ((1, 0), (0, 2), (2, 1)), (2, 0, 1), "same", "same_lower", "full", "valid"),
        "padding_mode": ("zeros", "reflect", "replicate", "circular"),
        "dilation": (1, 2, (2, 1, 3)),
        "groups": (1, 2, "depthwise", "depthwise, 2 filters"),
        "batch": (2, 1, None),
        "activation": (None, "relu", "leaky_relu", "sigmoid", "tanh"),
        "bias": (True, False),
    }):
        ndim, groups = row["ndim"], row["groups"]
        C, K, groups = {
            1: (3, 5, 1), 2: (4, 6, 2), "depthwise": (5, 5, 5), "depthwise, 2 filters": (3, 6, 3),
        }[groups]
        kernel = _triple(row["kernel"], ndim)
        options = {name: _per_axis(row[name], ndim) for name in ("stride", "padding", "dilation")}
        size = _fitting(ndim, kernel, row["dilation"])
        x = (C, *size) if row["batch"] is None else (row["batch"], C, *size)
        yield Convolution(ndim, x, (K, C // groups, *kernel), bias=row["bias"], groups=groups, **options,
                          padding_mode=row["padding_mode"], activation=row["activation"])

    for edge in EDGES:
        yield Convolution(2, (2, 3, 5, 6), (edge, 3, 3, 3), padding=1, label="edge-k")
        yield Convolution(2, (2, edge, 4, 5), (6, edge, 3, 3), padding=1, label="edge-c")
        yield Convolution(2, (1, edge, 3, 3), (edge, edge, 1, 1), label="edge-1x1")
        yield Convolution(1, (2, 3, edge), (5, 3, 3), padding=1, label="edge-pixels")
        yield Convolution(2, (1, edge, 5, 5), (edge, 1, 3, 3), padding=1, groups=edge, label="edge-depthwise")
    for length in LENGTHS:
        yield Convolution(2, (1, length, 2, 3), (9, length, 1, 1), label="edge-length")
        yield Convolution(1, (1, 2, length), (3, 2, 3), padding=1, label="edge-length")
    yield Convolution(2, (1, 67, 6, 7), (17, 67, 3, 3), padding=1, label="edge-length")
    yield Convolution(2, (1, 5, 31, 33), (17, 5, 3, 3), padding=1, label="edge-pixels")

    for kernel in (4, 5, 6, 7):  # more than a vector of tiles of either size, in rows that do not end with one
        yield Convolution(2, (2, 3, 21, 43), (5, 3, kernel, kernel), padding=kernel // 2, label="large-kernel")
    for filters in (33, 40):  # of which tasks take 32 or fewer, and so many tiles that they do not pass at once
        yield Convolution(2, (2, 9, 38, 45), (filters, 9, 4, 4), padding=2, label="uneven-tasks")
    # rows that are cut into pieces, and samples so small that many are taken together
    yield Convolution(1, (1, 2, 6500), (5, 2, 3), padding=1, label="long-rows")
    yield Convolution(2, (1, 2, 7, 1100), (3, 2, 3, 3), padding=1, label="long-rows")
    yield Convolution(2, (45, 2, 5, 6), (3, 2, 3, 3), padding=1, label="small-samples")
    yield Convolution(2, (1, 4, 40, 23), (6, 2, 7, 7), padding=3, groups=2, activation="relu", label="large-kernel")
    yield Convolution(2, (1, 3, 26, 51), (4, 3, 11, 11), stride=2, padding=5, label="large-kernel")

    # one tap: read in place beside the border, positions between which nothing falls, a sum longer than what is packed at once
    yield Convolution(2, (2, 9, 12, 56), (17, 9, 1, 1), stride=2, padding=(1, 0), label="one-tap")
    yield Convolution(2, (3, 5, 9, 11), (12, 5, 1, 1), stride=(2, 3), padding=((1, 0), (0, 2)), label="one-tap")
    yield Convolution(2, (2, 8, 8, 23), (10, 4, 1, 1), stride=(3, 1), groups=2, label="one-tap")
    yield Convolution(2, (1, 2100, 3, 17), (9, 2100, 1, 1), label="one-tap")

    for ndim in (1, 2, 3):
        one, two, three, five, nine = ((size,) * ndim for size in (1, 2, 3, 5, 9))
        yield Convolution(ndim, (2, 4, *one), (3, 4, *one), label="one-pixel")
        yield Convolution(ndim, (2, 4, *one), (3, 4, *three), padding=1, label="one-pixel")
        yield Convolution(ndim, (1, 1, *one), (1, 1, *one), bias=False, label="one-number")
        yield Convolution(ndim, (2, 2, *three), (3, 2, *three), padding=4, label="padding-beyond-kernel")
        high = ((0, 5),) * ndim
        yield Convolution(ndim, (2, 2, *five), (3, 2, *three), padding=high, stride=2, label="one-side")
        yield Convolution(ndim, (2, 2, *nine), (3, 2, *two), stride=4, label="stride-beyond-kernel")
        yield Convolution(ndim, (2, 2, *nine), (3, 2, *one), stride=3, padding=1, label="border-only-padding")
        yield Convolution(ndim, (2, 2, *(8,) * ndim), (3, 2, *three), stride=3, label="end-not-covered")
        yield Convolution(ndim, (0, 2, *five), (3, 2, *three), padding=1, label="no-samples")
        yield Convolution(ndim, (1, 2, *five), (3, 2, *three), padding=1, label="one-sample")
        for mode in ("reflect", "replicate", "circular"):
            pad = 4 if mode != "replicate" else 7
            options = {"padding": pad, "padding_mode": mode}
            yield Convolution(ndim, (2, 2, *five), (3, 2, *three), **options, label="padding-all-of-x")
    for layout in LAYOUTS[1:]:
        yield Convolution(2, (2, 5, 7, 9), (6, 5, 3, 3), padding=1, layout=layout)
        yield Convolution(2, (2, 16, 6, 6), (17, 16, 1, 1), layout=layout)
        yield Convolution(2, (2, 6, 8, 8), (6, 1, 3, 3), stride=2, groups=6, layout=layout)
        yield Convolution(1, (2, 3, 21), (4, 3, 4), stride=2, layout=layout)
        around = {"padding": 1, "padding_mode": "circular"}
        yield Convolution(3, (1, 2, 4, 5, 6), (3, 2, 2, 3, 2), **around, layout=layout)


def short_tiles():
    """Maps that are no multiples of Winograd's tiles, which algorithms of that name may cut into tiles of two
    lengths."""
    for kernel, maps in (
        (2, ((13, 14), (6, 9), (3, 18))),
        (3, ((5, 6), (7, 9), (10, 11), (13, 14), (15, 13), (4, 7), (14, 8))),
        (4, ((5, 7), (10, 11), (14, 13), (8, 4))),
        (5, ((5, 6), (7, 9), (13, 11), (14, 15))),
        (7, ((5, 6), (7, 9))),
    ):
        for size in maps:
            low, high = (kernel - 1) // 2, kernel // 2
            pads = (low, high), (low, high)
            yield Convolution(2, (2, 3, *size), (9, 3, kernel, kernel), padding=pads, label="short-tiles")
    for size in (10, 13, 14), (14, 19, 27):  # phases of dx that do not begin together
        yield Convolution(2, (size[0], 3, *size[1:]), (5, 3, 7, 7), stride=2, padding=3, label="short-tiles")
    yield Convolution(2, (1, 4, 7, 7), (20, 2, 3, 3), padding=1, groups=2, activation="relu", label="short-tiles")
    yield Convolution(2, (2, 3, 13, 10), (4, 3, 3, 3), padding=2, dilation=2, label="short-tiles")
    yield Convolution(2, (1, 3, 9, 14), (4, 3, 3, 3), padding=1, padding_mode="reflect", label="short-tiles")
    # more tiles than a block; classes that begin and end within a vector, within a row; many channels
    yield Convolution(2, (17, 3, 13, 14), (9, 3, 3, 3), padding=1, label="short-tiles")
    yield Convolution(2, (5, 2, 21, 41), (3, 2, 3, 3), padding=1, label="short-tiles")
    yield Convolution(2, (25, 305, 5, 5), (2, 305, 3, 3), padding=1, label="short-tiles")


def transposes():
    """conv_transpose1d, conv_transpose2d, conv_transpose3d."""
    for row in pairwise({
        "ndim": (2, 1, 3),
        "kernel": (3, 1, 2, 4, (1, 3, 2)),
        "stride": (1, 2, 3, (1, 2, 3)),
        "padding": (0, 1, ((1, 0), (0, 2), (2, 1)), (0, 1, 0)),
        "output_padding": ("none", "most"),
        "groups": (1, 2, 3),
        "dilation": (1, 2, (2, 1, 3)),
        "batch": (2, 1, None),
        "bias": (True, False),
    }):
        ndim, groups = row["ndim"], row["groups"]
        kernel = _triple(row["kernel"], ndim)
        options = {name: _per_axis(row[name], ndim) for name in ("stride", "padding", "dilation")}
        if row["output_padding"] == "most":
            options["output_padding"] = tuple(
                max(s, d) - 1 for s, d in zip(_triple(row["stride"], ndim), _triple(row["dilation"], ndim)))
        size = tuple(4 + axis for axis in range(ndim))
        C, K = {1: (3, 5), 2: (4, 6), 3: (3, 3)}[groups]
        x = (C, *size) if row["batch"] is None else (row["batch"], C, *size)
        yield Transposed(ndim, x, (C, K // groups, *kernel), bias=row["bias"], groups=groups, **options)
    yield Transposed(2, (2, 16, 7, 7), (16, 8, 4, 4), stride=2, padding=1, label="dcgan")
    yield Transposed(2, (0, 3, 4, 4), (3, 2, 3, 3), label="no-samples")
    yield Transposed(2, (2, 3, 1, 1), (3, 2, 1, 1), label="one-pixel")
    yield Transposed(2, (2, 3, 4, 4), (3, 2, 2, 2), stride=4, label="stride-beyond-kernel")
    for layout in LAYOUTS[1:]:
        yield Transposed(2, (2, 5, 4, 5), (5, 3, 3, 3), stride=2, padding=1, output_padding=1, layout=layout)


def columns():
    """im2col and col2im."""
    for row in pairwise({
        "ndim": (2, 1, 3),
        "kernel": (3, 1, 2, (1, 3, 2)),
        "stride": (1, 2, (1, 2, 3)),
        "padding": (0, 1, ((1, 0), (0, 2), (2, 1))),
        "dilation": (1, 2, (2, 1, 3)),
        "batch": (2, 1, 0),
    }):
        ndim = row["ndim"]
        options = {name: _per_axis(row[name], ndim) for name in ("stride", "padding", "dilation")}
        kernel = _triple(row["kernel"], ndim)
        yield Columns((row["batch"], 3, *_fitting(ndim, kernel, row["dilation"])), kernel, **options)
    for layout in LAYOUTS[1:]:
        yield Columns((2, 3, 6, 7), 3, padding=1, layout=layout)


def _pools(kind, factors):
    for row in pairwise({
        "ndim": (2, 1, 3),
        "kernel_size": (2, 3, 1, (1, 3, 2)),
        "stride": (None, 1, 2, 3, (1, 2, 4)),
        "padding": (0, 1, ((1, 0), (0, 2), (2, 1)), 4),
        "dilation": (1, 2, (2, 1, 3)),
        "ceil_mode": (False, True),
        "batch": (2, 1, None),
        **factors,
    }):
        ndim, batch = row.pop("ndim"), row.pop("batch")
        row = {name: _per_axis(value, ndim) for name, value in row.items()}
        size = _fitting(ndim, row["kernel_size"], row["dilation"])
        yield kind(ndim, (3, *size) if batch is None else (batch, 3, *size), **row)


def max_pools():
    """max_pool1d, max_pool2d, max_pool3d and the adaptive ones."""
    yield MaxPool(2, (2, 6, 28, 28), 2, label="lenet5")
    yield MaxPool(2, (2, 8, 15, 15), 3, stride=2, label="alexnet")
    yield MaxPool(2, (2, 8, 14, 14), 3, stride=2, ceil_mode=True, label="googlenet")
    yield MaxPool(2, (2, 8, 7, 7), 3, stride=1, padding=1, label="inception")
    yield MaxPool(2, (2, 8, 16, 16), 3, stride=2, padding=1, label="resnet")
    yield from _pools(MaxPool, {})
    for edge in EDGES:
        yield MaxPool(2, (1, 2, 4, 2 * edge), 2, label="edge")
        yield MaxPool(2, (1, 2, 5, edge), 3, stride=1, padding=1, label="edge")
    yield MaxPool(2, (0, 3, 6, 6), 2, label="no-samples")
    yield MaxPool(2, (2, 3, 1, 1), 1, label="one-pixel")
    yield MaxPool(2, (2, 3, 3, 3), 2, stride=1, padding=3, label="padding-beyond-kernel")
    for layout in LAYOUTS[1:]:
        yield MaxPool(2, (2, 3, 7, 9), 3, stride=2, padding=1, layout=layout)
    for ndim, size, output in _adaptive():
        yield AdaptiveMaxPool(ndim, (2, 3, *size), output)
    yield AdaptiveMaxPool(2, (3, 5, 7), 2)
    yield AdaptiveMaxPool(2, (2, 3, 5, 7), 2, layout="channels_last")


def avg_pools():
    """avg_pool1d, avg_pool2d, avg_pool3d and the adaptive ones."""
    yield AvgPool(2, (2, 6, 28, 28), 2, label="lenet5")
    yield AvgPool(2, (2, 16, 7, 7), 7, label="resnet")
    yield AvgPool(2, (2, 8, 14, 14), 5, stride=3, label="googlenet")
    yield from _pools(AvgPool, {"count_include_pad": (True, False), "divisor_override": (None, 1, 3, 4)})
    for edge in EDGES:
        yield AvgPool(2, (1, 2, 4, 2 * edge), 2, label="edge")
        yield AvgPool(2, (1, 2, 5, edge), 3, stride=1, padding=1, label="edge")
    yield AvgPool(2, (0, 3, 6, 6), 2, label="no-samples")
    yield AvgPool(2, (2, 3, 1, 1), 1, label="one-pixel")
    for counted in (True, False):
        options = {"stride": 1, "padding": 3, "count_include_pad": counted}
        yield AvgPool(2, (2, 3, 3, 3), 2, **options, label="padding-beyond-kernel")
    for layout in LAYOUTS[1:]:
        yield AvgPool(2, (2, 3, 7, 9), 3, stride=2, padding=1, layout=layout)
    for ndim, size, output in _adaptive():
        yield AdaptiveAvgPool(ndim, (2, 3, *size), output)
    yield AdaptiveAvgPool(2, (3, 5, 7), 2)
    yield AdaptiveAvgPool(2, (2, 3, 5, 7), 2, layout="channels_last")


def _adaptive():
    yield 1, (10,), 3
    yield 1, (5,), 5
    yield 2, (8, 8), 4
    yield 2, (7, 9), (1, 1)
    yield 2, (6, 5), (None, 3)
    yield 2, (3, 4), (5, 7)  # more outputs than inputs: windows overlap
    yield 3, (4, 5, 6), (2, 3, 4)


def elementwise():
    """Activations, softmax, maxout, dropout."""
    shapes = ((), (0,), (1,), (7,), (2, 3, 5), (3, 0, 2), (65,), (4, 257), (2, 3, 4, 5, 2))
    for shape in shapes:
        for op in ("relu", "leaky_relu", "elu", "sigmoid", "tanh"):
            yield Activation(op, shape)
    for value in (0.0, 0.5, 2.0):
        yield Activation("leaky_relu", (3, 50), negative_slope=value)
        yield Activation("elu", (3, 50), alpha=value)
    for layout in LAYOUTS[1:]:
        for op in ("relu", "sigmoid", "tanh"):
            yield Activation(op, (2, 3, 4, 9), layout=layout)
    for op in ("softmax", "log_softmax"):
        for shape, axis in (
            ((), 0), ((1,), 0), ((5,), -1), ((4, 10), -1), ((4, 10), 0), ((2, 5, 3), 1), ((3, 1000), 1),
            ((0, 4), 1), ((4, 0), 1), ((2, 17, 3, 5), 1), ((33, 3), -1), ((2, 3, 64), 2),
        ):
            yield Softmax(op, shape, axis)
        for layout in LAYOUTS[1:]:
            yield Softmax(op, (3, 7, 4), 1, layout=layout)
            yield Softmax(op, (6, 9), -1, layout=layout)
    for shape, pieces, axis in (
        ((2, 6), 2, 1), ((2, 6, 5), 3, 1), ((3, 8, 4, 4), 4, 1), ((6, 5), 6, 0), ((4, 7, 6), 2, 2),
        ((2, 5), 1, 1), ((0, 4), 2, 1),
    ):
        yield Maxout(shape, pieces, axis)
    for layout in LAYOUTS[1:]:
        yield Maxout((2, 6, 5), 3, layout=layout)
    for p in (0.0, 0.3, 0.5, 1.0):
        yield Dropout((4, 33), p)
    yield Dropout((), 0.5)
    yield Dropout((0, 3), 0.5)
    yield Dropout((3, 4, 5), 0.5, layout="channels_last")


def losses():
    """The losses, with all their options."""
    for row in pairwise({
        "x": ((4, 5), (1, 2), (3, 10), (2, 4, 3), (2, 3, 2, 3), (7, 1000)),
        "target": ("classes", "probabilities"),
        "weighted": (False, True),
        "reduction": ("mean", "sum", "none"),
        "label_smoothing": (0.0, 0.1, 1.0),
        "target_dtype": (np.int64, np.uint8, np.int32, np.int16),
        "ignore_index": (-100, 1),
    }):
        if row["target_dtype"] == np.uint8:
            row["x"] = (row["x"][0], min(row["x"][1], 200), *row["x"][2:])
        if row["target"] == "probabilities":
            row.pop("ignore_index")
            row.pop("target_dtype")
        yield Loss("softmax_cross_entropy", **row)
    for row in pairwise({
        "x": ((4, 5), (1, 2), (2, 4, 3), (2, 3, 2, 3)),
        "weighted": (False, True),
        "reduction": ("mean", "sum", "none"),
        "ignore_index": (-100, 1),
    }):
        yield Loss("nll", **row)
    for op in ("softmax_cross_entropy", "nll"):
        for reduction in ("mean", "sum", "none"):
            yield Loss(op, (3, 4), target="ignored", reduction=reduction)
            yield Loss(op, (0, 4), reduction=reduction)
    for reduction in ("mean", "sum", "none"):
        for shape in ((4, 5), (7,), (0, 3), (2, 3, 9)):
            yield Loss("squared_error", shape, target="reals", reduction=reduction)
            for weighted in (False, True):
                options = {"weighted": weighted, "reduction": reduction}
                yield Loss("sigmoid_cross_entropy", shape, target="reals", **options)
        for shape in ((4, 5), (1, 2), (0, 3), (6, 1000)):
            yield Loss("hinge", shape, reduction=reduction)
        yield Loss("hinge", (5, 6), reduction=reduction, margin=0.25, target_dtype=np.uint8)
    for layout in LAYOUTS[1:]:
        yield Loss("softmax_cross_entropy", (5, 7), layout=layout)
        yield Loss("sigmoid_cross_entropy", (5, 7), target="reals", layout=layout)


def dense():
    """linear, with the edges of the matrix kernels."""
    for edge in EDGES:
        yield Linear((edge, 5), 6)
        yield Linear((3, edge), 5)
        yield Linear((2, 7), edge)
    for length in LENGTHS:
        yield Linear((3, length), 5)
        yield Linear((length, 3), 4)
    yield Linear((65, 129), 49)
    for shape in ((5,), (0, 5), (2, 3, 5), (1, 400)):
        yield Linear(shape, 4)
        yield Linear(shape, 4, bias=False)
    for layout in LAYOUTS[1:]:
        yield Linear((7, 33), 17, layout=layout)


def norms():
    """Batch and local response normalisation."""
    for training in (False, True):
        for shape in ((8, 5), (4, 3, 7), (3, 6, 5, 5), (2, 3, 2, 3, 4), (2, 1, 65), (17, 33)):
            for affine in (True, False):
                yield BatchNorm(shape, training, affine)
        yield BatchNorm((8, 3, 10), training, momentum=0.5, eps=1e-3)
        for layout in LAYOUTS[1:]:
            yield BatchNorm((4, 3, 5, 6), training, layout=layout)
    for shape, size in (
        ((2, 5, 3, 3), 5), ((2, 7, 4), 1), ((2, 6, 4, 4), 2), ((1, 3, 5), 9), ((2, 16, 4, 4), 3),
        ((0, 4, 3), 3),
    ):
        yield LocalResponseNorm(shape, size)
        yield LocalResponseNorm(shape, size, alpha=0.5, beta=0.5, k=2.0)
    for layout in LAYOUTS[1:]:
        yield LocalResponseNorm((2, 6, 4, 5), 5, alpha=0.1, layout=layout)


GROUPS = (convolutions, transposes, columns, max_pools, avg_pools, elementwise, losses, dense, norms)


def cases(*ops):
    """All cases, or those that call one of the functions named; in a fixed order, no name twice."""
    found = {}
    for group in GROUPS:
        for case in group():
            if not ops or set(ops) & set(case.functions):
                found.setdefault(case.name(), case)
    return list(found.values())
