"""Programs of the kernels that sum over channels or normalise them: bias gradients, batch and local response
normalisation. Arrays are (N, C, inner), contiguous, with 32-bit indices.

Every builder returns a `Program`, or None where the simple kernels have to do it. dtype is the word of x
("f32", "f16", "bf16"), `kept` that of weight, bias and running statistics.
"""

from functools import lru_cache

from .gen import norm
from .gen.kernel import MAXIMUM, ceil_div
from .gen.vectors import widest
from .program import Pointer, Program, Step



def _pointers(*names):
    return [Pointer(name) for name in names]


def _parts(what, dtype, N, C, inner, *inputs, known="f32"):
    """(step that leaves the parts of every channel in "parts", their number, scratch)."""
    vectors = widest(dtype, inner)
    length = N * inner
    count, steps = norm.steps_of(length, vectors.width)
    numbers = C, inner // vectors.width, length // vectors.width, steps
    step = Step(norm.parts(what, vectors, known), (C, count), (*_pointers(*inputs, "parts"), *numbers))
    return step, count, ("parts", 4 * C * count * len(norm.KEPT[what]))


def _fits(dtype, N, C, inner):
    return dtype is not None and 0 < N * C * inner <= MAXIMUM


def _elements(dtype, N, C, inner, *buffers, backward=False):
    vectors = widest(dtype, inner)
    total = N * C * inner // vectors.width
    blocks = ceil_div(total, norm.THREADS * norm.TOGETHER // vectors.width)
    kernel = norm.normalise(vectors, backward)
    return Step(kernel, (blocks,), (*_pointers(*buffers), C, inner // vectors.width, total))


def _warps(C):
    return (ceil_div(C, norm.WARPS),)


@lru_cache(maxsize=1024)
def channel_sum(dtype, N, C, inner):
    """Buffers "x" and "y" (C,)."""
    if not _fits(dtype, N, C, inner):
        return None
    step, count, scratch = _parts(norm.SUM, dtype, N, C, inner, "x")
    last = Step(norm.channel_sums(dtype), _warps(C), (*_pointers("parts", "y"), C, count))
    return Program((step, last), (scratch,))


def _optional(name, there):
    """The address of an array; of one that is not there that of the table, which then is not read."""
    return Pointer(name if there else "table")


@lru_cache(maxsize=1024)
def batch_norm(dtype, kept, N, C, inner, given, training, momentum, eps):
    """Buffers "x", "y", and of "weight", "bias", "running_mean", "running_var" those `given`."""
    if not _fits(dtype, N, C, inner) or kept is None:
        return None
    names = ("weight", "bias", "running_mean", "running_var")
    arrays, flags = [_optional(*pair) for pair in zip(names, given)], tuple(map(int, given))
    last = _elements(dtype, N, C, inner, "x", "table", "y")
    table = ("table", 4 * 3 * C)
    if not training:
        first = Step(
            norm.running(kept), (ceil_div(C, norm.THREADS),),
            (Pointer("table"), *arrays, C, *flags[:2], eps),
        )  # fmt: skip
        return Program((first, last), (table,))
    step, count, scratch = _parts(norm.MOMENTS, dtype, N, C, inner, "x")
    length = N * inner
    second = Step(
        norm.statistics(kept), _warps(C),
        (Pointer("parts"), Pointer("table"), *arrays, C, count, *flags, momentum, length / (length - 1), eps),
    )  # fmt: skip
    return Program((step, second, last), (scratch, table))


@lru_cache(maxsize=1024)
def batch_norm_backward(dtype, kept, N, C, inner, weight, training, eps):
    """Buffers "dy", "x", "dx", "dweight", "dbias", "weight" if there is one, and for given statistics
    "running_mean" and "running_var".
    """
    if not _fits(dtype, N, C, inner) or kept is None:
        return None
    what = norm.BACKWARD if training else norm.GIVEN
    given = () if training else ("running_mean",)
    step, count, scratch = _parts(what, dtype, N, C, inner, "x", "dy", *given, known=kept)
    buffers = [*_pointers("parts", "table"), _optional("weight", weight), *_pointers("dweight", "dbias")]
    if not training:
        buffers += _pointers("running_mean", "running_var")
    second = Step(norm.gradients(kept, training), _warps(C), (*buffers, C, count, int(weight), eps))
    last = _elements(dtype, N, C, inner, "x", "dy", "table", "dx", backward=True)
    return Program((step, second, last), (scratch, ("table", 4 * 4 * C)))


@lru_cache(maxsize=1024)
def response(dtype, N, C, inner, size, alpha, beta, k, backward=False):
    """Buffers "x" (and "dy") and "out"; windows of up to 9 channels, and denominators that are positive."""
    if not _fits(dtype, N, C, inner) or size > norm.WIDEST or not (k > 0 and alpha >= 0):
        return None
    vectors = widest(dtype, inner, 4)
    across, segments = inner // vectors.width, ceil_div(C, norm.SEGMENT)
    total = N * segments * across
    buffers = _pointers("x", *(["dy"] if backward else []), "out")
    return Program((
        Step(
            norm.response(size, vectors, backward), (ceil_div(total, norm.THREADS),),
            (*buffers, C, across, segments, total, k, alpha / size, beta, 2 * alpha * beta / size),
        ),
    ))  # fmt: skip
