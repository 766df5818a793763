"""Arrays to test with: their values (exact, real, special), their layout in memory, and poison."""

import math

import numpy as np

LAYOUTS = ("contiguous", "channels_last", "negative", "sliced", "fortran", "readonly", "unaligned", "swapped")


def lay_out(array, layout):
    """Equal to `array`, its strides, flags or byte order as named."""
    if layout == "contiguous" or array.ndim == 0:
        return array
    if layout == "channels_last":  # NHWC seen through a transpose
        axis = 1 if array.ndim > 2 else 0
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, axis, -1)), -1, axis)
    if layout == "negative":
        flip = (slice(None, None, -1),) * array.ndim
        return np.ascontiguousarray(array[flip])[flip]
    if layout == "sliced":
        larger = poisoned(tuple(2 * size + 3 for size in array.shape), array.dtype)
        view = larger[tuple(slice(2, 2 + 2 * size, 2) for size in array.shape)]
        view[...] = array
        return view
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "readonly":
        copy = array.copy()
        copy.flags.writeable = False
        return copy
    if layout == "unaligned":
        memory = np.zeros(array.nbytes + 1, np.uint8)
        view = memory[1:].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    if layout == "swapped":
        return array.astype(array.dtype.newbyteorder("S"))
    raise ValueError(f"lay_out: layout {layout!r}, need one of {', '.join(LAYOUTS)}")


def poisoned(shape, dtype):
    """A new array of NaN, or of 0xA5 bytes where there is no NaN: what no kernel may leave or use."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return np.full(shape, np.nan, dtype)
    return (
        np.full(math.prod(np.atleast_1d(shape)) * dtype.itemsize, 0xA5, np.uint8).view(dtype).reshape(shape)
    )


def exact_inputs(rng, shape):
    """Integers between -4 and 4 as float64: sums of products of them are exact in float32 too, below 2^24."""
    return rng.integers(-4, 5, shape).astype(np.float64)


def real_inputs(rng, shape):
    """Normal random numbers, float64."""
    return rng.standard_normal(shape)


def special_inputs(rng, shape):
    """Normal random numbers, one in eight replaced by NaN, inf, -inf, 0 or -0."""
    array = np.asarray(rng.standard_normal(shape))
    some = rng.random(shape) < 1 / 8
    return np.where(some, rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape), array)


DRAW = {"exact": exact_inputs, "real": real_inputs, "special": special_inputs}
