"""What the rooms of the compiled backend share about arrays: where results come from, and plain copies.

Every result is made by `empty`, `like` or `zeros`. Small ones are np.empty's. Large ones live in 64-byte aligned blocks,
on huge pages where the system has them, that are reused once the array and all views of it are gone: a fresh large
array costs the system a page fault for every page, which takes longer than many a kernel does. They are ordinary arrays
in every other respect: they own their data, may be resized and pickled, and tracemalloc sees them. See
`_config.KEEP_BYTES` for how much is kept idle.
"""

import numpy as np

from .. import _config
from . import isa

LARGE = 1 << 18  # bytes from which reuse pays: below it malloc itself reuses what it has

_memory = isa.memory()
_memory.keep_results(_config.KEEP_BYTES, LARGE)


# Fresh C-contiguous arrays, their values undefined. MemoryError when the system refuses.
empty = _memory.empty  # (shape, dtype)
like = _memory.like  # (array, shape=array.shape): of the dtype of `array`, in native byte order


def zeros(shape, dtype):
    """The same, full of zeros."""
    array = empty(shape, dtype)
    array[...] = 0
    return array


def plain(array, dtype):
    """The array, or a copy of it: of dtype, C-contiguous, native and aligned. None stays None."""
    if array is None:
        return None
    if array.dtype == dtype and array.flags.carray and array.dtype.isnative:
        return array
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.aligned else array.copy()
