"""Arrays on a device, whoever made them: where they lie, on which stream their owner works, how to make more.

`Array` is what kernels and their launchers see: an address, a shape, strides, a dtype, a device. `Call` turns
the arrays of one call into that, makes sure that they share a device, and allocates results as arrays of the
kind that the caller uses (torch, CuPy, numba), on the caller's current stream, from the pool that the
caller's library keeps. Nothing is ever copied to or from the host here but by `to_device` and `to_host`.

Kinds differ in three things only (see `_Kind`): how an array tells its memory, how a new one is made, what
the current stream is. Whatever has `__cuda_array_interface__` or DLPack and is none of the three known kinds
is read through that protocol; its results are made by numba and handed to its library's `from_dlpack`, or
returned as numba arrays where it has none.
"""

import ctypes
import math
import sys

import numpy as np
from numba import cuda
from numba.core import config

from .. import _arguments as arguments
from .._errors import DeviceError, UnsupportedError

SIMULATOR = bool(config.ENABLE_CUDASIM)
DEFAULT_STREAM = (
    2 if getattr(config, "CUDA_PER_THREAD_DEFAULT_STREAM", 0) else 1
)  # numba's, as CUDA numbers them
BFLOAT16 = arguments.BFLOAT16  # NumPy has none; simple kernels see such arrays by their bits alone
UINT16 = np.dtype(np.uint16)


class Array:
    """An array on a device.

    pointer: address of its first element (0 if it has none); shape, strides (in bytes): tuples; dtype: a
    native np.dtype, or BFLOAT16; device: ordinal, None for an array without elements; owner: what keeps the
    memory alive, for a result the very array that the caller gets.
    """

    __slots__ = ("pointer", "shape", "strides", "dtype", "device", "owner", "_argument")

    def __init__(self, pointer, shape, strides, dtype, device, owner):
        self.pointer, self.shape, self.strides = pointer, shape, strides
        self.dtype, self.device, self.owner = dtype, device, owner
        self._argument = None

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def itemsize(self):
        return self.dtype.itemsize

    @property
    def contiguous(self):
        """Whether the elements lie one behind the other, in C order."""
        step = self.itemsize
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1 and stride != step and 0 not in self.shape:
                return False
            step *= size
        return True

    def view(self, shape, strides=None):
        """The same memory in another shape; without strides it must be contiguous."""
        if strides is None:
            strides = arguments.contiguous_strides(shape, self.itemsize)
        return Array(self.pointer, tuple(shape), tuple(strides), self.dtype, self.device, self.owner)

    @property
    def T(self):
        """With the last two axes exchanged."""
        order = (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)
        return self.view([self.shape[a] for a in order], [self.strides[a] for a in order])

    def bits(self, dtype=UINT16):
        """The same memory as unsigned integers of the size of its elements."""
        return Array(self.pointer, self.shape, self.strides, np.dtype(dtype), self.device, self.owner)

    def moved(self, distance):
        """An array of this shape that begins so many bytes further on in the same memory."""
        made = self.view(self.shape, self.strides)
        made.pointer += distance
        return made

    def part(self, start, length):
        """A part of one axis."""
        return self.view((length,), self.strides).moved(start * self.strides[0])

    def flat(self):
        """A contiguous array as one axis."""
        return self.view((self.size,))

    def spread(self, shape):
        """The array as it broadcasts to a shape: strides of 0 along what is repeated."""
        lead = len(shape) - self.ndim
        strides = (0,) * lead + tuple(
            0 if mine == 1 else stride for mine, stride in zip(self.shape, self.strides)
        )
        return self.view(shape, strides)

    def _described(self):
        return {
            "data": (self.pointer, False),
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "version": 3,
        }

    def argument(self):
        """The array as numba's kernels take it."""
        if self._argument is None:
            self._argument = cuda.from_cuda_array_interface(self._described(), self.owner, sync=False)
        return self._argument

    def memory(self):
        """The array as a NumPy array: in the simulator, where the memory is the host's."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.asarray(_Described(self._described(), self.owner))


class _Described:
    """Memory that NumPy can look at, and what keeps it."""

    def __init__(self, described, owner):
        self.__array_interface__, self.owner = described, owner


# -- kinds of arrays -----------------------------------------------------------------------------------------


class _Kind:
    """How one library's arrays are read and made. Methods get an array of that library to start from."""

    def describe(self, op, array):
        """(pointer, shape, strides, dtype, device)."""
        memory = arguments.device_memory(array)
        if memory is None:
            return _from_dlpack(op, array)
        pointer, shape, strides, _, _ = memory
        told = getattr(array, "__cuda_array_interface__", None)
        if told is not None and told.get("mask") is not None:
            raise TypeError(f"{op}: an array on the device has a mask, and masks are not honoured")
        dtype = _dtype(op, array.dtype if told is None else told["typestr"])
        return pointer, shape, strides, dtype, _device_of(pointer) if 0 not in shape else None

    def empty(self, like, shape, dtype, device):
        with on_device(device):
            return self.convert(like, cuda.device_array(shape, _numpy_dtype(like, dtype)))

    def convert(self, like, made):
        """A numba array as one of this kind."""
        library = sys.modules.get(type(like).__module__.partition(".")[0])
        make = getattr(library, "from_dlpack", None) or getattr(type(like), "from_dlpack", None)
        return made if make is None or SIMULATOR else make(made)

    def stream(self, array, device):
        """Handle of the stream on which the caller's work is queued; 1 and 2 are CUDA's default streams."""
        told = getattr(array, "__cuda_array_interface__", {})
        handle = told.get("stream")
        return DEFAULT_STREAM if handle is None else int(handle)


