"""Launching kernels: types, grids, streams; and the index arithmetic that kernels share."""

import functools
import warnings

import numpy as np
from numba import cuda, int64, types, uint32

from ..._arguments import is_half
from .. import _arrays

try:
    from numba.cuda.extending import register_jitable
except ImportError:  # the target that numba itself still contains
    from numba.extending import register_jitable

device = register_jitable  # a function that kernels call; in the simulator it is an ordinary function

THREADS = 128  # a multiple of the warp, small enough for any number of registers
BLOCKS = 1 << 20  # more would gain nothing, and threads stride over the rest
CONFIGURATIONS = 1024  # kept of each kernel
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


class Kernel:
    """A kernel function, compiled when first launched with arguments of some types.

    Arrays are typed as strided ones ("A" in numba's words), so that one compilation serves every layout; ints
    are int64, floats have the dtype of the first floating array: numba would take a Python float for float64,
    and compute in it. For arrays of 16 bits a variant of the function is compiled (see `short`), which
    computes in float32; floats are float32 then.
    """

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
        self._compiled = {}  # signature -> the compiled kernel
        self._ready = {}  # (signature, blocks, device, stream) -> what launches it

    def signature(self, arguments):
        """What the types of the arguments of a launch depend on, cheap to make and to look up; see `types_of`."""
        real = next((a.dtype for a in arguments if type(a) is _arrays.Array and a.dtype.kind == "f"), DOUBLE)
        if is_half(real):
            real = SINGLE
        return tuple(
            (a.dtype, a.ndim)
            if type(a) is _arrays.Array
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
        signature = self.signature(arguments)
        values = [_value_of(argument, of) for argument, of in zip(arguments, signature)]
        grid = min(-(-size // THREADS), BLOCKS)
        with _arrays.on_device(call.device):
            key = signature, grid, call.device, call.stream
            ready = self._ready.get(key)
            if ready is None:
                ready = self._configure(key, call.stream_argument())
            ready(*values)

    def _configure(self, key, stream):
        """A function of the arguments that launches; numba would warn of every grid that is small."""
        signature, grid, _, _ = key
        compiled = self._compiled.get(signature)
        if compiled is None:
            compiled = self._compiled[signature] = cuda.jit(types_of(signature))(self.variant(signature))
        if _arrays.SIMULATOR:
            return compiled[SIMULATED]
        if len(self._ready) >= CONFIGURATIONS:
            self._ready.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ready = self._ready[key] = compiled[grid, THREADS, stream]
        return ready


def kernel(function):
    """Decorator: a `Kernel`."""
    made = Kernel(function)
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


def _value_of(argument, of):
    if type(argument) is _arrays.Array:
        if argument.dtype is _arrays.BFLOAT16:
            argument = argument.bits()
        return _Checked(argument.memory()) if _arrays.SIMULATOR else argument.argument()
    if _arrays.SIMULATOR and type(argument) is float:
        return of.type(argument)
    return argument


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
