"""What the rooms of the compiled backend share about arrays: where results come from, and plain copies.

Every result is made by `empty` (or `zeros`). Small ones are np.empty's. Large ones live in 64-byte aligned blocks, on huge pages where the system has them, that are
reused once the array and all views of it are gone: a fresh large array costs the system a page fault for every page, which takes longer than many a kernel does.
They are ordinary arrays in every other respect: they own their data, may be resized and pickled, and tracemalloc sees them. See `_config.KEEP_BYTES` for how much
is kept idle.
"""

import numpy as np

from .. import _config
from . import isa

LARGE = 1 << 18  # bytes from which reuse pays: below it malloc itself reuses what it has

_memory = isa.memory()
_memory.keep_results(_config.KEEP_BYTES, LARGE)


empty = _memory.empty  # (shape, dtype) -> a fresh C-contiguous array, its values undefined. MemoryError when the system refuses


def zeros(shape, dtype):
    """The same, full of zeros."""
    array = empty(shape, dtype)
    array[...] = 0
    return array


def like(array, shape=None):
    """A fresh array with the shape (unless given) and the dtype of another, in native byte order."""
    return empty(array.shape if shape is None else shape, array.dtype.newbyteorder("="))


def plain(array, dtype):
    """The array, or a copy of it: of dtype, C-contiguous, native and aligned. None stays None."""
    if array is None:
        return None
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.aligned else array.copy()