class _Numba(_Kind):
    """numba's device arrays, and those of its simulator."""

    def describe(self, op, array):
        if 0 in array.shape:
            device = None
        else:
            device = 0 if SIMULATOR else array.gpu_data.context.device.id
        pointer = array.ctypes.data if SIMULATOR else _address(array)
        return pointer, tuple(array.shape), tuple(array.strides), _dtype(op, array.dtype), device

    def convert(self, like, made):
        return made

    def stream(self, array, device):
        bound = 0 if SIMULATOR else _handle(getattr(array, "stream", 0))
        return bound or DEFAULT_STREAM


class _Torch(_Kind):
    """torch.Tensor on "cuda"."""

    def describe(self, op, array):
        name = str(array.dtype).removeprefix("torch.")
        dtype = BFLOAT16 if name == BFLOAT16.name else _dtype(op, name)
        strides = tuple(step * array.element_size() for step in array.stride())
        device = array.device.index if array.numel() else None
        return array.data_ptr(), tuple(array.shape), strides, dtype, device

    def empty(self, like, shape, dtype, device):
        import torch

        name = dtype.name
        return torch.empty(shape, dtype=getattr(torch, name), device=torch.device("cuda", device))

    def stream(self, array, device):
        import torch

        return torch.cuda.current_stream(device).cuda_stream or 1  # 0 is the legacy default stream


class _Cupy(_Kind):
    """cupy.ndarray."""

    def describe(self, op, array):
        device = array.device.id if array.size else None
        return array.data.ptr, tuple(array.shape), tuple(array.strides), _dtype(op, array.dtype), device

    def empty(self, like, shape, dtype, device):
        import cupy

        with cupy.cuda.Device(device):
            return cupy.empty(shape, _numpy_dtype(like, dtype))

    def stream(self, array, device):
        import cupy

        with cupy.cuda.Device(device):
            return cupy.cuda.get_current_stream().ptr or 1  # 0 is the legacy default stream


_NUMBA, _OTHER = _Numba(), _Kind()
_BY_MODULE = {"torch": _Torch(), "cupy": _Cupy()}


def kind_of(array):
    """The kind that an array on a device is of."""
    if getattr(array, "__cuda_ndarray__", False) is True:
        return _NUMBA
    return _BY_MODULE.get(type(array).__module__.partition(".")[0], _OTHER)


def _dtype(op, dtype):
    dtype = np.dtype(dtype)
    if not dtype.isnative:
        raise TypeError(f"{op}: an array on the device has dtype {dtype.str}, need the native byte order")
    bfloat16 = dtype.names is None and dtype.str[1:] == "V2"  # how torch and ml_dtypes write it
    return BFLOAT16 if bfloat16 else dtype


