"""The device: whether there is one, moving arrays, and the public operations bound to it.

The functions here are those of `fastconv`, on arrays that live on a GPU: those of `to_device`, numba's,
CuPy's, torch's, and anything else with `__cuda_array_interface__` or DLPack. Results are arrays of the
caller's own kind, and work is queued on the caller's current stream. Nothing is copied to or from the host
silently; a loss is an array without axes on the device (``float(fc.cuda.to_host(loss))``).

Besides float32 and float64 they take float16 and bfloat16 (torch's, arrays with the dtype of ml_dtypes, or
what ``to_device(a, "bfloat16")`` makes: NumPy has none). Results have the dtype of the inputs; all
arithmetic is float32's, and every result is rounded once, to nearest. Convolutions and the fully connected
layer run on tensor cores ("wgmma", "mma") where these hold the problem, through copies in float32 where
not; all else reads and writes 16 bits as they are. ``model.to("cuda", "bfloat16")`` trains so: statistics
stay float32, and optimisers keep float32 masters of parameters (see `fastconv.optim`). Gradients are not
scaled, so that those of float16 below 6e-8 are lost; bfloat16 has float32's range.

A warm call launches and allocates in the order of its stream, and does nothing else: it waits for nothing,
reads nothing back outside of checks (see `deferred_checks`), and can be recorded in a CUDA graph. What a
kernel makes of a weight is not kept from call to call: nothing tells reliably that an array was not written
to since (neither protocol has a version, and torch's does not see other libraries), and a stale copy would
be a wrong result; packing costs a pass over the weight. Kernels are compiled once, and kept on disk
(`_cache`, the folder FASTCONV_CUDA_CACHE).

numba is imported when the first array is on a device, or when one asks for the device, not before.

Promises on the device: the same inputs give the same bits on one kind of device, whatever their strides; what
is not finite stays within the sums that contain it; a sample's y and dx do not depend on the other samples of
its batch. Targets and indices are range-checked by the kernels that use them; see `deferred_checks` for what
raising the ValueError at once costs.
"""

import ctypes
import importlib.util
import os
import sys

from .. import _arguments as arguments
from .. import functional
from .._errors import DeviceError

__all__ = [*functional.__all__, "deferred_checks", "is_available", "synchronize", "to_device", "to_host"]

_functions = None  # the backend, once arrays needed it
_available = False  # once a device was found, it is not asked for again


def is_available():
    """Whether numba.cuda can be imported and reports a GPU."""
    return _missing() is None


def to_device(a, dtype=None):
    """A host array as an array on the device (`_device_array.DeviceArray`: shape, strides, dtype, views,
    `__cuda_array_interface__`, DLPack); an array on a device as it is.

    a: float, integer or bool; any strides and byte order. dtype: "float16", "bfloat16", "float32" or
    "float64" for floats in another dtype, converted on the device and rounded to nearest; bfloat16, which
    NumPy lacks, is kept as two bytes then. Raises TypeError (kinds, dtypes) and DeviceError when there is no
    GPU.
    """
    _need_device("to_device")
    there = _load("_arrays").to_device(a)
    return there if dtype is None else _load("_backend.arrays").cast(there, dtype)


def to_host(a):
    """A device array of any kind as a NumPy array; waits for the work that is queued on its stream.

    Raises TypeError (kinds) and DeviceError when there is no GPU.
    """
    _need_device("to_host")
    return _load("_arrays").to_host(a)


def synchronize():
    """Wait until the GPU has finished its work. Raises DeviceError when there is none."""
    _need_device("synchronize")
    _load("_arrays").synchronize()


def deferred_checks():
    """``with fc.cuda.deferred_checks():`` looks at targets and indices at the end of the block.

    Losses check their class indices, and the gradients of maxima their indices, on the device. To raise the
    ValueError from the very call, the host has to wait for it and to copy 8 bytes: some tens of microseconds
    a call, and a device that runs out of work meanwhile. In a training loop, hold the checks back for a
    number of steps; when one fails, the ValueError comes at the end of the block, and the calls inside have
    left the wrong samples out (loss and gradient 0; for indices, nothing added). Of the calling thread only.
    Needed around whatever is captured in a CUDA graph.
    """
    _need_device("deferred_checks")
    return _load("_checks").deferred_checks()


def backend(op, *arrays):
    """The device's backend module for a call; raises DeviceError without a GPU or for arrays on the host.

    A plan looks at shapes alone, and may be had for arrays that are on the host as yet.
    """
    for array in arrays:
        if type(array) not in arguments.DEVICE_TYPES and array is not None:
            break
    else:
        if _functions is not None:
            return _functions
    _need_device(op)
    if op != "plan":
        _load("_arrays").need_device_arrays(op, arrays)
    return _loaded()


def _loaded():
    """The backend's functions, kept once they were needed."""
    global _functions
    if _functions is None:
        _functions = _load("_backend")
    return _functions


def _load(room):
    return importlib.import_module(f"fastconv.cuda.{room}")


def _missing():
    """Why no GPU can be used, or None."""
    global _available
    if _available:
        return None
    if (
        "numba" not in sys.modules
        and importlib.util.find_spec("numba") is not None
        and not _may_have_device()
    ):
        return "numba.cuda needs a driver, and there is none"
    try:
        from numba import cuda
    except Exception as error:  # a broken driver or a half installed package is as good as none
        return f"numba.cuda cannot be imported: {type(error).__name__}"
    try:
        _available = bool(cuda.is_available())
    except Exception as error:
        return f"numba.cuda fails: {type(error).__name__}"
    return None if _available else "numba.cuda reports none"


def _may_have_device():
    """Whether it is worth a second to import numba: a driver is there, or numba is told of something."""
    if any(
        os.environ.get(name, "0") not in ("", "0") for name in ("NUMBA_ENABLE_CUDASIM", "NUMBA_CUDA_DRIVER")
    ):
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _need_device(op):
    missing = _missing()
    if missing is not None:
        raise DeviceError(f"{op}: no CUDA device ({missing})")


globals().update(functional.bound(__name__, backend))
