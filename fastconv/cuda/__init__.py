"""The device: whether there is one, moving arrays, and the public operations bound to it.

This version of fastconv has no GPU kernels yet. `is_available` tells truthfully whether numba.cuda sees a
GPU; everything else raises DeviceError and says which of the two is missing.
"""

from .. import functional
from .._errors import DeviceError

__all__ = [*functional.__all__, "is_available", "to_device", "to_host", "synchronize"]


def is_available():
    """Whether numba.cuda can be imported and reports a GPU."""
    return _missing() is None


def to_device(a):
    """Copy a host array to the GPU. Raises DeviceError when there is none."""
    raise _no_device("to_device")


def to_host(a):
    """Copy a device array to a NumPy array. Raises DeviceError when there is no GPU."""
    raise _no_device("to_host")


def synchronize():
    """Wait until the GPU has finished its work. Raises DeviceError when there is none."""
    raise _no_device("synchronize")


def backend(op, *arrays):
    """The device's backend module for a call; raises DeviceError as long as there is none."""
    raise _no_device(op)


def _missing():
    """Why no GPU can be used, or None."""
    try:
        from numba import cuda
    except Exception as error:  # a broken driver or a half installed package is as good as none
        return f"numba.cuda cannot be imported: {type(error).__name__}"
    try:
        return None if cuda.is_available() else "numba.cuda reports none"
    except Exception as error:
        return f"numba.cuda fails: {type(error).__name__}"


def _no_device(op):
    missing = _missing()
    if missing is not None:
        return DeviceError(f"{op}: no CUDA device ({missing})")
    return DeviceError(f"{op}: there is a CUDA device, but this version of fastconv has no GPU kernels yet")


globals().update(functional.bound(__name__, backend))
