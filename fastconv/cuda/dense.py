"""Programs of the fully connected layer: products of matrices are convolutions with a kernel of one tap.

The rows of x are the pixels of one image, channels last. Buffers "x" (rows, inputs), "dy" or "y" (rows,
outputs), "weight" (outputs, inputs), "bias", "dx", "dweight", all contiguous and aligned to 16 bytes. Weights
are read where they lie as far as a kernel can: turned ones by wgmma in 16 bits; else a pass that turns whole
tiles comes first.

An element of y or dx is one sum in one order, whatever the number of rows: that chooses tiles, never the
algorithm (`select`). Nor is a sum split, so that small batches depend on narrow tiles to fill the device.
"""

from typing import NamedTuple

from . import convolution, geometry
from .convolution import SMS, Builder, Sum, View, Weight
from .gen import gemm_f32, igemm_sm80, layout, thin_f32
from .gen.kernel import BYTES, ceil_div
from .program import Pointer

DIRECTIONS = ("linear", "linear_backward_input", "linear_backward_weight")


class Layer(NamedTuple):
    """What a product of a fully connected layer depends on. bias: whether y has one."""

    rows: int
    inputs: int
    outputs: int
    bias: bool = False


class Line(NamedTuple):
    """What builders read of a problem, for one image of a line of pixels and a kernel of one tap."""

    size: tuple
    C: int
    K: int
    N = groups = taps = 1
    kernel = stride = dilation = (1, 1, 1)
    pad_low = (0, 0, 0)

    @property
    def out(self):
        return self.size


def _axes(pixels):
    return geometry.forward(Line((1, 1, pixels), 1, 1))


def _image(name, pixels, channels, turned=False):
    """View of a matrix (pixels, channels), or of (channels, pixels) if turned, as an image of one line."""
    whole = pixels * channels
    strides = (whole, pixels, whole, whole, 1) if turned else (whole, 1, whole, whole, channels)
    return View(Pointer(name), channels, strides, (1, 1, pixels))


def _matrix(pointer, rows, columns, turned=False):
    """A `Weight` (rows, columns), or one that lies as (columns, rows) if turned."""
    strides = (1, rows) if turned else (columns, 1)
    return Weight(pointer, rows, columns, *strides, (1, 1, 1), truncated=True)


def _turned(build, name, rows, columns, dtype, unit):
    """Pointer to a copy (columns, rows rounded up to `unit`) of the matrix `name` (rows, columns), and the
    rounded number.
    """
    rounded, side = unit * ceil_div(rows, unit), 32 if BYTES[dtype] == 4 else 64
    out = build.scratch("turned", columns * rounded * BYTES[dtype])
    build.launch(
        layout.channels_last(dtype, BYTES[dtype] == 2 and columns % 2 == 0),
        (ceil_div(columns, side), ceil_div(rounded, side), 1),
        Pointer(name), out, rows, columns, rounded, 0, columns,
    )  # fmt: skip
    return out, rounded


def program(name, direction, layer, dtype, multiprocessors=SMS):
    """The Program of an algorithm of `select`; dtype: what its products are of. Raises Refused."""
    if min(layer.rows, layer.inputs, layer.outputs) < 1:
        raise convolution.Refused("needs arrays that are not empty")
    if direction == "linear_backward_weight":
        return _weight_gradient(name, layer, dtype)
    backward = direction == "linear_backward_input"
    source, target = ("dy", "dx") if backward else ("x", "y")
    rows, length, width = layer.rows, layer.inputs, layer.outputs  # y (rows, width), sums of so many terms
    if backward:
        length, width = width, length
    bias = Pointer("bias") if layer.bias and not backward else None
    if name == "ffma" and _thin(rows, width) and length % 4 == width % 4 == 0:
        return _few_rows(source, target, rows, width, length, backward, bias)
    build = Builder()
    if name == "wgmma_3xtf32":
        # what lies in shared memory has to be split in advance: the activations, which are fewer
        product = Sum(
            [_axes(width)], 1, _image("weight", width, length, backward), _image(target, width, rows, True),
            _matrix(Pointer(source), rows, length), bias, None, "position",
        )  # fmt: skip
        return convolution.wgmma([product], dtype, build=build, multiprocessors=multiprocessors)
    weight = _matrix(Pointer("weight"), width, length, backward)
    if name == "ffma" and not backward:
        copy, _ = _turned(build, "weight", width, length, "f32", 4)
        # columns beyond `width` are zeros, and multiplied by nothing
        weight = weight._replace(pointer=copy, s_row=1, s_column=4 * ceil_div(width, 4))
    elif backward and name.startswith(("mma", "wgmma_tf32")):
        storage = "f32" if dtype == "tf32" else dtype
        unit = igemm_sm80.tile_channels(dtype)
        copy, rounded = _turned(build, "weight", length, width, storage, unit)
        weight = weight._replace(pointer=copy, columns=rounded, s_row=rounded, s_column=1)
    product = Sum(
        [_axes(rows)], 1, _image(source, rows, length), _image(target, rows, width), weight, bias, None
    )  # fmt: skip
    if name == "ffma":
        return convolution.ffma([product], build=build)
    if name.startswith("wgmma"):
        return convolution.wgmma([product], dtype, build=build, multiprocessors=multiprocessors)
    return convolution.mma([product], dtype, build=build)


def _thin(rows, width):
    """Whether the tiles of `gemm_f32` would leave most of the device idle."""
    tiles = ceil_div(rows, gemm_f32.TILE) * ceil_div(width, gemm_f32.TILE)
    return rows <= thin_f32.ROWS or rows <= gemm_f32.TILE and tiles * 4 <= SMS


def _few_rows(source, target, rows, width, length, turned, bias):
    build = Builder()
    a_warp = next((n for n in (1, 2) if rows <= thin_f32.WARPS * n), 4)
    convolution.indexable(width * length, rows * length, rows * width)
    build.launch(
        thin_f32.kernel(a_warp, turned, bias is not None),
        (ceil_div(width, thin_f32.COLUMNS), ceil_div(rows, thin_f32.WARPS * a_warp)),
        Pointer(source), Pointer("weight"), Pointer(target), *([bias] if bias else []), rows, width, length,
        length, width if turned else length, width,
    )  # fmt: skip
    return build.program()


def _weight_gradient(name, layer, dtype):
    views = _image("x", layer.rows, layer.inputs), _image("dy", layer.rows, layer.outputs)
    line = Line((1, 1, layer.rows), layer.inputs, layer.outputs)
    if name == "ffma":
        return convolution.ffma_weight(line, *views)
    made = convolution.wgmma_weight if name == "wgmma" else convolution.mma_weight
    return made(line, *views, dtype)
