"""The CUDA driver through ctypes: load machine code, encode tensor maps, launch. Works in the caller's
context, on its stream.

A `Program` is made ready once: kernels loaded, parameters packed in memory that the driver reads. A launch
then changes pointer cells and calls cuLaunchKernel: nothing is allocated, copied or waited for, so that a
CUDA graph can record it.
"""

import ctypes
import threading
from collections import OrderedDict

from .._errors import DeviceError
from . import _cache
from .maps import Tile
from .program import Pointer

SHARED_BY_DEFAULT = 48 * 1024  # a kernel that wants more must say so to the driver
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
ATTRIBUTES = {"multiprocessors": 16, "major": 75, "minor": 76, "shared": 97}
DATA_TYPE = {
    "f16": 6,
    "f32": 7,
    "bf16": 9,
}  # CUtensorMapDataType; float32 is read as stored, tf32 is the tensor core's view
SWIZZLE_128B, PROMOTE_256B = 3, 3
MAPS_KEPT = 1024
MAP_BYTES, MAP_ALIGNMENT = 128, 64

_CELLS = {"P": ctypes.c_uint64, "I": ctypes.c_uint32, "F": ctypes.c_float}


class Driver:
    """The functions of libcuda that are needed. `library` replaces it in tests."""

    def __init__(self, library=None):
        if library is None:
            try:
                library = ctypes.CDLL("libcuda.so.1")
            except OSError as error:
                raise DeviceError(f"fastconv.cuda: the CUDA driver cannot be loaded ({error})") from None
        self.library = library
        self.check("cuInit", 0)
        pointer, unsigned = ctypes.c_void_p, ctypes.c_uint
        # fixed argument types: ctypes then converts without guessing, and addresses are not cut to 32 bits
        library.cuLaunchKernel.argtypes = [pointer, *[unsigned] * 7, pointer, pointer, pointer]

    def check(self, name, *arguments):
        """Call a driver function; DeviceError when it fails."""
        status = getattr(self.library, name)(*arguments)
        if status:
            raise failure(name, status)

    def attributes(self, device=0):
        """Of a device: multiprocessors, major, minor, shared (bytes a block may ask for)."""
        handle, value = ctypes.c_int(), ctypes.c_int()
        self.check("cuDeviceGet", ctypes.byref(handle), device)
        found = {}
        for name, number in ATTRIBUTES.items():
            self.check("cuDeviceGetAttribute", ctypes.byref(value), number, handle)
            found[name] = value.value
        return found

    def load(self, code, name, shared, device=0):
        """A launchable handle of the kernel `name` in a cubin, allowed `shared` bytes of dynamic shared
        memory.
        """
        module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(
            "cuLibraryLoadData", ctypes.byref(module), ctypes.c_char_p(code), None, None, 0, None, None, 0
        )
        self.check("cuLibraryGetKernel", ctypes.byref(kernel), module, ctypes.c_char_p(name.encode()))
        if shared > SHARED_BY_DEFAULT:
            self.check("cuKernelSetAttribute", MAX_DYNAMIC_SHARED, shared, kernel, device)
        return kernel.value

    def encode(self, tensor, target):
        """Write the 128 bytes of a tensor map (`maps.Tile`, `maps.Im2col`) with a real address to `target`.
        """
        reason = tensor.refused()
        if reason is not None:
            raise DeviceError(f"tensor map: {reason}")
        address, kind = ctypes.c_void_p(tensor.address), DATA_TYPE[tensor.dtype]
        tail = (0, SWIZZLE_128B, PROMOTE_256B, 0)  # no interleave; outside of the array is zero
        if isinstance(tensor, Tile):
            sizes, strides = (tensor.columns, tensor.rows), (tensor.stride,)
            rank, box, step = 2, array(ctypes.c_uint32, tensor.box), array(ctypes.c_uint32, (1, 1))
            self.check(
                "cuTensorMapEncodeTiled", target, kind, rank, address, array(ctypes.c_uint64, sizes),
                array(ctypes.c_uint64, strides), box, step, *tail,
            )  # fmt: skip
        else:
            rank = len(tensor.sizes)
            step = array(ctypes.c_uint32, (1, *tensor.traversal, 1))
            self.check(
                "cuTensorMapEncodeIm2col", target, kind, rank, address, array(ctypes.c_uint64, tensor.sizes),
                array(ctypes.c_uint64, tensor.strides), array(ctypes.c_int, tensor.lower),
                array(ctypes.c_int, tensor.upper),
                tensor.channels, tensor.pixels, step, *tail,
            )  # fmt: skip