def _numpy_dtype(like, dtype):
    """A dtype that a library with NumPy's dtypes can allocate: for bfloat16 that of the caller's array."""
    if dtype is not BFLOAT16:
        return dtype
    own = getattr(like, "dtype", None)
    if isinstance(own, np.dtype) and _dtype("", own) is BFLOAT16:
        return own
    raise UnsupportedError(
        f"no array of dtype bfloat16 can be made for one of type {type(like).__name__}"
        " (torch tensors can have it, and arrays with the dtype of ml_dtypes)"
    )


def _address(array):
    """The address of a numba device array, 0 where it has no elements."""
    pointer = array.__cuda_array_interface__["data"][0]
    return 0 if pointer is None else int(pointer)


def _handle(stream):
    """The number behind one of numba's streams."""
    handle = getattr(stream, "handle", stream)
    handle = getattr(handle, "value", handle)
    return 0 if handle is None else int(handle)


def _device_of(pointer):
    """The ordinal of the device that an address belongs to."""
    if SIMULATOR:
        return 0
    from cuda.bindings import driver

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    error, device = driver.cuPointerGetAttribute(attribute, pointer)
    if int(error) != 0:
        raise DeviceError(
            f"an array names the address {pointer:#x}, which is on no CUDA device ({error.name})"
        )
    return int(device)


# -- DLPack: the same facts out of a capsule -----------------------------------------------------------------


