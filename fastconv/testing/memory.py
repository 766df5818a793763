"""Arrays next to pages that must not be touched: who reads or writes outside ends the process there and then.

Works where the system has mprotect; elsewhere the arrays are ordinary ones and nothing is guarded (`GUARDS`).
"""

import ctypes
import mmap

import numpy as np

from .arrays import poisoned

PAGE = mmap.PAGESIZE

try:
    _mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    _mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    _PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
except (OSError, AttributeError, TypeError):  # Windows
    _mprotect, _PRIVATE = None, {}

GUARDS = _mprotect is not None
"""Whether this system can protect pages."""


def _pages(size, writable=True):
    """`size` bytes rounded up to pages, poisoned; a forbidden page lies in front of them and one behind."""
    size = max(-(-size // PAGE), 1) * PAGE
    pages = mmap.mmap(-1, size + 2 * PAGE, **_PRIVATE)
    memory = np.frombuffer(pages, np.uint8)
    memory[:] = 0xFF  # NaN
    memory = memory[PAGE : PAGE + size]
    address = memory.ctypes.data
    if GUARDS:
        for page in (address - PAGE, address + size):
            if _mprotect(page, PAGE, 0):  # PROT_NONE
                raise OSError(ctypes.get_errno(), "mprotect")
    return memory


def guarded(array, side="end"):
    """A copy of `array` with the same values, strides, alignment and flags that touches a forbidden page.

    side: "end": the byte behind its last lies in a page that can be neither read nor written; "start": the
    byte in front of its first does. Unaligned arrays keep their distance from an aligned address, which
    leaves a gap of less than an element. Bytes between the elements of a strided array are NaN.
    """
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides)] if array.size else []
    below = -sum(r for r in reach if r < 0)  # bytes in front of the first element, of negative strides
    extent = below + sum(r for r in reach if r > 0) + array.itemsize * bool(array.size)
    off = (array.ctypes.data - below) % array.itemsize
    memory = _pages(extent + off)
    start = (len(memory) - extent - off) // array.itemsize * array.itemsize + off if side == "end" else off
    view = np.ndarray(array.shape, array.dtype, memory, start + below, array.strides)
    view[...] = array
    view.flags.writeable = array.flags.writeable
    return view


def guarded_empty(shape, dtype=np.float64):
    """In place of np.empty: poisoned, and the byte behind its last lies in a forbidden page."""
    return guarded(poisoned(shape, dtype))
