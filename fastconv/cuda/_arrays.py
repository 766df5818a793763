"""Arrays on a device, whoever made them: where they lie, on which stream their owner works, how to make more.

`Array` is what kernels and their launchers see: an address, a shape, strides, a dtype, a device. `Call` turns
the arrays of one call into that, makes sure that they share a device, and allocates results as arrays of the
kind that the caller uses (`to_device`'s, torch's, CuPy's, numba's), on the caller's current stream: torch's
and CuPy's from the pools that these keep, all others from the device's pool in the order of the stream.
Nothing is ever copied to or from the host here but by `to_device`, `to_host`, and `read` for checks.

Kinds differ in three things only (see `_Kind`): how an array tells its memory, how a new one is made, what
the current stream is. Whatever has `__cuda_array_interface__` or DLPack and is none of the known kinds is
read through that protocol; its results are handed to its library's `from_dlpack`, or are fastconv's own
arrays where it has none.
"""

import ctypes
import functools
import itertools
import math
import sys
import threading
from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.core import config

from .. import _arguments as arguments
from .._errors import DeviceError, UnsupportedError
from . import _device_array, _dlpack
from ._device_array import DeviceArray, Seen, is_contiguous
from ._driver import HERE, driver

SIMULATOR = _device_array.SIMULATOR
DEFAULT_STREAM = (
    2 if getattr(config, "CUDA_PER_THREAD_DEFAULT_STREAM", 0) else 1
)  # numba's, as CUDA numbers them
BFLOAT16 = arguments.BFLOAT16  # NumPy has none; simple kernels see such arrays by their bits alone
UINT16 = np.dtype(np.uint16)
BYTES2 = np.dtype("V2")  # of an array of numba's or of our own that holds bfloat16
BYTE = np.dtype(np.uint8)
ALIGNMENT = 256  # bytes: of every buffer of scratch


class Recording(threading.local):
    """The `_replay.Recorder` of the call that this thread records, or None."""

    recorder = None


RECORDING = Recording()


