"""Tensor maps: what the TMA unit is told about an array, checked against the limits that the CUDA driver
documents.

Sizes, strides and boxes are listed from the fastest axis, as the driver wants them. Pure values: `_driver`
encodes them, the emulator in ``tests/emulator`` interprets them. Limits are those of
cuTensorMapEncodeIm2col and cuTensorMapEncodeTiled.
"""

from typing import NamedTuple

from .gen.kernel import BYTES

CORNERS = {2: (-128, 127), 3: (-16, 15)}  # of the im2col box, by spatial rank
OFFSETS = {2: 255, 3: 31}  # of a tap, by spatial rank (8 and 5 bits)
TRAVERSAL, PIXELS, CHANNELS, BOX = 8, 1024, 256, 256
SIZE = 2**32  # of an axis
STRIDE = 2**40  # bytes


class Tile(NamedTuple):
    """A 2-d array (rows, columns) read in boxes; rows `stride` bytes apart; 128-byte swizzle, zeros
    outside.
    """

    address: int
    dtype: str
    columns: int
    rows: int
    stride: int
    box: tuple  # (columns, rows)

    def refused(self):
        """Why the TMA unit cannot read this, or None."""
        if self.box[0] * BYTES[self.dtype] > 128:
            return f"a box row of {self.box[0]} {self.dtype} exceeds the 128 bytes of the swizzle"
        if max(self.box) > BOX:
            return f"box {self.box} exceeds {BOX}"
        return _common(self.address, (self.columns, self.rows), (self.stride,))


class Im2col(NamedTuple):
    """A channels-last image stack (N, *spatial, C) read as columns: `pixels` positions x `channels`, at a
    tap's offset.

    Positions walk along each axis from `lower` by `traversal` while they stay below size + `upper`.
    """

    address: int
    dtype: str
    sizes: tuple  # (C, W, H[, D], N)
    strides: tuple  # bytes, of W, H[, D], N
    lower: tuple  # (w, h[, d])
    upper: tuple
    traversal: tuple
    pixels: int
    channels: int

    def refused(self):
        """Why the TMA unit cannot read this, or None."""
        rank = len(self.lower)
        low, high = CORNERS[rank]
        if not all(low <= c <= high for c in (*self.lower, *self.upper)):
            return f"im2col corners {self.lower}, {self.upper} leave [{low}, {high}]"
        if max(self.traversal) > TRAVERSAL:
            return f"needs a stride of at most {TRAVERSAL}, got {max(self.traversal)}"
        if self.pixels > PIXELS or self.channels > CHANNELS:
            return f"an im2col box of {self.pixels} x {self.channels} exceeds {PIXELS} x {CHANNELS}"
        return _common(self.address, self.sizes, self.strides)


def _common(address, sizes, strides):
    if address % 16:
        return f"needs an address that is a multiple of 16 bytes, got {address % 16} beyond one"
    if not all(1 <= s <= SIZE for s in sizes):
        return f"sizes {sizes} leave [1, {SIZE}]"
    if any(s % 16 or not 0 < s < STRIDE for s in strides):
        return f"needs strides that are multiples of 16 bytes, got {strides}"
    return None
