"""The arrays that `fastconv.cuda.to_device` makes: an address, a layout, a stream, memory in its order.

They are slim, since every call makes one: the layout (shape, strides, dtype, device) is one object for all
arrays that share it, by which calls that were prepared are found again. What NumPy does with an array they
leave to others: `__cuda_array_interface__` and DLPack hand the memory to CuPy, torch, numba or JAX.
"""

import ctypes
import itertools
import math
import operator

import numpy as np
from numba.core import config

from .. import _arguments as arguments
from .._arguments import BFLOAT16
from ._driver import driver

LAYOUTS_KEPT = 1 << 16
SIMULATOR = bool(config.ENABLE_CUDASIM)  # numba's, whose memory is the host's
GRANULE = 256  # bytes: where its arrays begin, as the driver's do

_layouts = {}


class Layout:
    """Shape, strides (bytes), dtype, device (ordinal; None without elements); compared by identity."""

    __slots__ = ("shape", "strides", "dtype", "device", "size", "nbytes", "contiguous", "low", "high")

    def __init__(self, shape, strides, dtype, device):
        self.shape, self.strides, self.device = shape, strides, device
        self.dtype = dtype if dtype is BFLOAT16 else np.dtype(dtype.str)  # the one object of its kind
        self.size = math.prod(shape)
        self.nbytes = self.size * dtype.itemsize
        self.contiguous = is_contiguous(shape, strides, dtype.itemsize)
        reach = [(n - 1) * step for n, step in zip(shape, strides)]
        # bytes from the first element to the lowest one, and to behind the highest
        self.low, self.high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + dtype.itemsize


def is_contiguous(shape, strides, itemsize):
    """Whether the elements lie one behind the other, in C order."""
    step = itemsize
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != step and 0 not in shape:
            return False
        step *= size
    return True


def layout(shape, strides, dtype, device):
    """The one `Layout` of these; strides None: C-contiguous."""
    key = shape, strides, dtype, device
    found = _layouts.get(key)
    if found is None:
        if len(_layouts) >= LAYOUTS_KEPT:
            _layouts.clear()  # arrays keep theirs; calls on them are prepared anew
        steps = arguments.contiguous_strides(shape, dtype.itemsize) if strides is None else strides
        found = _layouts.get((shape, steps, dtype, device))
        if found is None:
            found = _layouts[shape, steps, dtype, device] = Layout(shape, steps, dtype, device)
        _layouts[key] = found
    return found