class Array:
    """An array on a device, as what prepares and launches kernels sees it.

    pointer: address of its first element (0 if it has none); shape, strides (in bytes): tuples; dtype: a
    native np.dtype, or BFLOAT16; device: ordinal, None for an array without elements; owner: what keeps the
    memory alive, for a result the very array that the caller gets; origin: while a call is recorded, the
    buffer in whose memory it lies (see `_replay`).
    """

    __slots__ = ("pointer", "shape", "strides", "dtype", "device", "owner", "origin")

    def __init__(self, pointer, shape, strides, dtype, device, owner, origin=None):
        self.pointer, self.shape, self.strides = pointer, shape, strides
        self.dtype, self.device, self.owner, self.origin = dtype, device, owner, origin

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
        return is_contiguous(self.shape, self.strides, self.itemsize)

    def view(self, shape, strides=None):
        """The same memory in another shape; without strides it must be contiguous."""
        if strides is None:
            strides = arguments.contiguous_strides(shape, self.itemsize)
        return Array(
            self.pointer, tuple(shape), tuple(strides), self.dtype, self.device, self.owner, self.origin
        )

    @property
    def T(self):
        """With the last two axes exchanged."""
        order = (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2)
        return self.view([self.shape[a] for a in order], [self.strides[a] for a in order])

    def bits(self, dtype=UINT16):
        """The same memory as unsigned integers of the size of its elements."""
        dtype = np.dtype(dtype)
        return Array(
            self.pointer, self.shape, self.strides, dtype, self.device, self.owner, self.origin
        )

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

    def memory(self):
        """The array as a NumPy array: in the simulator, where the memory is the host's."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        described = {
            "data": (self.pointer, False),
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.dtype.str,
            "version": 3,
        }
        return np.asarray(_Described(described, self.owner))


class _Described:
    """Memory that NumPy can look at, and what keeps it."""

    def __init__(self, described, owner):
        self.__array_interface__, self.owner = described, owner


# -- kinds of arrays -----------------------------------------------------------------------------------------


class _Kind:
    """How one library's arrays are read and made. Methods get an array of that library to start from.

    pools: whether memory for the duration of a call comes from the device's own pool.
    """

    pools = True

    def describe(self, op, array):
        """(pointer, shape, strides, dtype, device)."""
        memory = arguments.device_memory(array)
        if memory is None:
            return _dlpack.described(op, array)
        pointer, shape, strides, _, _ = memory
        told = getattr(array, "__cuda_array_interface__", None)
        if told is not None and told.get("mask") is not None:
            raise TypeError(f"{op}: an array on the device has a mask, and masks are not honoured")
        dtype = _dtype(op, array.dtype if told is None else told["typestr"])
        return pointer, shape, strides, dtype, _device_of(pointer) if 0 not in shape else None

    def facts(self, op, array):
        """(`_device_array.Layout`, pointer): the same, for looking up."""
        pointer, *rest = self.describe(op, array)
        return _device_array.layout(*rest), pointer

    def address(self, op, array):
        """Where an array lies that this kind has made."""
        return self.facts(op, array)[1]

    def seen(self, op, array):
        """The `Seen` that stands for the array; None where it has to be looked at closely."""
        return Seen(*self.facts(op, array), None, array, self, False)

    def empty(self, like, shape, dtype, device, stream):
        """A new C-contiguous array; inside of `on_device`."""
        return self.convert(like, _own_empty(shape, dtype, device, stream))

    def convert(self, like, made):
        """A `DeviceArray` as an array of this kind."""
        library = sys.modules.get(type(like).__module__.partition(".")[0])
        make = getattr(library, "from_dlpack", None) or getattr(type(like), "from_dlpack", None)
        return made if make is None or SIMULATOR else make(made)

    def scratch(self, like, nbytes, device, stream):
        """(address, what keeps it) of memory for the duration of a call."""
        made = _own_empty((nbytes,), BYTE, device, stream)
        return made.pointer, made

    def stream(self, array, device):
        """Handle of the stream on which the caller's work is queued; 1 and 2 are CUDA's default streams."""
        told = getattr(array, "__cuda_array_interface__", {})
        handle = told.get("stream")
        return DEFAULT_STREAM if handle is None else int(handle)


class _Own(_Kind):
    """fastconv's own arrays, which `to_device` makes, and what stands for others."""

    def describe(self, op, array):
        of = array.layout
        return array.pointer, of.shape, of.strides, of.dtype, of.device

    def facts(self, op, array):
        return array.layout, array.pointer

    def convert(self, like, made):
        return made

    def stream(self, array, device):
        return array.stream

    def seen(self, op, array):
        return array


class _Other(_Kind):
    """Arrays of which no more is known than that they have one of the protocols."""

    def seen(self, op, array):
        told = getattr(array, "__cuda_array_interface__", None)
        if told is None:
            return Seen(*self.facts(op, array), DEFAULT_STREAM, array, self, False)
        shape, strides, (pointer, readonly) = told["shape"], told.get("strides"), told["data"]
        key = shape, strides, told["typestr"], _device_of(pointer) if pointer else None
        found = None if told.get("mask") is not None else _described.get(key)
        if found is None:
            found, pointer = self.facts(op, array)
            if len(_described) >= _device_array.LAYOUTS_KEPT:
                _described.clear()
            _described[key] = found
        stream = told.get("stream")
        return Seen(
            found, pointer, DEFAULT_STREAM if stream is None else int(stream), array, self, bool(readonly)
        )


_described = {}  # what the array interface tells, and the device -> layout


class _Numba(_Kind):
    """numba's device arrays, and those of its simulator."""

    def describe(self, op, array):
        if 0 in array.shape:
            device = None
        else:
            device = 0 if SIMULATOR else array.gpu_data.context.device.id
        pointer = array.ctypes.data if SIMULATOR else _address(array)
        return pointer, tuple(array.shape), tuple(array.strides), _dtype(op, array.dtype), device

    def empty(self, like, shape, dtype, device, stream):
        dtype = _numpy_dtype(like, dtype)
        if SIMULATOR:
            return cuda.device_array(shape, dtype)
        if 0 in shape:
            return cuda.device_array(shape, dtype, stream=_numba_stream(stream))
        made = _own_empty(shape, dtype, device, stream)
        described = {**made.__cuda_array_interface__, "stream": None if stream == DEFAULT_STREAM else stream}
        return cuda.from_cuda_array_interface(described, made, sync=False)

    def stream(self, array, device):
        bound = 0 if SIMULATOR else _handle(getattr(array, "stream", 0))
        return bound or DEFAULT_STREAM


