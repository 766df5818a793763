"""Launching simple kernels: types, grids, parameters; and the index arithmetic that kernels share.

numba compiles them, once for all processes (`_cache`); they are launched by `_launch` like all others, since
numba's own launches cost some microseconds for every array.
"""

import functools
import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import cuda, int64, types, uint32

from ..._arguments import is_half
from .. import _arrays, _launch
from ..program import Pointer

try:
    from numba.cuda.extending import register_jitable
except ImportError:  # the target that numba itself still contains
    from numba.extending import register_jitable

device = register_jitable  # a function that kernels call; in the simulator it is an ordinary function

THREADS = 128  # a multiple of the warp, small enough for any number of registers
BLOCKS = 1 << 20  # more would gain nothing, and threads stride over the rest
SIMULATED = (2, 4)  # blocks and threads in the simulator, where a thread of the system plays each of them


@device
def split(i, n):
    """i // n and i % n for i >= 0, n > 0: where both fit in 32 bits, by a division of a third of the cost."""
    if i < 4294967296 and n < 4294967296:
        q = int64(uint32(i) // uint32(n))
    else:
        q = i // n
    return q, i - q * n


if _arrays.SIMULATOR:

    def split(i, n):  # numba's casts are slow in Python, and its integers have no width
        return divmod(i, n)


class Typed(NamedTuple):
    """A kernel for arguments of some types, as `_launch.Runner` and `_compile` take it."""

    kernel: object
    signature: tuple
    shared = 0

    @property
    def name(self):
        return self.kernel.__name__

    @property
    def function(self):
        return self.kernel.variant(self.signature)

    @property
    def types(self):
        """numba's, of the arguments."""
        return types_of(self.signature).args

    @property
    def digest(self):
        """Of everything that decides the machine code, apart from the tools: the texts of all simple kernels,
        since they call each other's functions.
        """
        return hashlib.sha256(repr((_sources(), self.kernel.identity, self.signature)).encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def _sources():
    whole = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


class Kernel:
    """A kernel function, compiled when first launched with arguments of some types.

    Arrays are typed as strided ones ("A" in numba's words), so that one compilation serves every layout; ints
    are int64, floats have the dtype of the first floating array: numba would take a Python float for float64,
    and compute in it. For arrays of 16 bits a variant of the function is compiled (see `short`), which
    computes in float32; floats are float32 then. identity: what tells the function from others, where it does
    not stand in this folder.
    """

    def __init__(self, function, identity=None):
        functools.update_wrapper(self, function)
        self.function = function
        self.identity = identity or (function.__module__, function.__qualname__)
        self._simulated = {}  # signature -> what runs it in the simulator
        self._frames = {}  # (signature, device) -> what launches it

    def signature(self, arguments):
        """What the types of the arguments depend on, cheap to make and to look up; see `types_of`."""
        real = next((a.dtype for a in arguments if hasattr(a, "strides") and a.dtype.kind == "f"), DOUBLE)
        if is_half(real):
            real = SINGLE
        return tuple(
            (a.dtype, len(a.shape))
            if hasattr(a, "strides")
            else len(a)
            if type(a) is tuple
            else real
            if type(a) is float
            else type(a)
            for a in arguments
        )

    def variant(self, signature):
        """The function to compile for a signature; for arrays of 16 bits one that converts."""
        short = tuple(of[0].name if type(of) is tuple and is_half(of[0]) else "" for of in signature)
        if not any(short):
            return self.function
        from .short import variant

        return variant(self.function, short)

    def launch(self, call, size, *arguments):
        """Run with at least one thread per element of `size`, on the call's stream. Nothing waits for it."""
        if size == 0:
            return
        if call.recorder is not None:
            call.recorder.simple(self, size, arguments)
        self.run(call, size, arguments)

    def run(self, place, size, arguments):
        """The launch itself. place: with the device and the stream."""
        signature = self.signature(arguments)
        if _arrays.SIMULATOR:
            ready = self._simulated.get(signature)
            if ready is None:
                compiled = cuda.jit(types_of(signature))(self.variant(signature))
                ready = self._simulated[signature] = compiled[SIMULATED]
            ready(*(_simulated(argument, of) for argument, of in zip(arguments, signature)))
            return
        frame = self._frames.get((signature, place.device))
        if frame is None:
            runner = _launch.runner(place.device)
            letters = "".join(letter for letter, _ in parameters(arguments, signature))
            frame = _launch.Frame(runner.handle(Typed(self, signature)), letters, THREADS, runner.driver)
            self._frames[signature, place.device] = frame
        with _arrays.on_device(place.device):
            frame(grid(size), place.stream, [value for _, value in parameters(arguments, signature)])

    def task(self, runner, size, operands):
        """The launch as a `_launch.Task`. operands: arguments, with `_replay.Operand`s for the arrays."""
        signature = self.signature(operands)
        handle = runner.handle(Typed(self, signature))
        return _launch.Task(handle, (grid(size),), THREADS, 0, parameters(operands, signature))


def grid(size):
    """How many blocks a launch has."""
    return min(-(-size // THREADS), BLOCKS)


def parameters(arguments, signature):
    """(letter, value) of all parameters, as numba's kernels take their arguments; see `_launch.FORMATS`.

    An array is seven numbers and more: two that only numba's own memory uses, the number of elements, their
    size, the address, shape, strides.
    """
    found = []
    for argument, of in zip(arguments, signature):
        if hasattr(argument, "strides"):
            shape = argument.shape
            found += [("P", 0), ("P", 0), ("L", math.prod(shape)), ("L", argument.dtype.itemsize)]
            if type(argument) is _arrays.Array:
                found.append(("P", argument.pointer))
            else:
                found.append(("P", Pointer(argument.buffer, argument.offset)))
            found += [("L", n) for n in (*shape, *argument.strides)]
        elif type(argument) is tuple:
            found += [("L", n) for n in argument]
        elif type(argument) is float:
            found.append((REAL[of.itemsize], argument))
        else:
            found.append(("L", int(argument)))
    return found


REAL = {4: "F", 8: "D"}


def kernel(function, identity=None):
    """Decorator: a `Kernel`."""
    made = Kernel(function, identity)
    KERNELS.append(made)
    return made


KERNELS = []  # all there are, for the tests that compile them


DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)


def types_of(signature):
    """numba's types for what `Kernel.signature` gives."""
    from numba.np.numpy_support import from_dtype

    found = []
    for of in signature:
        if type(of) is tuple:
            kept = _arrays.UINT16 if of[0] is _arrays.BFLOAT16 else of[0]
            found.append(types.Array(from_dtype(kept), of[1], "A"))
        elif type(of) is int:
            found.append(types.UniTuple(types.int64, of))
        elif of is bool or of is int:
            found.append(types.boolean if of is bool else types.int64)
        elif isinstance(of, np.dtype):
            found.append(from_dtype(of))
        else:
            raise TypeError(
                f"a kernel was given {of.__name__}, need arrays, int, float, bool or tuples of int"
            )
    return types.void(*found)


def _simulated(argument, of):
    """An argument as a kernel of the simulator gets it."""
    if type(argument) is _arrays.Array:
        if argument.dtype is _arrays.BFLOAT16:
            argument = argument.bits()
        return _Checked(argument.memory())
    return of.type(argument) if type(argument) is float else argument


class _Checked:
    """An array inside a kernel of the simulator: an index outside of it, also a negative one, is an error.

    numba and NumPy count negative indices from the end, which would hide a kernel that reads in front of an
    array.
    """

    def __init__(self, array):
        self._get, self._set = array.__getitem__, array.__setitem__
        self.shape, self.size, self.ndim, self.dtype = array.shape, array.size, array.ndim, array.dtype

    def __getitem__(self, index):
        _no_negative(index)
        return self._get(index)

    def __setitem__(self, index, value):
        _no_negative(index)
        self._set(index, value)


def _no_negative(index):
    if (min(index) if type(index) is tuple else index) < 0:
        raise IndexError(f"index {index} is negative")
