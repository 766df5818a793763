"""What a single argument may be: arrays, integers, real numbers, flags, words, axes.

Every function takes the operation and the argument's name for its message, and either returns the argument in
its one canonical form (plain ndarray, int, float, bool, str) or raises TypeError (wrong kind or dtype) or
ValueError (wrong value). What arguments mean together is `_problem`'s business and each operation's.
"""

import functools
import math
import operator
import reprlib

import numpy as np
from numpy import ndarray

INT_MAX = 2**31 - 1  # bound of every size option, so that no product of two of them leaves int64
INDEX_MAX = 2**63 - 1
AXES_MAX = 64  # of a NumPy array, and so of anything that has one value per axis
BYTES_MAX = 2**62  # what no memory holds is refused before arithmetic on its size can overflow


def show(value):
    """A short repr for messages, whatever the value."""
    try:
        return reprlib.repr(value)
    except Exception:  # a repr of the user's own that fails must not hide the real error
        return f"a {type(value).__name__}"


# -- dtypes --------------------------------------------------------------------------------------------------


class _BFloat16:
    """bfloat16, for which NumPy has no dtype: what problems and arrays on a device are told of one."""

    __slots__ = ()
    name = char = "bfloat16"
    kind, itemsize = "f", 2

    def __repr__(self):
        return self.name

    def __reduce__(self):
        return "BFLOAT16"  # copies are the one there is


BFLOAT16 = _BFloat16()
FLOATS = ("f", "d")  # NumPy's codes of what every backend computes in
HALVES = ("e", BFLOAT16.char)  # what arrays on a device may be of besides
DEVICE_FLOATS = (*FLOATS, *HALVES)


def native_dtype(char):
    """The dtype of a code: NumPy's, in the native byte order, or BFLOAT16."""
    return BFLOAT16 if char == BFLOAT16.char else np.dtype(char)


def is_half(dtype):
    """Whether a canonical dtype is one of the two of 16 bits, which only a device has."""
    return dtype is BFLOAT16 or dtype.char == "e"


def accepted_floats(device):
    """The accepted dtypes as messages name them."""
    return "float16, bfloat16, float32 or float64" if device else "float32 or float64"


def _named_bfloat16(dtype):
    """By the name that torch, JAX and ml_dtypes give it, or as two bytes, which is how torch describes it."""
    if isinstance(dtype, np.dtype) and dtype.str[1:] == "V2" and dtype.names is None:
        return True
    return str(dtype).rpartition(".")[2] == BFLOAT16.name


# -- arrays --------------------------------------------------------------------------------------------------


DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged
DEVICE_TYPES = set()  # of arrays that live on a GPU all, with NumPy's attributes: `fastconv.cuda`'s own
# What `fastconv.cuda` sets: seen(op, array on a device) -> one of these types that stands for it; and for
# types of other libraries that were seen before, the same, or None for an array that has to be looked at.
seen, READERS = None, {}


def on_device(value):
    """Whether `value` lives on a GPU, by the protocol that numba, CuPy and torch share, or by DLPack's.

    torch raises from the attribute for its host tensors (AttributeError), for tensors that need a gradient
    (RuntimeError) and for dtypes that it does not name (KeyError); the latter two do live on a device. The
    arrays of numba's simulator, which live nowhere else, have neither protocol, but the mark of a numba
    device array.
    """
    if type(value) in DEVICE_TYPES:
        return True
    if type(getattr(value, "is_cuda", None)) is bool:  # torch, whose array interface takes long
        return value.is_cuda
    try:
        if getattr(value, "__cuda_array_interface__", None) is not None:
            return True
    except (RuntimeError, TypeError, KeyError):
        return True
    if isinstance(value, type):
        return False
    if getattr(value, "__cuda_ndarray__", False) is True:
        return True
    ask = getattr(value, "__dlpack_device__", None)
    try:
        return ask is not None and int(ask()[0]) in DLPACK_CUDA
    except Exception:  # an object of the user's own: whatever it is, it names no GPU
        return False