class _DLDevice(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DLDataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _DLTensor(ctypes.Structure):
    """The struct of dlpack.h, which begins the managed tensor of a capsule named "dltensor"."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", _DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_DLPACK_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}  # kDLInt, kDLUInt, kDLFloat, kDLBool
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def _from_dlpack(op, array):
    """(pointer, shape, strides, dtype, device) of an array that has DLPack alone.

    The capsule is looked at and dropped; the array itself, which the call holds, keeps the memory. Work that
    its library has queued is ordered before the default stream, as the protocol's stream=1 asks.
    """
    capsule = array.__dlpack__(stream=1)
    tensor = _DLTensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    if tensor.device.type not in arguments.DLPACK_CUDA:
        raise DeviceError(f"{op}: DLPack names device type {tensor.device.type}, need CUDA")
    itemsize = tensor.dtype.bits // 8
    if tensor.dtype.code == 4 and itemsize == 2:
        dtype = BFLOAT16
    elif tensor.dtype.code in _DLPACK_KINDS and tensor.dtype.lanes == 1:
        dtype = np.dtype(f"{_DLPACK_KINDS[tensor.dtype.code]}{itemsize}")
    else:
        raise TypeError(f"{op}: DLPack names dtype code {tensor.dtype.code} of {tensor.dtype.bits} bits")
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        strides = tuple(step * itemsize for step in tensor.strides[: tensor.ndim])
    else:
        strides = arguments.contiguous_strides(shape, itemsize)
    pointer = (tensor.data or 0) + tensor.byte_offset
    return pointer, shape, strides, dtype, tensor.device.id if 0 not in shape else None


# -- a call --------------------------------------------------------------------------------------------------


class Call:
    """The arrays of one call on one device, and what goes with them.

    arrays: an `Array` (or None) for each argument; device: ordinal; stream: handle of the first argument's
    current stream, on which all kernels of the call run. Raises DeviceError when the arrays lie on several
    devices or one of them on the host.
    """

    def __init__(self, op, *arrays):
        self.op = op
        self._like = next(array for array in arrays if array is not None)
        self._kind = kind_of(self._like)
        self.arrays = [None if array is None else describe(op, array) for array in arrays]
        devices = {array.device for array in self.arrays if array is not None} - {None}
        if len(devices) > 1:
            shown = ", ".join(map(str, sorted(devices)))
            raise DeviceError(f"{op}: the arrays live on devices {shown} (nothing is copied silently)")
        self.device = devices.pop() if devices else current_device()
        self.stream = self._kind.stream(self._like, self.device)
        self._wait_for_others(arrays)

    def _wait_for_others(self, arrays):
        """Work that another library has queued for its arrays on another stream comes first."""
        for array in arrays:
            if array is not None and type(array) is not type(self._like):
                other = kind_of(array).stream(array, self.device)
                if other != self.stream and not SIMULATOR:
                    with on_device(self.device):
                        (_numba_stream(other) or cuda.default_stream()).synchronize()

    def empty(self, shape, dtype):
        """A new C-contiguous `Array` of the caller's kind."""
        made = self._kind.empty(self._like, shape, dtype, self.device)
        return describe(self.op, made)

    def scratch(self, shape, dtype):
        """As `empty`, for memory that does not leave the call."""
        return self.empty(shape, dtype)

    def stream_argument(self):
        """The stream as numba's launches take it."""
        return _numba_stream(self.stream)

    def contiguous(self, array):
        """The array itself, or a copy of it that is C-contiguous. None stays None."""
        if array is None or array.contiguous:
            return array
        from .simple import copy

        made = self.scratch(array.shape, array.dtype)
        copy.gather(self, array, made)
        return made


def need_device_arrays(op, arrays):
    """DeviceError unless every array (None aside) lives on a device."""
    for array in arrays:
        if array is not None and not arguments.on_device(array):
            raise DeviceError(
                f"{op}: an array of type {type(array).__name__} lives on the host"
                " (nothing is copied silently: use fc.cuda.to_device)"
            )


def describe(op, array):
    """The `Array` of anything that lives on a device."""
    return Array(*kind_of(array).describe(op, array), array)


def _numba_stream(handle):
    return 0 if SIMULATOR or handle == DEFAULT_STREAM else cuda.external_stream(handle)


def current_device():
    return 0 if SIMULATOR else cuda.get_current_device().id


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return False


_HERE = _Nothing()


def on_device(device):
    """A context in which numba works on a device."""
    return _HERE if SIMULATOR or device == current_device() else cuda.gpus[device]


# -- host and device -----------------------------------------------------------------------------------------


def to_device(a):
    """See `fastconv.cuda.to_device`."""
    op = "to_device"
    if arguments.on_device(a):
        return arguments.any_array(op, "a", a)
    a = arguments.any_array(op, "a", a, scalars=True)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{op}: a has dtype {a.dtype} (need real numbers)")
    plain = np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(a.shape)
    if plain.size == 0:
        return cuda.device_array(plain.shape, plain.dtype)
    return cuda.to_device(plain)


def to_host(a):
    """See `fastconv.cuda.to_host`."""
    op = "to_host"
    if not arguments.on_device(a):
        return arguments.any_array(op, "a", a, scalars=True)
    call = Call(op, arguments.any_array(op, "a", a))
    array = call.contiguous(call.arrays[0])
    dtype = array.dtype
    if dtype is BFLOAT16:
        library = sys.modules.get("ml_dtypes")
        if library is None:
            raise TypeError(
                f"{op}: a has dtype bfloat16, which NumPy lacks"
                " (convert it on the device, or import ml_dtypes)"
            )
        array, dtype = array.bits(), np.dtype(library.bfloat16)
    host = np.empty(array.shape, array.dtype)
    if host.size:
        with on_device(call.device):
            read(call, array.flat(), host.reshape(-1))
    return host if dtype is array.dtype else host.view(dtype)


def read(call, flat, host):
    """Copy one axis of contiguous elements, after all work of the call's stream; waits for it."""
    if SIMULATOR:
        host[...] = flat.memory()
        return
    stream = call.stream_argument()
    flat.argument().copy_to_host(host, stream=stream)
    (stream or cuda.default_stream()).synchronize()


def write(call, array, host):
    """Copy from the host into a contiguous array, on the call's stream; waits for it."""
    host = np.ascontiguousarray(host).reshape(-1)
    if SIMULATOR:
        array.flat().memory()[...] = host
    elif host.size:
        with on_device(call.device):
            stream = call.stream_argument()
            array.flat().argument().copy_to_device(host, stream=stream)
            (stream or cuda.default_stream()).synchronize()


def synchronize():
    """See `fastconv.cuda.synchronize`."""
    cuda.synchronize()
