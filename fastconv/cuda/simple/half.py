"""Between the floats of 16 bits and float32: kernels that change the dtype and nothing else.

float16 is converted by the hardware; bfloat16, the upper half of a float32, by its bits, as numba's kernels
take no arrays of it. To 16 bits is rounded to nearest, ties to even; what is too large becomes an infinity,
NaN stays NaN. Arrays are contiguous.
"""

import numpy as np
from numba import cuda

from .. import _arrays
from .launch import kernel


@kernel
def _cast(x, y):
    """y = x in the dtype of y: float16 from float32, or the reverse."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = y.dtype.type(x[i])


@kernel
def _widen_bits(x, y):
    """The bits of float32 numbers (uint32) from those of bfloat16 (uint16): zeros below."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = int(x[i]) << 16


@kernel
def _narrow_bits(x, y):
    """The bits of bfloat16 numbers from those of float32; a NaN is made quiet, lest it become an infinity."""
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        bits = int(x[i])
        if bits & 0x7FFFFFFF > 0x7F800000:
            y[i] = (bits >> 16) | 0x40
        else:
            y[i] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def widen(call, x, y):
    """y (float32) = x (16 bits)."""
    if x.dtype is _arrays.BFLOAT16:
        _widen_bits.launch(call, y.size, x.bits().flat(), y.bits(np.uint32).flat())
    else:
        _cast.launch(call, y.size, x.flat(), y.flat())


def narrow(call, x, y):
    """y (16 bits) = x (float32), rounded."""
    if y.dtype is _arrays.BFLOAT16:
        _narrow_bits.launch(call, y.size, x.bits(np.uint32).flat(), y.bits().flat())
    else:
        _cast.launch(call, y.size, x.flat(), y.flat())
