"""What the rooms of the compiled backend share about arrays."""

import numpy as np


def plain(array, dtype):
    """The array, or a copy of it: of dtype, C-contiguous, native and aligned. None stays None."""
    if array is None:
        return None
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.aligned else array.copy()
