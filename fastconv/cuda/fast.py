"""The fast kernels: rows of the device's tables of convolution algorithms, the fully connected layer, and
what moves memory.

A row accepts a problem when its kernels can be built for the current device and hold the problem (`select`).
Running it costs the host a look-up and a launch a kernel; scratch (images in channels last, the packed
weight, partial sums) comes from the caller's library, one allocation a call.

Promises: the same inputs give the same bits on one kind of device (no atomics, sums in a fixed order); y and
dx of a sample do not depend on the other samples. What is not finite stays within the sums that contain it,
but an infinity that "3xtf32" splits comes out as NaN. float16 and bfloat16 are multiplied as they are
("wgmma", "mma") and summed in float32, in every precision, and rounded when the sum is stored. Scratch
of forward and of the gradient of the input is bounded: images that have to be turned are turned and
multiplied some at a time (`convolution.CHUNK`). That of a weight gradient grows with N.
"""

from functools import lru_cache

import numpy as np

from .. import _config
from .._algorithms import Algorithm
from .._errors import DeviceError
from . import _arrays, depthwise, memory_bound, select
from ._launch import runner
from .convolution import Refused
from .simple import copy

DTYPES = ("f32", "f16", "bf16")  # of memory-bound kernels
OPERANDS = {
    "conv": ("x", "weight", "bias", "y"),
    "conv_backward_input": ("dy", "weight", "bias", "dx"),
    "conv_backward_weight": ("dy", "x", "dweight"),
}


def _current():
    """(runner, `select.Device`) of the current device; (None, no device) where there is none to be driven."""
    if _arrays.SIMULATOR:
        return None, select.Device(0)
    try:
        found = runner(_arrays.current_device())
    except DeviceError:
        return None, select.Device(0)
    return found, select.Device(found.arch, found.attributes["multiprocessors"], found.attributes["shared"])


def _accepts(name, direction):
    def accepts(problem):
        machine, device = _current()
        reason = select.refused(name, direction, problem, device)
        if reason is None:
            reason = _unbuildable(machine, _contiguous_program(name, direction, problem))
        return reason

    return accepts


def _contiguous_program(name, direction, problem):
    views = select.contiguous_views(direction, problem)
    return select.program_of(name, direction, problem, select.WORDS[problem.dtype.name], *views)


def _unbuildable(machine, program):
    """Why the kernels of a program cannot be built here, or None: a toolchain may lack a part."""
    try:
        for step in program.steps:
            machine.handle(step.kernel)
    except Exception as error:  # whatever a half installed toolchain raises, simpler kernels remain
        return f"could not be built: {type(error).__name__}: {error}"
    return None


def _suits(name):
    return lambda problem, precision: select.unsuited(name, problem, precision)


def _scratch(name, direction):
    return lambda kernels, problem, threads: _contiguous_program(name, direction, problem).scratch_bytes


@lru_cache(maxsize=4096)
def _prepared(device, name, direction, problem, dtype, strides, bias):
    """A program made ready for images with these strides (in elements), in the order of `contiguous_views`.
    """
    names = [view.pointer.name for view in select.contiguous_views(direction, problem)]
    views = [select.view(n, problem, s) for n, s in zip(names, strides)]
    machine = runner(device)
    count = machine.attributes["multiprocessors"]
    return machine.prepare(select.program_of(name, direction, problem, dtype, *views, bias, count))


def _readable(call, array):
    """The array, or a contiguous copy where addresses or strides do not suit 16-byte reads of whole
    elements.
    """
    if array is None or (array.pointer % 16 == 0 and all(s % array.itemsize == 0 for s in array.strides)):
        return array
    made = call.scratch(array.shape, array.dtype)
    copy.gather(call, array, made)
    return made


