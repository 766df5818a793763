"""Launches made ready: machine code loaded, parameters packed in memory that the driver reads.

A `Packed` sequence of launches is made once and called many times: a call writes the addresses of its buffers
into one block and calls cuLaunchKernelEx for every kernel. Nothing is allocated, copied or waited for, so
that a CUDA graph can record it. A `Frame` is one kernel whose parameters all change from launch to launch.
"""

import ctypes
import functools
import struct
import threading
from collections import OrderedDict

from .._errors import DeviceError
from . import _cache
from ._driver import array, driver, failure
from .program import Pointer

MAPS_KEPT = 1024
MAP_BYTES, MAP_ALIGNMENT = 128, 64
CELL = 8  # bytes of a parameter in memory: the driver reads as many of them as the parameter has

# Letters of parameters. P address, I uint32, L int64, F float32, D float64; M, a tensor map, lies elsewhere.
FORMATS = {"P": "Q", "I": "I4x", "L": "q", "F": "f4x", "D": "d"}


class Config(ctypes.Structure):
    """CUlaunchConfig: what cuLaunchKernelEx is told besides the kernel and its parameters."""

    _fields_ = [
        *((name, ctypes.c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    ]


def configuration(grid, threads, shared=0):
    return Config(*(*grid, 1, 1)[:3], threads, 1, 1, shared)


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
        self.lock = threading.Lock()

    def bytes_of(self, tensor):
        with self.lock:
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


class Task:
    """One launch as a `Packed` takes it.

    handle: of the kernel; grid; threads a block; shared: bytes; parameters: (letter, value), where the value
    of a P is a `Pointer` or an address, that of an M a tensor map whose address is a `Pointer`.
    """

    __slots__ = ("handle", "grid", "threads", "shared", "parameters")

    def __init__(self, handle, grid, threads, shared, parameters):
        self.handle, self.grid, self.threads, self.shared = handle, grid, threads, shared
        self.parameters = parameters

    def moved(self, operands):
        """The same with pointers into other buffers; operands: name -> `_replay.Operand`."""

        def pointer(value):
            operand = operands[value.name]
            return Pointer(operand.buffer, operand.offset + value.offset)

        parameters = []
        for letter, value in self.parameters:
            if type(value) is Pointer:
                value = pointer(value)
            elif letter == "M":
                value = value._replace(address=pointer(value.address))
            parameters.append((letter, value))
        return Task(self.handle, self.grid, self.threads, self.shared, parameters)


class Packed:
    """Launches with their parameters packed. Calls from several threads take turns: they share the block."""

    def __init__(self, tasks, driver, maps):
        self.driver, self.maps, self.lock, self.stream = driver, maps, threading.Lock(), None
        self.launch = driver.cuLaunchKernelEx
        moving, formats, fixed = {}, [], []
        for task in tasks:
            for letter, value in task.parameters:
                if letter == "M":
                    continue
                if type(value) is Pointer:
                    moving.setdefault(value, len(moving))
                else:
                    formats.append(FORMATS[letter])
                    fixed.append(value % 2**32 if letter == "I" else value)
        self.moving = tuple(tuple(pointer) for pointer in moving)  # (name, offset) of what moves
        self.block = ctypes.create_string_buffer(CELL * (len(moving) + len(fixed)) or 1)
        struct.pack_into("=" + "".join(formats), self.block, CELL * len(moving), *fixed)
        self.write = struct.Struct(f"={len(moving)}Q").pack_into
        self.configs, self.launches, self.encoded, self.keep = [], [], [], []
        start = ctypes.addressof(self.block)
        cell = start + CELL * len(moving)
        for task in tasks:
            addresses = []
            for letter, value in task.parameters:
                if letter == "M":
                    keep, target = aligned_buffer(MAP_BYTES, MAP_ALIGNMENT)
                    self.keep.append(keep)
                    self.encoded.append(_Map(value, target, keep))
                    addresses.append(target)
                elif type(value) is Pointer:
                    addresses.append(start + CELL * moving[value])
                else:
                    addresses.append(cell)
                    cell += CELL
            pointers = array(ctypes.c_void_p, addresses)
            config = configuration(task.grid, task.threads, task.shared)
            self.keep.append(pointers)
            self.configs.append(config)
            self.launches.append((ctypes.addressof(config), task.handle, ctypes.addressof(pointers), None))

    def __call__(self, addresses, stream):
        """Launch everything on a stream (its handle as an int). addresses: of the buffers, by name."""
        values, launch = [addresses[name] + offset for name, offset in self.moving], self.launch
        with self.lock:
            self.write(self.block, 0, *values)
            for entry in self.encoded:
                entry.place(addresses, self.maps)
            if stream != self.stream:
                for config in self.configs:
                    config.stream = stream
                self.stream = stream
            for where in self.launches:
                status = launch(*where)
                if status:
                    self._launch_again(status, where)

    def _launch_again(self, status, where):
        if self.driver.again(status):
            status = self.launch(*where)
        if status:
            raise failure("cuLaunchKernelEx", status)


class _Map:
    """A tensor map among parameters: its bytes change with the address."""

    KEPT = 64  # encodings by address: a pool hands out the same few over and over

    def __init__(self, tensor, target, keep):
        self.tensor, self.target, self.keep = tensor, target, keep
        self.name, self.offset = tensor.address
        self.address, self.known = None, {}

    def place(self, addresses, maps):
        address = addresses[self.name] + self.offset
        if address == self.address:
            return
        found = self.known.get(address)
        if found is None:
            if len(self.known) >= self.KEPT:
                self.known.clear()
            found = self.known[address] = maps.bytes_of(self.tensor._replace(address=address))
        ctypes.memmove(self.target, found, MAP_BYTES)
        self.address = address


class Frame:
    """One kernel whose parameters are written anew for every launch. letters: of its parameters."""

    def __init__(self, handle, letters, threads, driver):
        self.handle, self.driver, self.lock = handle, driver, threading.Lock()
        self.block = ctypes.create_string_buffer(CELL * len(letters))
        self.write = struct.Struct("=" + "".join(FORMATS[letter] for letter in letters)).pack_into
        start = ctypes.addressof(self.block)
        self.pointers = array(ctypes.c_void_p, [start + CELL * i for i in range(len(letters))])
        self.config = configuration((1,), threads)
        self.where = ctypes.addressof(self.config), handle, ctypes.addressof(self.pointers), None

    def __call__(self, grid, stream, values):
        """Launch with this many blocks on a stream; values: one for every parameter."""
        with self.lock:
            self.write(self.block, 0, *values)
            self.config.gx, self.config.stream = grid, stream
            status = self.driver.cuLaunchKernelEx(*self.where)
            if status and self.driver.again(status):
                status = self.driver.cuLaunchKernelEx(*self.where)
        if status:
            raise failure("cuLaunchKernelEx", status)


class Prepared:
    """A `Program` ready to run on one device. tasks: its launches, with pointers by name."""

    def __init__(self, program, tasks, driver, maps):
        self.program, self.tasks = program, tasks
        self._packed = Packed(tasks, driver, maps)

    def __call__(self, addresses, stream):
        """Launch every step on a stream. addresses: of all named buffers, scratch included."""
        self._packed(addresses, stream)


class Runner:
    """Loads kernels for one device and makes programs ready. build, toolchain: in place of the compiler's."""

    def __init__(self, driver_=None, device=0, build=None, toolchain=None):
        self.driver = driver_ or driver()
        self.device = device
        self.attributes = self.driver.attributes(device)
        self.arch = 10 * self.attributes["major"] + self.attributes["minor"]
        self.maps = Maps(self.driver)
        self.handles = {}
        self._build, self._toolchain, self._lock = build, toolchain, threading.Lock()

    def handle(self, kernel):
        """The loaded kernel (a `gen.kernel.Kernel` or a `simple.launch.Typed`); compiled unless the cache has
        it.
        """
        with self._lock:
            found = self.handles.get(kernel)
            if found is None:
                if kernel.shared > self.attributes["shared"]:
                    raise DeviceError(
                        f"{kernel.name}: needs {kernel.shared} bytes of shared memory, the device "
                        f"has {self.attributes['shared']}"
                    )
                found = self.handles[kernel] = self._loaded(kernel)
            return found

    def _loaded(self, kernel):
        entry = _cache.cubin(kernel, self.arch, self._build, self._toolchain)
        with self.driver.on_device(self.device):
            try:
                return self.driver.load(*entry, kernel.shared, self.device)
            except DeviceError:  # what the disk had is none of this driver's: built here it must load
                entry = _cache.cubin(kernel, self.arch, self._build, self._toolchain, anew=True)
                return self.driver.load(*entry, kernel.shared, self.device)

    def prepare(self, program):
        tasks = [
            Task(
                self.handle(step.kernel), step.grid, step.kernel.threads, step.kernel.shared,
                list(zip(step.kernel.parameters, step.arguments)),
            )
            for step in program.steps
        ]  # fmt: skip
        return Prepared(program, tasks, self.driver, self.maps)


@functools.lru_cache(maxsize=None)
def runner(device):
    """The `Runner` of a device, by its ordinal. Raises DeviceError."""
    return Runner(device=device)