class _Torch(_Kind):
    """torch.Tensor on "cuda"."""

    pools = False

    def describe(self, op, array):
        name = str(array.dtype).removeprefix("torch.")
        dtype = BFLOAT16 if name == BFLOAT16.name else _dtype(op, name)
        strides = tuple(step * array.element_size() for step in array.stride())
        device = array.device.index if array.numel() else None
        return array.data_ptr(), tuple(array.shape), strides, dtype, device

    def facts(self, op, array):
        key = array.dtype, array.shape, array.stride(), array.device.index
        found = _torch_layouts.get(key)
        if found is None:
            _, *rest = self.describe(op, array)
            if len(_torch_layouts) >= _device_array.LAYOUTS_KEPT:
                _torch_layouts.clear()
            found = _torch_layouts[key] = _device_array.layout(*rest)
        return found, array.data_ptr()

    def empty(self, like, shape, dtype, device, stream):
        import torch

        return torch.empty(shape, dtype=getattr(torch, _name(dtype)), device=like.device)

    def address(self, op, array):
        return array.data_ptr()

    def seen(self, op, array):
        if array.requires_grad or not array.is_cuda:
            return None
        return Seen(*self.facts(op, array), None, array, self, False)

    def scratch(self, like, nbytes, device, stream):
        made = self.empty(like, (nbytes,), BYTE, device, stream)
        return made.data_ptr(), made

    def stream(self, array, device):
        import torch

        return torch.cuda.current_stream(device).cuda_stream or 1  # 0 is the legacy default stream


@functools.lru_cache(maxsize=64)
def _name(dtype):
    """Of a dtype; NumPy takes microseconds to make it up."""
    return dtype.name


_torch_layouts = {}  # (dtype, shape, strides, device) in torch's own objects -> layout


class _Cupy(_Kind):
    """cupy.ndarray."""

    pools = False

    def describe(self, op, array):
        device = array.device.id if array.size else None
        return array.data.ptr, tuple(array.shape), tuple(array.strides), _dtype(op, array.dtype), device

    def empty(self, like, shape, dtype, device, stream):
        import cupy

        with cupy.cuda.Device(device):
            return cupy.empty(shape, _numpy_dtype(like, dtype))

    def address(self, op, array):
        return array.data.ptr

    def scratch(self, like, nbytes, device, stream):
        made = self.empty(like, (nbytes,), BYTE, device, stream)
        return made.data.ptr, made

    def stream(self, array, device):
        import cupy

        with cupy.cuda.Device(device):
            return cupy.cuda.get_current_stream().ptr or 1  # 0 is the legacy default stream


OWN, _NUMBA, _OTHER = _Own(), _Numba(), _Other()
_BY_MODULE = {"torch": _Torch(), "cupy": _Cupy()}


def kind_of(array):
    """The kind that an array on a device is of."""
    of = type(array)
    if of is DeviceArray:
        return OWN
    if of is Seen:
        return array.kind
    found = _KINDS.get(of)
    if found is None:
        if getattr(array, "__cuda_ndarray__", False) is True:
            found = _NUMBA
        else:
            found = _BY_MODULE.get(of.__module__.partition(".")[0], _OTHER)
        if len(_KINDS) >= TYPES_KEPT:
            _KINDS.clear()
        _KINDS[of] = found
    return found


TYPES_KEPT = 256
_KINDS = {}  # by type


def seen(op, array):
    """What stands for an array of another library in a call; itself where that cannot be told, so that who
    asks for its dtype says what is wrong.
    """
    kind = kind_of(array)
    try:
        found = kind.seen(op, array)
    except TypeError:
        return array
    if type(array) not in arguments.READERS and len(arguments.READERS) < TYPES_KEPT:
        arguments.READERS[type(array)] = _read
    return array if found is None else found


