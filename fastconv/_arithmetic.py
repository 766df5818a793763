"""What layers, optimisers and training loops do with arrays outside of any operation, wherever these live.

NumPy does it for NumPy arrays; for device arrays of any kind there are kernels, since numba's have no
arithmetic of their own. Arrays of one call live in one place, and so does what comes back. Everything here is
elementwise or moves elements about: the same bits everywhere but for fused multiply-adds on a device.
"""

import contextlib
import importlib

import numpy as np

from . import _arguments as arguments

BLOCK = 1 << 14  # elements of a rule at a time: what it makes in between stays in the cache


def _there(array):
    """The device's functions for an array that lives there, None for one on the host."""
    if isinstance(array, (np.ndarray, np.generic)) or not arguments.on_device(array):
        return None
    importlib.import_module("fastconv.cuda").backend("arithmetic")
    return importlib.import_module("fastconv.cuda._backend.arrays")


def add(a, b, factor=None):
    """a + b, or a + factor * b."""
    there = _there(a)
    if there is not None:
        return there.add(a, b, 1.0 if factor is None else factor)
    return a + b if factor is None else a + factor * b


def concatenate(arrays, axis=0):
    """The arrays one behind the other along an axis."""
    there = _there(arrays[0])
    return np.concatenate(arrays, axis=axis) if there is None else there.concatenate(arrays, axis)


def split(array, sizes, axis):
    """Parts of an array with these sizes along an axis; views on the host."""
    there = _there(array)
    if there is not None:
        return there.split(array, sizes, axis)
    return np.split(array, np.cumsum(sizes)[:-1], axis=axis)


def reshape(array, shape):
    """The array in another shape; a view where its strides allow."""
    there = _there(array)
    return array.reshape(shape) if there is None else there.reshape(array, shape)


def take(array, rows):
    """array[rows], rows an integer array made by `order_like`, or a slice."""
    there = _there(array)
    return array[rows] if there is None or isinstance(rows, slice) else there.take(array, rows)


def order_like(array, rows):
    """Row numbers (int64, in range) where `take(array, ...)` needs them: copied to the device once."""
    there = _there(array)
    return rows if there is None else there.order(array, rows)


def full_like(array, value):
    """An array of the same shape, dtype and place, full of a number."""
    there = _there(array)
    return np.full_like(array, value) if there is None else there.full_like(array, value)


def copy(array):
    """A contiguous copy."""
    there = _there(array)
    return np.array(array, order="C") if there is None else there.copy(array)


def count_right(outputs, classes):
    """How often the first maximum of outputs (N, C) is at the class in `classes` (N,); see `number`."""
    there = _there(outputs)
    if there is None:
        return np.count_nonzero(outputs.argmax(axis=1) == classes)
    return there.count_right(outputs, classes)


def number(value):
    """A scalar as a Python number; of one on a device the host has to wait for it."""
    value = to_host(value)
    return value.item() if hasattr(value, "item") else value


def to_host(array):
    """The array as a NumPy array; of 16 bits as float32, which holds the same numbers."""
    if _there(array) is None:
        return array
    return importlib.import_module("fastconv.cuda").to_host(cast(array, computed(array)))


def is_short(array):
    """Whether the elements are floats of 16 bits that live on a device: a host computes with none."""
    return _there(array) is not None and arguments.is_half(dtype(array))


def computed(array):
    """NumPy's dtype in which the elements are computed with: float32 for those of 16 bits."""
    return np.dtype(np.float32) if is_short(array) else dtype(array)


def cast(array, to):
    """The array in another float dtype, one of NumPy's or a name; itself if it has it. Rounded to nearest."""
    if dtype(array).name == getattr(to, "name", to):
        return array
    there = _there(array)
    return array.astype(to) if there is None else there.cast(array, to)


def dtype(array):
    """NumPy's dtype of the elements, or the one of 16 bits that it lacks."""
    return arguments.native_dtype(arguments.dtype_char(array))


def kind(array):
    """The kind of the elements, as NumPy's letters name it: "f", "i", "u", "b"."""
    return dtype(array).kind


def like(array, host):
    """A host array where another one lives: itself, or copied to the device."""
    return host if _there(array) is None else importlib.import_module("fastconv.cuda").to_device(host)


def deferred_checks(array):
    """`fastconv.cuda.deferred_checks` for arrays on a device; nothing on the host, where checks are free."""
    if _there(array) is None:
        return contextlib.nullcontext()
    return importlib.import_module("fastconv.cuda").deferred_checks()


# -- rules: an update of some arrays, element by element, written once for the host and the device -----------


def apply(rule, changed, read=(), numbers=(), decay=0.0, rounded=None):
    """changed = rule(*changed, *read, *numbers), element by element and in place.

    rule: a function of as many numbers, made of + - * / and `sqrt`, that returns a tuple: the new values of
        the arrays to be changed. It names nothing else, and no integer literal, which on a device would make
        float64 of float32. On the host it gets pieces of the arrays, on a device single elements.
    changed, read: arrays of one shape and dtype; numbers: Python numbers, used in that dtype.
    decay: if not 0, decay * changed[0] is added to read[0] before.
    rounded: on a device, an array of 16 bits that is changed[0] rounded, before and after; where it was
        changed in between, it counts. The arrays to be read may then have 16 bits too.
    """
    there = _there(changed[0])
    if there is not None:
        there.apply(rule, changed, read, numbers, decay, rounded)
        return
    if decay:
        read = [add(read[0], changed[0], float(decay)), *read[1:]]
    numbers = [float(n) for n in numbers]
    arrays = (*changed, *read)
    if changed[0].size <= BLOCK or not all(a.flags.c_contiguous for a in arrays):
        for array, value in zip(changed, rule(*arrays, *numbers)):
            array[...] = value
        return
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, changed[0].size, BLOCK):
        part = [a[start : start + BLOCK] for a in flat]
        for array, value in zip(part, rule(*part, *numbers)):
            array[...] = value
