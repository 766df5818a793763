"""Calls that are recorded once and replayed: what makes a warm call cheap on the host.

What a function of the backend launches depends on the layouts of its arrays and on its other arguments alone,
never on what the arrays hold. The first call of a kind runs as it is written, while a `Recorder` notes which
buffers it makes and which kernels it launches on them; that becomes a `Plan`, by which later calls of the
kind allocate their results, put the new addresses into parameters that were packed once, and launch.
Temporary arrays become parts of one allocation.

A plan is found by the layout of every array and its distance from a multiple of 16 bytes, the type of foreign
arrays, all other arguments, and the precision. Streams, and of course addresses, differ from call to call.
"""

import functools
from typing import NamedTuple

from .. import _config
from .._errors import DeviceError
from . import _arrays, _checks, _launch
from ._arrays import ALIGNMENT, OWN, RECORDING, SIMULATOR, Array, Place
from ._device_array import DeviceArray, Seen, layout, new
from ._driver import driver

PLANS_KEPT = 2048  # of every function
DISTANCE = 15  # mask of an address: vectors of 16 bytes are what kernels ask about


class Buffer:
    """Memory that a recorded call uses: an argument, an array or room that it makes, a flag of `_checks`."""

    __slots__ = ("index", "pointer", "shape", "dtype", "message")

    def __init__(self, index, array, message=None):
        self.index, self.pointer, self.message = index, array.pointer, message
        self.shape, self.dtype = tuple(array.shape), array.dtype

    def layout(self, device):
        """Of an array that a call makes: contiguous."""
        return layout(self.shape, None, self.dtype, None if 0 in self.shape else device)


class Operand(NamedTuple):
    """An `Array` of a recorded launch: so many bytes into a buffer."""

    buffer: int
    offset: int
    shape: tuple
    strides: tuple
    dtype: object

    def moved(self, places):
        """The same in another numbering of buffers: old number -> (new number, bytes into it)."""
        buffer, offset = places[self.buffer]
        return self._replace(buffer=buffer, offset=self.offset + offset)

    def at(self, addresses):
        return Array(addresses[self.buffer] + self.offset, self.shape, self.strides, self.dtype, None, None)


class Recorder:
    """Notes what a call does. arrays: the arguments that are arrays, all different objects."""

    def __init__(self, described):
        self.buffers, self.steps, self.checks, self.complete = [], [], [], True
        # id of what keeps a buffer -> the buffer; the keepers, so that ids last
        self._known, self._keep = {}, []
        for array in described:
            self._add(array)
        self.inputs = len(self.buffers)

    def _add(self, array, message=None):
        buffer = Buffer(len(self.buffers), array, message)
        self.buffers.append(buffer)
        self._known[id(array.owner)] = array.origin = buffer
        self._keep.append(array.owner)
        return buffer

    def buffer_of(self, owner):
        """The buffer whose memory an array of the caller's kind has, or None."""
        return self._known.get(id(owner))

    # -- what a call tells -----------------------------------------------------------------------------------

    def enter(self, arrays):
        """Arrays that a `Call` begins with."""
        for array in arrays:
            if array is not None:
                array.origin = self._known.get(id(array.owner))
                self.complete = self.complete and array.origin is not None

    def made(self, array):
        """A new buffer."""
        self._add(array)

    def flag(self, array, message):
        """The array of a flag, as this call's kernels get it."""
        array = array.view(array.shape, array.strides)
        self._add(array, message)
        return array

    def check(self, message, values):
        self.checks.append((message, self._operand(values)))

    def simple(self, kernel, size, given):
        """A launch of a simple kernel."""
        self.steps.append((kernel, size, tuple(self._operand(a) if type(a) is Array else a for a in given)))

    def program(self, prepared, arrays):
        """A program of generated kernels."""
        self.steps.append((prepared, None, {name: self._operand(a) for name, a in arrays.items()}))

    def _operand(self, array):
        origin = array.origin
        if origin is None:  # from where nobody told: no later call could find it
            self.complete = False
            return None
        return Operand(
            origin.index, array.pointer - origin.pointer, array.shape, array.strides, array.dtype
        )