def device_memory(value):
    """(address, shape, strides in bytes, itemsize, read-only) of an array on a device; None if it tells none.

    It must have passed `any_array`.
    """
    if type(value) in DEVICE_TYPES:
        return value.pointer, value.shape, value.strides, value.itemsize, value.readonly
    if hasattr(value, "data_ptr"):  # torch, whose array interface does not know all of its dtypes
        itemsize = value.element_size()
        strides = tuple(step * itemsize for step in value.stride())
        return value.data_ptr(), tuple(value.shape), strides, itemsize, False
    told = getattr(value, "__cuda_array_interface__", None)
    if told is None:
        if not hasattr(value, "ctypes"):  # numba's simulator wraps a NumPy array
            return None
        return value.ctypes.data, tuple(value.shape), value.strides, value.dtype.itemsize, False
    shape, itemsize = tuple(told["shape"]), np.dtype(told["typestr"]).itemsize
    strides = told.get("strides")
    if strides is None:
        strides = contiguous_strides(shape, itemsize)
    return told["data"][0], shape, tuple(strides), itemsize, bool(told["data"][1])


def contiguous_strides(shape, itemsize):
    """Strides in bytes of a C-contiguous array."""
    strides = [itemsize]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(strides[::-1]) if shape else ()


def any_array(op, name, value, scalars=False):
    """`value` as a plain ndarray that shares its memory; on a device as it is, or what stands for it there.

    Subclasses without meaning of their own (memmap, matrix, recarray) lose their class, so that indexing is
    ordinary indexing from here on. NumPy scalars become 0-d arrays where `scalars` allows them.
    """
    if type(value) is ndarray:
        return value
    if isinstance(value, ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(
                f"{op}: {name} is a masked array and masks are not honoured"
                f" (fill it: np.asarray({name}.filled(0)))"
            )
        return value.view(ndarray)
    if type(value) in DEVICE_TYPES:
        return value
    read = READERS.get(type(value))
    found = None if read is None else read(op, value)
    if found is not None:
        return found
    if scalars and isinstance(value, np.generic):
        return np.asarray(value)
    if on_device(value):
        if getattr(value, "requires_grad", False) is True:
            raise TypeError(
                f"{op}: {name} requires a gradient, which would not be recorded (pass {name}.detach())"
            )
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return value if seen is None else seen(op, value)
        raise TypeError(
            f"{op}: {name} must be an array, got {type(value).__name__}"
            " (it has __cuda_array_interface__, but no shape and dtype)"
        )
    raise TypeError(
        f"{op}: {name} must be a NumPy array, got {type(value).__name__} (convert it with np.asarray({name}))"
    )


def float_array(op, name, value, scalars=False):
    """`value` as a plain ndarray of float32 or float64, in any byte order; on a device of 16 bits too."""
    if type(value) is ndarray:
        if value.dtype.char in FLOATS:
            return value
    elif type(value) in DEVICE_TYPES and value.dtype.char in DEVICE_FLOATS:
        return value
    else:
        value = any_array(op, name, value, scalars)
    char, device = dtype_char(value), not isinstance(value, ndarray)
    if char not in FLOATS and not (device and char in HALVES):
        raise wrong_dtype(op, name, value, accepted_floats(device))
    return value


def integer_array(op, name, value):
    """`value` as a plain ndarray of some integer dtype; bool is not one."""
    if type(value) in DEVICE_TYPES and value.dtype.kind in "iu":
        return value
    value = any_array(op, name, value, scalars=True)
    if native_dtype(dtype_char(value)).kind not in "iu":
        raise wrong_dtype(op, name, value, "an integer dtype")
    return value


def array_of(op, name, value, dtype, scalars=False):
    """`value` as a plain ndarray of exactly `dtype` (np.int64, np.bool_), in any byte order."""
    if (type(value) is ndarray or type(value) in DEVICE_TYPES) and value.dtype == dtype:
        return value
    value = any_array(op, name, value, scalars)
    if native_dtype(dtype_char(value)) != np.dtype(dtype):
        raise wrong_dtype(op, name, value, np.dtype(dtype).name)
    return value


def dtype_char(array):
    """NumPy's one-letter code of the dtype: equal for both byte orders, cheap to compare and to hash.

    "bfloat16" for that, "V" for what NumPy does not know.
    """
    if isinstance(array, ndarray) or type(array) in DEVICE_TYPES:
        return array.dtype.char
    if getattr(array, "__cuda_ndarray__", False) is True and array.dtype.kind != "V":  # numba's: at once
        return array.dtype.char
    if hasattr(array, "data_ptr"):  # torch's, whose array interface takes long and does not know all dtypes
        return _named_char(str(array.dtype).rpartition(".")[2])
    try:
        told = getattr(array, "__cuda_array_interface__", None)
        dtype = np.dtype(array.dtype if told is None else told["typestr"])
    except (RuntimeError, TypeError, KeyError):
        dtype = array.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "V":
        return dtype.char
    return BFLOAT16.char if _named_bfloat16(dtype) else "V"


@functools.lru_cache(maxsize=64)
def _named_char(name):
    try:
        return native_dtype(name).char
    except TypeError:
        return "V"


def wrong_dtype(op, name, value, accepted):
    dtype = getattr(value, "dtype", type(value).__name__)
    return TypeError(
        f"{op}: {name} has dtype {dtype}, accepted: {accepted} (convert it with {name}.astype(...))"
    )


def same_dtype(op, **arrays):
    """All arrays (None aside) have one dtype, byte order aside; nothing is promoted."""
    first = None
    for name, array in arrays.items():
        if array is None:
            continue
        if first is None:
            first, char, whose = array, dtype_char(array), name
        elif dtype_char(array) != char:
            raise TypeError(
                f"{op}: {name} has dtype {array.dtype}, {whose} has {first.dtype} (all arrays must share one"
                f" dtype, {accepted_floats(not isinstance(array, ndarray))}; nothing is promoted)"
            )


def alike(op, name, value, like_name, like, scalars=False):
    """Both as `float_array` gives them, of one dtype and one shape."""
    if (  # nearly every call: one look instead of the checks that say what is wrong
        type(value) is ndarray
        and type(like) is ndarray
        and value.dtype is like.dtype
        and value.shape == like.shape
        and value.dtype.char in "fd"
    ):
        return value, like
    if type(value) is type(like) and type(value) in DEVICE_TYPES:  # and on a device
        dtype = value.dtype
        if dtype is like.dtype and dtype.char in DEVICE_FLOATS and value.shape == like.shape:
            return value, like
    value = float_array(op, name, value, scalars)
    like = float_array(op, like_name, like, scalars)
    if value.dtype is like.dtype and value.shape == like.shape:
        return value, like
    same_dtype(op, **{like_name: like, name: value})
    shape_is(op, name, value, tuple(like.shape), f"the shape of {like_name}")
    return value, like


def shape_is(op, name, array, shape, rule):
    if array.shape != shape:
        raise ValueError(f"{op}: {name} has shape {array.shape}, need {shape} ({rule})")


def addressable(op, shape, itemsize):
    """Refuse a result that no memory holds; zero sizes count as 1, as the other axes are indexed too."""
    if 0 < math.prod(shape) * itemsize <= BYTES_MAX:
        return
    if math.prod(max(n, 1) for n in shape) * itemsize > BYTES_MAX:
        raise ValueError(f"{op}: an array of shape {shape} is larger than any memory")


def output_array(op, out, shape, dtype, inputs):
    """`out` as a plain ndarray that may be written: exact shape, dtype, C-contiguous, no input's memory."""
    plain = any_array(op, "out", out)
    if not isinstance(plain, ndarray):
        return _device_output(op, plain, shape, dtype, inputs)
    if plain.dtype != dtype:
        raise TypeError(f"{op}: out has dtype {plain.dtype}, need {dtype} (the native dtype of the inputs)")
    if plain.shape != shape:
        raise ValueError(f"{op}: out has shape {plain.shape}, need {shape} (the shape of the result)")
    flags = plain.flags
    if not (flags.c_contiguous and flags.aligned):
        raise ValueError(f"{op}: out has strides {plain.strides}, need a C-contiguous, aligned array")
    if not flags.writeable:
        raise ValueError(f"{op}: out is read-only, need a writable array")
    for name, array in inputs:
        if array is not None and overlap(plain, array):
            raise ValueError(f"{op}: out shares memory with {name} (the result must not overlap an input)")
    return plain


def _device_output(op, out, shape, dtype, inputs):
    if dtype_char(out) != dtype.char:
        raise TypeError(f"{op}: out has dtype {out.dtype}, need {dtype} (that of the inputs)")
    if tuple(out.shape) != shape:
        raise ValueError(f"{op}: out has shape {tuple(out.shape)}, need {shape} (the shape of the result)")
    memory = device_memory(out)
    if memory is None or memory[4]:
        raise ValueError(f"{op}: out is read-only, need a writable array")
    need = contiguous_strides(shape, dtype.itemsize)
    if 0 not in shape and any(n > 1 and a != b for n, a, b in zip(shape, memory[2], need)):
        raise ValueError(f"{op}: out has strides {memory[2]}, need a C-contiguous array, {need}")
    for name, array in inputs:
        if array is not None and overlap(out, array):
            raise ValueError(f"{op}: out shares memory with {name} (the result must not overlap an input)")
    return out


def writable(array):
    """Whether an array that has passed `any_array` may be written to."""
    if isinstance(array, ndarray):
        return array.flags.writeable
    memory = device_memory(array)
    return memory is not None and not memory[4]


def owns_memory(array):
    """Whether no other array, unless it is a view of this one, lies in its memory."""
    return array.flags.owndata if isinstance(array, ndarray) else getattr(array, "owns_memory", False) is True


def plain_type(array):
    """The type of an array whose attributes are NumPy's and cheap: ndarray, or of a device; else `object`."""
    kind = type(array)
    return kind if kind is ndarray or kind in DEVICE_TYPES else object


def _extent(array):
    """The first byte of an array on a device and the one after its last; None where it has no elements."""
    if type(array) in DEVICE_TYPES:
        return array.extent
    memory = device_memory(array)
    if memory is None or 0 in memory[1]:
        return None
    reach = [(size - 1) * stride for size, stride in zip(memory[1], memory[2])]
    low = memory[0] + sum(r for r in reach if r < 0)
    return low, memory[0] + sum(r for r in reach if r > 0) + memory[3]


def overlap(a, b):
    """Whether two arrays share an element; where the exact answer is expensive, whether their bounds meet."""
    if not isinstance(a, ndarray) and not isinstance(b, ndarray):
        a, b = _extent(a), _extent(b)
        return a is not None and b is not None and a[0] < b[1] and b[0] < a[1]
    if not isinstance(a, ndarray) or not isinstance(b, ndarray):
        return False
    if a is not b and a.flags.owndata and b.flags.owndata:  # the exact answer takes ten times as long
        return False
    try:
        return np.shares_memory(a, b, max_work=1_000_000)
    except Exception:  # TooHardError, or overflow inside the exact solver
        return np.may_share_memory(a, b)


# -- integers ------------------------------------------------------------------------------------------------


def integer(op, name, value, low, high=INT_MAX):
    """An int, NumPy integer or anything with ``__index__`` (bool is not one), between low and high."""
    if type(value) is not int:
        value = _index(op, name, value, "an int")
    if not low <= value <= high:
        bound = f"at least {low}" if value < low else f"at most {high}"
        raise ValueError(f"{op}: {name}={show(value)}, need {bound}")
    return value


def canonical(op, name, value):
    """Ints, or (nested) sequences of ints, as int or tuples: hashable, equal where they mean the same."""
    if type(value) is int or isinstance(value, str) or (type(value) is tuple and _is_canonical(value)):
        return value
    if isinstance(value, (tuple, list)) or (isinstance(value, ndarray) and 0 < value.ndim <= 2):
        if (
            isinstance(value, ndarray) and value.size > AXES_MAX
        ):  # it may be of any length and occupy no memory
            raise ValueError(f"{op}: {name} has shape {value.shape}, need one value per axis")
        return tuple(
            tuple(_index(op, name, v, "ints") for v in item)
            if isinstance(item, (tuple, list))
            or (isinstance(item, ndarray) and item.ndim == 1 and item.size <= AXES_MAX)
            else _index(op, name, item, "an int or a sequence of ints")
            for item in value
        )
    return _index(op, name, value, "an int or a sequence of ints")


def _is_canonical(values):
    """Whether a tuple holds ints, or tuples of ints, and nothing else."""
    for value in values:
        if type(value) is int:
            continue
        if type(value) is not tuple:
            return False
        for item in value:
            if type(item) is not int:
                return False
    return True


def _index(op, name, value, kind):
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{op}: {name} must be {kind}, got {show(value)} ({type(value).__name__})")


def per_axis(op, name, value, ndim, low, high=INT_MAX):
    """A canonical option as `ndim` ints: an int or 1-tuple counts for every axis."""
    if isinstance(value, str) or (isinstance(value, tuple) and any(isinstance(v, tuple) for v in value)):
        raise TypeError(f"{op}: {name} must be an int or {ndim} ints, got {show(value)}")
    values = (value,) * ndim if isinstance(value, int) else value * ndim if len(value) == 1 else value
    if len(values) != ndim:
        raise ValueError(
            f"{op}: {name}={show(value)} has {len(values)} values, need 1 or {ndim} (one per spatial axis)"
        )
    for v in values:
        if not low <= v <= high:
            bound = f"at least {low}" if v < low else f"at most {high}"
            raise ValueError(f"{op}: {name}={show(value)}, need {bound} on every axis")
    return values


def shape_of(op, name, value):
    """A shape given by the user (``input_shape``): a tuple of ints >= 0."""
    if type(value) is tuple and value:
        for v in value:
            if type(v) is not int or not 0 <= v <= INDEX_MAX:
                break
        else:
            return value
    value = canonical(op, name, value)
    if not isinstance(value, tuple) or any(isinstance(v, tuple) for v in value):
        raise TypeError(f"{op}: {name} must be a sequence of ints, got {show(value)}")
    if any(v < 0 or v > INDEX_MAX for v in value):
        raise ValueError(f"{op}: {name}={show(value)}, need sizes between 0 and {INDEX_MAX}")
    return value


def axis_of(op, value, ndim):
    """An axis in [-ndim, ndim) as a non-negative one; a 0-d array counts as one axis, as in torch."""
    ndim = max(ndim, 1)
    axis = value if type(value) is int else _index(op, "axis", value, "an int")
    if not -ndim <= axis < ndim:
        raise ValueError(f"{op}: axis={show(axis)} is out of range for {ndim} dimension{'s' * (ndim > 1)}")
    return axis % ndim


# -- numbers, flags, words -----------------------------------------------------------------------------------


def real(op, name, value, low=None, high=None):
    """A finite real number as a Python float, between low and high where these are given."""
    number = value
    if type(value) is not float:
        if isinstance(value, (bool, np.bool_, str, bytes, complex, np.complexfloating)) or getattr(
            value, "ndim", 0
        ):
            raise TypeError(f"{op}: {name} must be a real number, got {show(value)} ({type(value).__name__})")
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        except (TypeError, ValueError):
            raise TypeError(
                f"{op}: {name} must be a real number, got {show(value)} ({type(value).__name__})"
            ) from None
    if not math.isfinite(number):
        raise ValueError(f"{op}: {name}={show(value)}, need a finite number")
    if (low is not None and number < low) or (high is not None and number > high):
        rule = f">= {low}" if high is None else f"<= {high}" if low is None else f"between {low} and {high}"
        raise ValueError(f"{op}: {name}={show(value)}, need a number {rule}")
    return number


def flag(op, name, value):
    if type(value) is bool:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{op}: {name} must be True or False, got {show(value)} ({type(value).__name__})")


def word(op, name, value, words):
    """One of `words`, which may contain None."""
    if value is None or isinstance(value, str):
        if value in words:
            return None if value is None else str(value)
        if value is not None:
            raise ValueError(f"{op}: {name}={show(value)}, need one of {', '.join(map(repr, words))}")
    raise TypeError(f"{op}: {name} must be one of {', '.join(map(repr, words))}, got {show(value)}")