def _run(name, direction):
    operands = OPERANDS[direction]
    images = ("x", "dy") if direction == "conv_backward_weight" else (operands[0], operands[-1])

    def run(call, problem, *arrays):
        named = {n: _readable(call, a) for n, a in zip(operands, arrays)}
        for n in ("weight", "bias"):
            named[n] = call.contiguous(named.get(n))
        bias = named["bias"] is not None
        dtype = select.WORDS[problem.dtype.name]

        def prepared():
            strides = tuple(tuple(s // named[n].itemsize for s in named[n].strides) for n in images)
            return _prepared(call.device, name, direction, problem, dtype, strides, bias)

        try:
            program = prepared()
        except Refused:  # strides that leave 32-bit indices: a dense copy does not
            named[images[0]] = call.contiguous(named[images[0]])
            named["dy"] = call.contiguous(named.get("dy"))
            program = prepared()
        call.run(program, **{n: a for n, a in named.items() if a is not None})

    return run


# -- the fully connected layer -------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _product(device, direction, layer, dtype, precision):
    """The program of the fastest algorithm for a `dense.Layer` made ready for a device, or None."""
    machine, found = _current()
    for program in select.linear_candidates(direction, layer, dtype, precision, found):
        if _unbuildable(machine, program) is None:
            return machine.prepare(program)
    return None


def linear(call, direction, layer, target, **sources):
    """Run a direction of `dense` on contiguous arrays by name, or say False: the simple kernel has to do it.

    target: (name, array) of the result; sources: matrices and the bias, None where there is none.
    """
    name, made = target
    precision = _config.get_precision()
    prepared = _product(call.device, direction, layer, select.WORDS.get(made.dtype.name), precision)
    if prepared is None:
        return False
    given = {n: _readable(call, a) for n, a in sources.items() if a is not None}
    call.run(prepared, **{name: made}, **given)
    return True


# -- memory-bound kernels ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _ready(device, program):
    """A program made ready for a device, or None if its kernels cannot be built."""
    machine, _ = _current()
    if machine is None or machine.arch < 80 or _unbuildable(machine, program) is not None:
        return None
    return machine.prepare(program)


def done(call, program, **arrays):
    """Run a program of `memory_bound` or `normalisation` on contiguous arrays, or say False: the simple
    kernel has to do it.

    program: None where the builder had none; None among the arrays: one that the program does not ask for.
    """
    if program is None or _arrays.SIMULATOR and _current()[0] is None:
        return False
    arrays = {name: a for name, a in arrays.items() if a is not None}
    if any(a.pointer % 16 for a in arrays.values()):
        return False
    ready = _ready(call.device, program)
    if ready is None:
        return False
    call.run(ready, **arrays)
    return True


def word(*arrays):
    """What the memory-bound kernels call the dtype of all these arrays; None for any other."""
    names = {a.dtype.name for a in arrays}
    found = select.WORDS.get(names.pop()) if len(names) == 1 else None
    return found if found in DTYPES else None


# -- depthwise convolution -----------------------------------------------------------------------------------

FLAT = "depthwise"


def _depthwise_accepts(backward):
    def accepts(problem):
        machine, device = _current()
        if device.arch < 80:
            return "needs a GPU of compute capability 8.0 or later"
        if problem.dtype != np.float32:
            return f"needs float32 arrays, got {problem.dtype}"
        program = memory_bound.depthwise(problem, backward, problem.bias)
        if program is None:
            most = memory_bound.gen.UNROLLED
            return f"needs groups == channels == filters, planes, zero padding and at most {most} taps"
        return _unbuildable(machine, program)

    return accepts


def _depthwise_run(backward):
    def run(call, problem, source, weight, bias, target):
        source, weight, bias = (call.contiguous(a) for a in (source, weight, bias))
        names = ("dy", "weight", "dx") if backward else ("x", "weight", "y")
        arrays = dict(zip(names, (source, weight, target)))
        if bias is not None:
            arrays["bias"] = bias
        program = memory_bound.depthwise(problem, backward, bias is not None)
        call.run(_ready(call.device, program), **arrays)

    return run


def _depthwise_weight(problem):
    return depthwise.weight_gradient(problem, select.WORDS[problem.dtype.name])


def _depthwise_weight_accepts(problem):
    machine, device = _current()
    if device.arch < 80:
        return "needs a GPU of compute capability 8.0 or later"
    if problem.dtype.name not in select.WORDS:
        return f"needs arrays of float32 or 16 bits, got {problem.dtype}"
    try:
        return _unbuildable(machine, _depthwise_weight(problem))
    except Refused as reason:
        return str(reason)


def _depthwise_weight_run(call, problem, dy, x, dweight):
    dy, x = call.contiguous(dy), call.contiguous(x)
    call.run(_ready(call.device, _depthwise_weight(problem)), dy=dy, x=x, dweight=dweight)


def _depthwise_rows(direction):
    always, nothing = lambda problem, precision: None, lambda kernels, problem, threads: 0
    if direction == "conv_backward_weight":
        parts = lambda kernels, problem, threads: _depthwise_weight(problem).scratch_bytes  # noqa: E731
        return (Algorithm(FLAT, _depthwise_weight_accepts, always, _depthwise_weight_run, parts),)
    backward = direction == "conv_backward_input"
    row = Algorithm(FLAT, _depthwise_accepts(backward), always, _depthwise_run(backward), nothing)
    return (row,)


# -- the tables ----------------------------------------------------------------------------------------------


def rows(direction):
    """The `Algorithm`s of a direction, fastest first, to be put in front of the simple ones."""
    return _depthwise_rows(direction) + tuple(
        Algorithm(
            name, _accepts(name, direction), _suits(name), _run(name, direction), _scratch(name, direction)
        )
        for name in select.names(direction)
    )