class Plan:
    """What a recorded call does, for any arrays of its kind. result: what it returned."""

    def __init__(self, op, recorder, result, device):
        self.op, self.device = op, device
        several = isinstance(result, tuple)
        found = [None if r is None else recorder.buffer_of(r) for r in (result if several else (result,))]
        returned = {buffer.index for buffer in found if buffer is not None}
        # where the buffers of the recorder are now: (place among the addresses of a call, bytes into that)
        places = {i: (i, 0) for i in range(recorder.inputs)}
        made = recorder.buffers[recorder.inputs :]
        self.results, self.flags, self.bytes, rest = [], [], 0, []
        for buffer in made:
            if buffer.message is not None:
                rest.append(buffer)
            elif buffer.index in returned:
                places[buffer.index] = recorder.inputs + len(self.results), 0
                self.results.append(buffer.layout(device))
        self.returned = tuple(None if buffer is None else places[buffer.index][0] for buffer in found)
        self.one = None if several else self.returned[0]
        for buffer in rest:
            places[buffer.index] = recorder.inputs + len(self.results) + len(self.flags), 0
            self.flags.append(buffer.message)
        room = recorder.inputs + len(self.results) + len(self.flags)
        for buffer in made:
            if buffer.index not in places:
                places[buffer.index] = room, self.bytes
                self.bytes += -(-buffer.layout(device).nbytes // ALIGNMENT) * ALIGNMENT
        steps = [(what, size, _moved(operands, places)) for what, size, operands in recorder.steps]
        self.checks = [
            (self.flags.index(message), values.moved(places)) for message, values in recorder.checks
        ]
        launch = None if SIMULATOR else _packed(steps, device)
        self.launch = launch or functools.partial(_one_by_one, Place(op, device, None), steps)

    def __call__(self, kind, given, addresses, stream):
        """Allocate, launch on a stream, check; inside of `on_device`. Returns what the function does, or None
        where memory does not begin at the multiples of bytes that it did before.

        given, addresses: lists of the arguments that are arrays and of where they lie, to which others are
        added; kind: of the first of them, as results shall be.
        """
        for made in self.results:
            if kind is OWN:
                array = new(made, stream)
                address = array.pointer
            else:
                array = kind.empty(_arrays.raw(given[0]), made.shape, made.dtype, self.device, stream)
                address = kind.address(self.op, array)
                if address & DISTANCE:
                    return None
            given.append(array)
            addresses.append(address)
        if self.flags:
            place = Place(self.op, self.device, stream)
            flags = [_checks.Flag(place, message) for message in self.flags]
            addresses += [flag.array.pointer for flag in flags]
        if not self.bytes:
            addresses.append(0)  # of what has no elements
            self.launch(addresses, stream)
        elif kind.pools and not SIMULATOR:  # memory for a moment, in the order of the stream
            device = driver()
            room = device.allocate(self.bytes, stream)
            addresses.append(room)
            try:
                self.launch(addresses, stream)
            finally:
                device.free(room, stream)
        else:
            address, keep = kind.scratch(_arrays.raw(given[0]), self.bytes, self.device, stream)
            if address % ALIGNMENT:
                return None
            addresses.append(address)
            self.launch(addresses, stream)
        for flag, values in self.checks:
            flags[flag].check(values, addresses)
        if self.one is not None:
            return given[self.one]
        return tuple([None if index is None else given[index] for index in self.returned])


def _moved(operands, places):
    """Operands of a step in the buffers of a plan."""
    if isinstance(operands, dict):
        return {name: operand.moved(places) for name, operand in operands.items()}
    return [operand.moved(places) if type(operand) is Operand else operand for operand in operands]


class _Unplanned:
    """Stands for the plan of calls that cannot be replayed, as those without any elements."""

    device = None


UNPLANNED = _Unplanned()


def _packed(steps, device):
    """The launches of a call with their parameters packed; None where a program is not one of `_launch`."""
    runner, tasks = _launch.runner(device), []
    for what, size, operands in steps:
        if size is not None:
            tasks.append(what.task(runner, size, operands))
        elif type(what) is _launch.Prepared:
            tasks += [task.moved(operands) for task in what.tasks]
        else:
            return None
    return _launch.Packed(tasks, runner.driver, runner.maps)


def _one_by_one(place, steps, addresses, stream):
    """What `_packed` does, in the simulator and with programs that tests run themselves."""
    place = place._replace(stream=stream)
    for what, size, operands in steps:
        if size is not None:
            what.run(place, size, [o.at(addresses) if type(o) is Operand else o for o in operands])
        else:
            what({name: addresses[o.buffer] + o.offset for name, o in operands.items()}, stream)


# -- the functions of the backend ----------------------------------------------------------------------------

_PLAIN = {str, int, float, bool, type(None), tuple}  # types of arguments that are no arrays


def replayed(function):
    """Decorator of a backend function that launches the same for arrays of the same layouts."""
    plans = {}

    @functools.wraps(function)
    def either(*arguments):
        if RECORDING.recorder is not None:  # part of a call that is recorded
            return function(*arguments)
        key, given, addresses, own = [_config.get_precision()], [], [], True
        for argument in arguments:
            kind = type(argument)
            if kind is DeviceArray:
                pointer = argument.pointer
                key += (argument.layout, pointer & DISTANCE)
            elif kind in _PLAIN:
                key.append(argument)
                continue
            elif kind is Seen:
                pointer, own = argument.pointer, False
                key += (type(argument.base), argument.layout, pointer & DISTANCE)
            elif hasattr(argument, "shape") and hasattr(argument, "dtype"):
                try:
                    made, pointer = _arrays.facts(function.__name__, argument)
                except (TypeError, DeviceError):  # which the function raises too, and says what it was doing
                    return function(*arguments)
                key += (kind, made, pointer & DISTANCE)
                own = False
            else:
                _PLAIN.add(kind)
                key.append(argument)
                continue
            given.append(argument)
            addresses.append(pointer)
        key = tuple(key)
        plan = plans.get(key)
        if plan is None:
            if len(plans) >= PLANS_KEPT:
                plans.clear()
            result, plans[key] = _recorded(function, arguments, given)
            return result
        device, first = plan.device, given[0]
        if device is None:
            return function(*arguments)
        if own:
            kind, stream = OWN, first.stream
        else:
            kind, stream = _arrays.kind_of(first), _arrays.stream_of(first, device)
            _arrays.wait_for_others(given, type(_arrays.raw(first)), device, stream)
        if SIMULATOR or driver().ready:
            result = plan(kind, given, addresses, stream)
        else:
            with _arrays.on_device(device):
                result = plan(kind, given, addresses, stream)
        return function(*arguments) if result is None else result

    either.plans = plans
    return either


def _recorded(function, arguments, given):
    """(what the function returns, its Plan, or `UNPLANNED`)."""
    op = function.__name__
    seen, distinct = set(), []
    for argument in arguments:
        if any(argument is array for array in given):
            if id(argument) in seen:  # an array that is given twice must not be one buffer for all calls
                made, pointer = _arrays.facts(op, argument)
                stream = _arrays.stream_of(argument, made.device)
                argument = DeviceArray(made, pointer, stream, argument)
            seen.add(id(argument))
        distinct.append(argument)
    arrays = [argument for argument in distinct if id(argument) in seen]
    recorder = Recorder([_arrays.describe(op, array) for array in arrays])
    RECORDING.recorder = recorder
    try:
        result = function(*distinct)
    finally:
        RECORDING.recorder = None
    devices = {a.device for a in map(functools.partial(_arrays.describe, op), arrays)} - {None}
    if not recorder.complete or len(devices) != 1:
        return result, UNPLANNED
    return result, Plan(op, recorder, result, devices.pop())
