"""What `fastconv._arithmetic` does with arrays on a device: sums, joins, parts, rows, elementwise rules."""

import numpy as np

from ..._arguments import is_half, native_dtype
from ..._errors import UnsupportedError
from .. import _arrays, fast, memory_bound
from .._arrays import Call
from .._replay import replayed
from ..simple import copy as copies
from ..simple import elementwise, half, reduce, rules


@replayed
def add(a, b, factor):
    call = Call("add", a, b)
    a, b = map(call.contiguous, call.arrays)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"add: {a.dtype} {a.shape} and {b.dtype} {b.shape} (need one shape and dtype)")
    y = call.empty(a.shape, a.dtype)
    program = memory_bound.add(fast.word(a), a.size, float(factor))
    if not fast.done(call, program, a=a, b=b, out=y):
        elementwise.add(call, a, b, factor, y)
    return y.owner


def concatenate(arrays, axis):
    call = Call("concatenate", *arrays)
    sizes = [array.shape[axis] for array in call.arrays]
    shape = list(call.arrays[0].shape)
    shape[axis] = sum(sizes)
    y = call.empty(tuple(shape), call.arrays[0].dtype)
    for array, target in zip(call.arrays, _parts(y, sizes, axis)):
        copies.scatter(call, call.contiguous(array), target)
    return y.owner


def split(array, sizes, axis):
    call = Call("split", array)
    made = []
    for part in _parts(call.arrays[0], sizes, axis):
        made.append(call.empty(part.shape, part.dtype))
        copies.gather(call, part, made[-1])
    return [part.owner for part in made]


def _parts(array, sizes, axis):
    start = 0
    for size in sizes:
        shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
        yield array.view(shape, array.strides).moved(start * array.strides[axis])
        start += size


def reshape(array, shape):
    call = Call("reshape", array)
    (described,) = call.arrays
    if not described.contiguous:
        made = call.empty(described.shape, described.dtype)
        copies.gather(call, described, made)
        array = made.owner
    return array.reshape(shape)


def order(array, rows):
    return _arrays.to_device(np.ascontiguousarray(rows, np.int64))


@replayed
def take(array, rows):
    call = Call("take", array, rows)
    x, rows = map(call.contiguous, call.arrays)
    y = call.empty((rows.size, *x.shape[1:]), x.dtype)
    copies.take(call, x, rows.flat(), y)
    return y.owner


FLOATS = ("float16", "bfloat16", "float32", "float64")


def full_like(array, value):
    call = Call("full_like", array)
    y = call.empty(call.arrays[0].shape, call.arrays[0].dtype)
    copies.fill(call, y, value)
    return y.owner


@replayed
def copy(array):
    call = Call("copy", array)
    y = call.empty(call.arrays[0].shape, call.arrays[0].dtype)
    copies.gather(call, call.arrays[0], y)
    return y.owner


@replayed
def count_right(outputs, classes):
    call = Call("count_right", outputs, classes)
    outputs, classes = map(call.contiguous, call.arrays)
    hits = call.scratch((1, outputs.shape[0]), np.dtype(np.int64))
    elementwise.hits(call, outputs, classes.flat(), hits)
    total = call.empty((), np.dtype(np.int64))
    reduce.rows(call, hits, total.view((1,)))
    return total.owner


def cast(array, dtype):
    """A copy in another float dtype, which is named or an np.dtype; the array itself if it has it."""
    call = Call("cast", array)
    (x,), name = call.arrays, getattr(dtype, "name", dtype)
    if x.dtype.kind != "f" or name not in FLOATS:
        raise TypeError(f"cast: {x.dtype} to {name}, accepted: {', '.join(FLOATS)}")
    if x.dtype.name == name:
        return array
    y = call.empty(x.shape, native_dtype(np.dtype(name).char if name != FLOATS[1] else name))
    half.cast(call, call.contiguous(x), y)
    return y.owner


def apply(rule, changed, read, numbers, decay, rounded):
    call = Call(rule.__name__, *changed, *read, *([] if rounded is None else [rounded]))
    arrays = call.arrays
    written = [*arrays[: len(changed)], *([] if rounded is None else arrays[-1:])]
    for array in written:
        if not array.contiguous:
            raise ValueError(
                f"{rule.__name__}: a parameter has strides {array.strides}, need a contiguous one"
            )
    dtype = arrays[0].dtype
    if any(is_half(array.dtype) for array in arrays[: len(changed)]):
        raise UnsupportedError(f"{rule.__name__}: a parameter has 16 bits, accepted: float32 or float64")
    # beside float32, a gradient may have 16 bits, and so does what a parameter is rounded to
    shorter = is_half if dtype == np.float32 else (lambda _: False)
    wrong = any(array.dtype != dtype and not shorter(array.dtype) for array in arrays)
    if wrong or len({array.shape for array in arrays}) > 1:
        raise ValueError(f"{rule.__name__}: arrays of several shapes or dtypes (need one)")
    arrays = [*arrays[: len(changed)], *map(call.contiguous, arrays[len(changed) :])]
    numbers, short = tuple(map(float, numbers)), rounded is not None
    rules.apply(call, rule, len(changed), arrays, numbers, float(decay), short)