def _read(op, array):
    """`seen` for a type that was seen before; None for an array that has to be looked at closely."""
    try:
        return kind_of(array).seen(op, array)
    except (TypeError, AttributeError, RuntimeError, KeyError):
        return None


arguments.seen = seen


def raw(array):
    """The array that the caller has."""
    return array.base if type(array) is Seen else array


def stream_of(array, device):
    """The stream on which the work of an array's owner is queued."""
    if type(array) is DeviceArray or type(array) is Seen and array.stream is not None:
        return array.stream
    return kind_of(array).stream(raw(array), device)


def _own_empty(shape, dtype, device, stream):
    shape = tuple(shape)
    return _device_array.new(_device_array.layout(shape, None, dtype, None if 0 in shape else device), stream)


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
    if kind_of(like) is _NUMBA:
        return BYTES2
    if isinstance(own, np.dtype) and _dtype("", own) is BFLOAT16:
        return own
    raise UnsupportedError(
        f"no array of dtype bfloat16 can be made for one of type {type(like).__name__}"
        " (torch tensors and numba arrays can have it, and arrays with the dtype of ml_dtypes)"
    )


def _address(array):
    """The address of a numba device array, 0 where it has no elements."""
    told = getattr(array, "device_ctypes_pointer", None)
    pointer = array.__cuda_array_interface__["data"][0] if told is None else told.value
    return 0 if pointer is None else int(pointer)


def _handle(stream):
    """The number behind one of numba's streams."""
    handle = getattr(stream, "handle", stream)
    handle = getattr(handle, "value", handle)
    return 0 if handle is None else int(handle)


def _numba_stream(handle):
    return 0 if handle == DEFAULT_STREAM else cuda.external_stream(handle)


def _device_of(pointer):
    """The ordinal of the device that an address belongs to."""
    return 0 if SIMULATOR else driver().device_of(pointer)


# -- a call --------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a call works: its operation, the ordinal of its device, the handle of its stream."""

    op: str
    device: int
    stream: int


