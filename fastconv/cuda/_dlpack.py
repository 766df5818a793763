"""DLPack in both directions: the facts of an array out of a capsule, and a capsule of a device array."""

import ctypes

import numpy as np

from .. import _arguments as arguments
from .._arguments import BFLOAT16
from .._errors import DeviceError


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class Tensor(ctypes.Structure):
    """The struct of dlpack.h, which begins the managed tensor of a capsule named "dltensor"."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # kDLInt, kDLUInt, kDLFloat, kDLBool
BFLOAT = 4
CODES = {kind: code for code, kind in KINDS.items()}
NAME = b"dltensor"  # of a capsule that nobody has consumed

pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def described(op, array):
    """(pointer, shape, strides, dtype, device) of an array that has DLPack alone.

    The capsule is looked at and dropped; the array itself, which the call holds, keeps the memory. Work that
    its library has queued is ordered before the default stream, as the protocol's stream=1 asks.
    """
    capsule = array.__dlpack__(stream=1)
    tensor = Tensor.from_address(pointer_of(capsule, NAME))
    if tensor.device.type not in arguments.DLPACK_CUDA:
        raise DeviceError(f"{op}: DLPack names device type {tensor.device.type}, need CUDA")
    itemsize = tensor.dtype.bits // 8
    if tensor.dtype.code == BFLOAT and itemsize == 2:
        dtype = BFLOAT16
    elif tensor.dtype.code in KINDS and tensor.dtype.lanes == 1:
        dtype = np.dtype(f"{KINDS[tensor.dtype.code]}{itemsize}")
    else:
        raise TypeError(f"{op}: DLPack names dtype code {tensor.dtype.code} of {tensor.dtype.bits} bits")
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        strides = tuple(step * itemsize for step in tensor.strides[: tensor.ndim])
    else:
        strides = arguments.contiguous_strides(shape, itemsize)
    pointer = (tensor.data or 0) + tensor.byte_offset
    return pointer, shape, strides, dtype, tensor.device.id if 0 not in shape else None


# -- capsules ------------------------------------------------------------------------------------------------

_alive = {}  # address of a managed tensor -> it and what it points to, until its consumer is done with it


@_Deleter
def _delete(address):
    _alive.pop(address, None)


_name_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_dying_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


@_Deleter
def _drop(capsule):
    """A capsule dies; one that was consumed has another name, and its consumer calls the deleter."""
    if _name_is(capsule, NAME):
        _delete(_dying_pointer(capsule, NAME))


_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Deleter)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def capsule(array):
    """A capsule named "dltensor" of a `DeviceArray`, which it keeps alive."""
    ndim, itemsize = array.ndim, array.itemsize
    shape = (ctypes.c_int64 * ndim)(*array.shape)
    strides = (ctypes.c_int64 * ndim)(*(step // itemsize for step in array.strides))
    code = BFLOAT if array.dtype is BFLOAT16 else CODES[array.dtype.kind]
    made = Managed(
        Tensor(
            array.pointer, Device(*array.__dlpack_device__()), ndim, DataType(code, 8 * itemsize, 1), shape,
            strides, 0,
        ),
        None, _delete,
    )  # fmt: skip
    address = ctypes.addressof(made)
    _alive[address] = made, shape, strides, array
    return _new(address, NAME, _drop)