class DeviceArray:
    """An array on a GPU.

    shape, strides (bytes), dtype, ndim, size, nbytes as NumPy's; `pointer` is its address, `stream` the
    handle of the CUDA stream on which it was made, on which calls that get it first queue their work (see
    `on_stream`). `a[...]` with ints, slices and ... , `reshape`, `transpose` and `T` are views; the memory
    goes back to the device's pool when the last of them is gone, in the order of that stream.
    """

    __slots__ = ("layout", "pointer", "stream", "base", "__weakref__")

    def __init__(self, layout, pointer, stream, base):
        """base: what keeps the memory; None: the array itself, which gives it back."""
        self.layout, self.pointer, self.stream, self.base = layout, pointer, stream, base

    def __del__(self):
        if self.base is None:
            driver().free(self.pointer, self.stream)

    readonly = False
    shape = property(operator.attrgetter("layout.shape"))
    strides = property(operator.attrgetter("layout.strides"))
    dtype = property(operator.attrgetter("layout.dtype"))
    size = property(operator.attrgetter("layout.size"))
    nbytes = property(operator.attrgetter("layout.nbytes"))
    device = property(operator.attrgetter("layout.device"))
    itemsize = property(operator.attrgetter("layout.dtype.itemsize"))

    @property
    def ndim(self):
        return len(self.layout.shape)

    @property
    def owns_memory(self):
        """Whether this is the array with which the memory was allocated, and no view."""
        return self.base is None

    @property
    def extent(self):
        """(address of the first byte, address behind the last); None without elements."""
        of = self.layout
        return (self.pointer + of.low, self.pointer + of.high) if of.size else None

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self):
        return f"<fastconv.cuda array {self.shape} {self.dtype.name} on device {self.device or 0}>"

    def __array__(self, *args, **kwargs):
        raise TypeError("an array on the device is not copied silently (use fc.cuda.to_host)")

    # -- views -----------------------------------------------------------------------------------------------

    def view(self, shape, strides, offset=0):
        """The same memory in another shape, with these strides, `offset` bytes on."""
        made = layout(tuple(shape), tuple(strides), self.dtype, None if 0 in shape else self.device)
        return self._at(made, self.pointer + offset)

    def _at(self, layout, pointer):
        return DeviceArray(layout, pointer, self.stream, self if self.base is None else self.base)

    def on_stream(self, stream):
        """The same memory; calls that get this array first queue their work on that stream (a handle)."""
        return DeviceArray(self.layout, self.pointer, stream, self if self.base is None else self.base)

    def reshape(self, *shape):
        """A view in another shape, of which one size may be -1; ValueError for an array with gaps."""
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        shape = tuple(map(operator.index, shape))
        if shape.count(-1) == 1:
            rest = math.prod(n for n in shape if n != -1)
            shape = tuple(self.size // rest if n == -1 and rest else n for n in shape)
        if math.prod(shape) != self.size or min(shape, default=0) < 0:
            raise ValueError(f"reshape: {self.shape} does not become {shape}")
        if not self.layout.contiguous:
            raise ValueError(f"reshape: needs a contiguous array, this one has strides {self.strides}")
        return self.view(shape, arguments.contiguous_strides(shape, self.itemsize))

    def transpose(self, *axes):
        """A view with the axes in another order, by default reversed."""
        axes = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        axes = [operator.index(a) % self.ndim for a in axes] or list(range(self.ndim))[::-1]
        if sorted(axes) != list(range(self.ndim)):
            raise ValueError(f"transpose: axes {tuple(axes)} are no order of {self.ndim}")
        return self.view([self.shape[a] for a in axes], [self.strides[a] for a in axes])

    @property
    def T(self):
        return self.transpose()

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        given = sum(i is not Ellipsis for i in index)
        if given > self.ndim:
            raise IndexError(f"{given} indices for an array of {self.ndim} axes")
        if Ellipsis in [i for i in index if not isinstance(i, np.ndarray)]:
            at = [i is Ellipsis for i in index].index(True)
            index = (*index[:at], *(slice(None),) * (self.ndim - given), *index[at + 1 :])
        shape, strides, offset = [], [], 0
        for i, size, step in itertools.zip_longest(index, self.shape, self.strides, fillvalue=slice(None)):
            if isinstance(i, slice):
                start, stop, by = i.indices(size)
                count = len(range(start, stop, by))
                offset += start * step if count else 0
                shape.append(count)
                strides.append(step * by)
            else:
                i = operator.index(i)  # arrays of indices are not views
                if not -size <= i < size:
                    raise IndexError(f"index {i} is out of range for an axis of size {size}")
                offset += i % size * step
        return self.view(shape, strides, 0 if 0 in shape else offset)

    # -- for others ------------------------------------------------------------------------------------------

    @property
    def __cuda_array_interface__(self):
        """Version 3 of the protocol: with the stream on which the array's work is queued."""
        return {
            "shape": self.shape,
            "typestr": "<V2" if self.dtype is BFLOAT16 else self.dtype.str,
            "data": (0 if self.size == 0 else self.pointer, False),
            "strides": None if self.layout.contiguous else self.strides,
            "stream": self.stream,
            "version": 3,
        }

    def __dlpack_device__(self):
        return (arguments.DLPACK_CUDA[0], self.device or 0)

    def __dlpack__(self, *, stream=None, **others):
        """A capsule of DLPack's first version; what is queued on the array's stream comes before the work of
        `stream` (a handle; None: the legacy default stream; -1: the caller waits by itself).
        """
        from . import _dlpack

        theirs = 1 if stream is None else int(stream)
        if theirs not in (-1, self.stream):
            device = driver()
            with device.on_device(self.device):
                device.order(self.stream, theirs)
        return _dlpack.capsule(self)


class Seen(DeviceArray):
    """What stands for an array of another library inside of a call, so that its protocol is read once.

    base: that array; kind: how its library makes others (`_arrays`); stream: None where it is asked for.
    """

    __slots__ = ("kind", "readonly")

    def __init__(self, layout, pointer, stream, base, kind, readonly):
        DeviceArray.__init__(self, layout, pointer, stream, base)
        self.kind, self.readonly = kind, readonly

    def _at(self, layout, pointer):
        return Seen(layout, pointer, self.stream, self.base, self.kind, self.readonly)


arguments.DEVICE_TYPES.update((DeviceArray, Seen))


def new(layout, stream):
    """A new array of a C-contiguous layout, on the device that is current; its content is anything."""
    if layout.size == 0:
        return DeviceArray(layout, 0, stream, layout)
    if SIMULATOR:
        memory = ctypes.create_string_buffer(layout.nbytes + GRANULE)
        address = ctypes.addressof(memory)
        return DeviceArray(layout, address + -address % GRANULE, stream, memory)
    return DeviceArray(layout, driver().allocate(layout.nbytes, stream), stream, None)