def array(kind, values):
    return (kind * len(values))(*values)


def failure(name, status):
    return DeviceError(f"{name} failed with CUDA error {status}")


def aligned_buffer(nbytes, alignment):
    """(ctypes buffer to keep, aligned address inside)."""
    buffer = ctypes.create_string_buffer(nbytes + alignment)
    address = ctypes.addressof(buffer)
    return buffer, address + -address % alignment


class Maps:
    """Encoded tensor maps of the arrays seen last.

    Encoding costs about a microsecond of driver time, a look-up less.
    """

    def __init__(self, driver, kept=MAPS_KEPT):
        self.driver, self.kept, self.known = driver, kept, OrderedDict()

    def bytes_of(self, tensor):
        found = self.known.get(tensor)
        if found is None:
            keep, address = aligned_buffer(MAP_BYTES, MAP_ALIGNMENT)
            self.driver.encode(tensor, ctypes.c_void_p(address))
            found = self.known[tensor] = ctypes.string_at(address, MAP_BYTES)
            if len(self.known) > self.kept:
                self.known.popitem(last=False)
        else:
            self.known.move_to_end(tensor)
        return found


class Launch:
    """One step of a program with its parameters packed; calling it updates pointers and launches."""

    def __init__(self, step, handle, maps):
        kernel = step.kernel
        self.handle, self.maps = handle, maps
        self.shape = (*(*step.grid, 1, 1)[:3], kernel.threads, 1, 1, kernel.shared)
        self.cells, self.moving, self.encoded = [], [], []
        addresses = []
        for letter, argument in zip(kernel.parameters, step.arguments):
            if letter == "M":
                keep, address = aligned_buffer(MAP_BYTES, MAP_ALIGNMENT)
                self.cells.append(keep)
                self.encoded.append([argument, address, None])
            else:
                fixed = 0 if type(argument) is Pointer else argument
                cell = _CELLS[letter](fixed % 2**32 if letter == "I" else fixed)
                address = ctypes.addressof(cell)
                self.cells.append(cell)
                if type(argument) is Pointer:
                    self.moving.append((cell, argument.name, argument.offset))
            addresses.append(address)
        self.pointers = array(ctypes.c_void_p, addresses)
        self.packed = ctypes.addressof(self.pointers)

    def __call__(self, launch, addresses, stream):
        for cell, name, offset in self.moving:
            cell.value = addresses[name] + offset
        for entry in self.encoded:
            tensor, target, known = entry
            address = addresses[tensor.address.name] + tensor.address.offset
            if address != known:
                ctypes.memmove(target, self.maps.bytes_of(tensor._replace(address=address)), MAP_BYTES)
                entry[2] = address
        return launch(self.handle, *self.shape, stream, self.packed, None)


class Prepared:
    """A program ready to run. Calls from several threads take turns: they share the packed parameters."""

    def __init__(self, program, launches, launch):
        self.program, self.launches, self.launch = program, launches, launch
        self.lock = threading.Lock()

    def __call__(self, addresses, stream):
        """Launch every step on a stream (its handle as an int).

        Addresses: of all named buffers, scratch included.
        """
        with self.lock:
            for step in self.launches:
                status = step(self.launch, addresses, stream)
                if status:
                    raise failure("cuLaunchKernel", status)


class Runner:
    """Loads kernels for one device and makes programs ready."""

    def __init__(self, driver=None, device=0, build=None, toolchain=None):
        self.driver = driver or Driver()
        self.device = device
        self.attributes = self.driver.attributes(device)
        self.arch = 10 * self.attributes["major"] + self.attributes["minor"]
        self.maps = Maps(self.driver)
        self.handles = {}
        self._build, self._toolchain, self._lock = build, toolchain, threading.Lock()

    def handle(self, kernel):
        """The loaded kernel; compiled unless the cache has it."""
        with self._lock:
            found = self.handles.get(kernel)
            if found is None:
                if kernel.shared > self.attributes["shared"]:
                    raise DeviceError(
                        f"{kernel.name}: needs {kernel.shared} bytes of shared memory, the device "
                        f"has {self.attributes['shared']}"
                    )
                code, name = _cache.cubin(kernel, self.arch, self._build, self._toolchain)
                found = self.handles[kernel] = self.driver.load(code, name, kernel.shared, self.device)
            return found

    def prepare(self, program):
        launches = [Launch(step, self.handle(step.kernel), self.maps) for step in program.steps]
        return Prepared(program, launches, self.driver.library.cuLaunchKernel)