class Call:
    """The arrays of one call on one device, and what goes with them.

    arrays: an `Array` (or None) for each argument; device: ordinal; stream: handle of the first argument's
    current stream, on which all kernels of the call run; recorder: told of all that is done, or None. Raises
    DeviceError when the arrays lie on several devices or one of them on the host.
    """

    def __init__(self, op, *arrays):
        self.op = op
        first = next(array for array in arrays if array is not None)
        self._like, self._kind = raw(first), kind_of(first)
        self.arrays = [None if array is None else describe(op, array) for array in arrays]
        devices = {array.device for array in self.arrays if array is not None} - {None}
        self.device = one_device(op, devices)
        self.stream = stream_of(first, self.device)
        wait_for_others(arrays, type(self._like), self.device, self.stream)
        self.recorder = RECORDING.recorder
        if self.recorder is not None:
            self.recorder.enter(self.arrays)

    def empty(self, shape, dtype):
        """A new C-contiguous `Array` of the caller's kind."""
        with on_device(self.device):
            made = self._kind.empty(self._like, tuple(shape), dtype, self.device, self.stream)
        made = describe(self.op, made)
        if self.recorder is not None:
            self.recorder.made(made)
        return made

    def scratch(self, shape, dtype):
        """As `empty`, for memory that does not leave the call."""
        return self.empty(shape, dtype)

    def room(self, nbytes):
        """Scratch of so many bytes that begins at a multiple of `ALIGNMENT`, as an `Array` of bytes."""
        with on_device(self.device):
            # more, so that it holds wherever the allocation starts
            pointer, keep = self._kind.scratch(self._like, nbytes + ALIGNMENT, self.device, self.stream)
        start = -(-pointer // ALIGNMENT) * ALIGNMENT
        made = Array(start, (nbytes,), (1,), BYTE, self.device, keep)
        if self.recorder is not None:
            self.recorder.made(made)
        return made

    def run(self, prepared, **arrays):
        """Launch a prepared program on this call's stream, an `Array` for each of the caller's buffers;
        scratch is one allocation.
        """
        scratch = prepared.program.scratch
        if scratch:
            starts = [0, *itertools.accumulate(-(-nbytes // ALIGNMENT) * ALIGNMENT for _, nbytes in scratch)]
            room = self.room(starts[-1])
            for (name, nbytes), start in zip(scratch, starts):
                arrays[name] = room.part(start, nbytes)
        with on_device(self.device):
            prepared({name: array.pointer for name, array in arrays.items()}, self.stream)
        if self.recorder is not None:
            self.recorder.program(prepared, arrays)

    def contiguous(self, array):
        """The array itself, or a copy of it that is C-contiguous. None stays None."""
        if array is None or array.contiguous:
            return array
        from .simple import copy

        made = self.scratch(array.shape, array.dtype)
        copy.gather(self, array, made)
        return made


def one_device(op, devices):
    """The ordinal among these, the current device where there is none; DeviceError for several."""
    if len(devices) > 1:
        shown = ", ".join(map(str, sorted(devices)))
        raise DeviceError(f"{op}: the arrays live on devices {shown} (nothing is copied silently)")
    return devices.pop() if devices else current_device()


def wait_for_others(arrays, kind, device, stream):
    """Work that another library than that of type `kind` has queued for its arrays elsewhere comes first."""
    for array in arrays:
        if array is not None and type(raw(array)) is not kind:
            other = stream_of(array, device)
            if other != stream and not SIMULATOR:
                with on_device(device):
                    driver().order(other, stream)


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
    kind = OWN if type(array) is Seen else kind_of(array)
    return Array(*kind.describe(op, array), array)


def facts(op, array):
    """(Layout, pointer) of anything that lives on a device."""
    return (OWN if type(array) is Seen else kind_of(array)).facts(op, array)


def current_device():
    return 0 if SIMULATOR else driver().current_device()


def on_device(device):
    """A context in which the driver works on a device."""
    return HERE if SIMULATOR else driver().on_device(device)


# -- host and device -----------------------------------------------------------------------------------------


def to_device(a):
    """See `fastconv.cuda.to_device`."""
    op = "to_device"
    if arguments.on_device(a):
        arguments.any_array(op, "a", a)
        return a
    a = arguments.any_array(op, "a", a, scalars=True)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{op}: a has dtype {a.dtype} (need real numbers)")
    plain = np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(a.shape)
    return sent(plain, current_device(), DEFAULT_STREAM)


def sent(host, device, stream):
    """A contiguous host array as a `DeviceArray` on a device; its memory is free again on return."""
    with on_device(device):
        made = _own_empty(host.shape, host.dtype, device, stream)
        if SIMULATOR:
            ctypes.memmove(made.pointer, host.ctypes.data, host.nbytes)
        elif host.size:
            driver().upload(made.pointer, host.ctypes.data, host.nbytes, stream)
    return made


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
                " (convert it with to_device(a, 'float32'), or import ml_dtypes)"
            )
        array, dtype = array.bits(), np.dtype(library.bfloat16)
    host = np.empty(array.shape, array.dtype)
    if host.size:
        read(call, array, host)
    return host if dtype is array.dtype else host.view(dtype)


def read(call, array, host):
    """Copy contiguous elements into a contiguous host array, after all work of the stream; waits for it."""
    if SIMULATOR:
        ctypes.memmove(host.ctypes.data, array.pointer, host.nbytes)
        return
    with on_device(call.device):
        driver().download(host.ctypes.data, array.pointer, host.nbytes, call.stream)


def write(call, array, host):
    """Copy from the host into a contiguous array, on the call's stream; waits for it."""
    host = np.ascontiguousarray(host)
    if SIMULATOR:
        ctypes.memmove(array.pointer, host.ctypes.data, host.nbytes)
    elif host.size:
        with on_device(call.device):
            driver().upload(array.pointer, host.ctypes.data, host.nbytes, call.stream)


def synchronize():
    """See `fastconv.cuda.synchronize`."""
    if SIMULATOR:
        cuda.synchronize()
    else:
        driver().synchronize()
