"""Which fast kernel can compute a problem on a device, which suits it, and its program. No device is touched.

An algorithm refuses with a reason: what it needs and what it got. Limits that depend on the whole geometry
(TMA corners and offsets, index range, grids) are found by building the program, for arrays as they would lie
contiguously; a program that was built is kept, so that asking and running cost one construction.
"""

from functools import lru_cache
from typing import NamedTuple

from . import convolution, dense
from .convolution import SMS, Refused, View
from .gen.kernel import BYTES
from .program import Pointer

GROUPS = 8  # that are worth a launch each
WORDS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
DIRECTIONS = ("conv", "conv_backward_input", "conv_backward_weight")


class Device(NamedTuple):
    """What the choice depends on. arch: ten times the compute capability, 0 where there is no device."""

    arch: int
    multiprocessors: int = 132
    shared: int = 232448  # bytes that a block may ask for


class Choice(NamedTuple):
    """One fast algorithm.

    Its products' dtype (None: that of the arrays), least and last arch, what admits it.
    """

    dtype: str | None
    arrays: tuple  # dtypes of arrays that it takes
    arch: tuple  # (least, last)
    precisions: tuple
    directions: tuple = DIRECTIONS[:2]


HALF, SINGLE = ("f16", "bf16"), ("f32",)
ANY = ("strict", "fast", "tf32")
# fastest first
CHOICES = {
    "wgmma": Choice(None, HALF, (90, 90), ANY, DIRECTIONS),
    "mma": Choice(None, HALF, (80, 999), ANY, DIRECTIONS),
    "wgmma_tf32": Choice("tf32", SINGLE, (90, 90), ("tf32",)),
    "mma_tf32": Choice("tf32", SINGLE, (80, 999), ("tf32",), DIRECTIONS),
    "wgmma_3xtf32": Choice("f32", SINGLE, (90, 90), ("fast", "tf32")),
    "mma_3xtf32": Choice("f32", SINGLE, (80, 999), ("fast", "tf32"), DIRECTIONS),
    "ffma": Choice("f32", SINGLE, (80, 999), ANY, DIRECTIONS),
}


def names(direction):
    """The fast algorithms of a direction, fastest first."""
    return tuple(name for name, choice in CHOICES.items() if direction in choice.directions)


def refused(name, direction, problem, device, dtype=None):
    """Why an algorithm cannot compute a problem on a device, or None. dtype: of the arrays ("bf16", ...)."""
    dtype = dtype or WORDS.get(problem.dtype.name)
    reason = _unfit(name, device, dtype, problem.dtype)
    if reason is not None:
        return reason
    if problem.padding_mode != "zeros":
        return f"needs padding_mode='zeros', got {problem.padding_mode!r}"
    reason = _too_many_groups(name, direction, problem, dtype)
    if reason is not None:
        return reason
    views = contiguous_views(direction, problem)
    return _unfit_program(device, lambda: program_of(name, direction, problem, dtype, *views))


def _too_many_groups(name, direction, problem, dtype):
    """Why an algorithm is not for so many groups, or None.

    wgmma launches once a group, as its tensor maps hold one; mma.sync does unless each has whole pieces of 16
    bytes. Tiles would be empty for the most part below 8 channels.
    """
    G = problem.groups
    if G <= GROUPS:
        return None
    rows, columns = problem.K // G, problem.C // G
    if name.startswith("wgmma"):
        return f"launches once a group, for at most {GROUPS}, got {G}"
    if min(rows, columns) < 8:
        return f"needs 8 channels or more a group for more than {GROUPS} groups, got {min(rows, columns)}"
    read = {"conv": (columns,), "conv_backward_input": (rows,)}.get(direction, (rows, columns))
    if name.startswith("mma") and any(channels % (16 // BYTES[dtype]) for channels in read):
        return f"launches once a group of other than whole 16 bytes, for at most {GROUPS} groups, got {G}"
    return None


def _unfit(name, device, dtype, shown):
    """Why an algorithm is not for a device or for arrays of a dtype (shown as `shown` if None), or None."""
    choice = CHOICES[name]
    if device.arch == 0:
        return "needs a GPU"
    least, last = choice.arch
    if not least <= device.arch <= last:
        only = f"compute capability {least / 10}" + (" or later" if last > least else "")
        return f"needs {only}, got {device.arch / 10}"
    if dtype not in choice.arrays:
        return f"needs {' or '.join(choice.arrays)} arrays, got {dtype or shown}"
    return None


def _unfit_program(device, build):
    """Why the program that build() returns cannot run on a device, or None."""
    try:
        program = build()
    except Refused as reason:
        return str(reason)
    most = max((step.kernel.shared for step in program.steps), default=0)
    if most > device.shared:
        return f"needs {most} bytes of shared memory, the device has {device.shared}"
    return None


def unsuited(name, problem, precision):
    """Why "auto" would rather not use an algorithm that accepts the problem, or None."""
    choice = CHOICES[name]
    if precision not in choice.precisions:
        what = {"tf32": "is single-pass TF32", "f32": "is three TF32 products, not a direct sum"}[
            choice.dtype
        ]
        need = " or ".join(repr(p) for p in choice.precisions)
        return f"{what}: needs set_precision({need}), got {precision!r}"
    return None


def contiguous_views(direction, problem):
    """Views of the two image stacks of a direction, as C-contiguous arrays in buffers of their usual names.
    """
    first, second = {
        "conv": ("x", "y"),
        "conv_backward_input": ("dy", "dx"),
        "conv_backward_weight": ("x", "dy"),
    }[direction]
    make = {
        name: convolution.contiguous(name, problem.C, problem.size)
        if name in ("x", "dx")
        else convolution.contiguous(name, problem.K, problem.out)
        for name in (first, second)
    }
    return make[first], make[second]


def view(name, problem, strides):
    """The View of a buffer with these strides in elements, for (N, channel, D, H, W)."""
    channels, size = (problem.C, problem.size) if name in ("x", "dx") else (problem.K, problem.out)
    return View(Pointer(name), channels, strides, size)


@lru_cache(maxsize=4096)
def program_of(name, direction, problem, dtype, first, second, bias=False, multiprocessors=SMS):
    """The Program of an algorithm, for Views of x and y, dy and dx, or x and dy. Raises Refused.

    bias: whether a gradient of the input adds one, as a transposed convolution does; multiprocessors: of the
    device, for grids alone.
    """
    kind = CHOICES[name].dtype or dtype
    if direction == "conv_backward_weight":
        if name == "ffma":
            return convolution.ffma_weight(problem, first, second)
        made = convolution.wgmma_weight if name == "wgmma" else convolution.mma_weight
        return made(problem, first, second, kind)
    if direction == "conv":
        sums = convolution.forward_sums(problem, first, second, BYTES[dtype])
    else:
        sums = convolution.backward_input_sums(problem, first, second, BYTES[dtype], bias)
    if name == "ffma":
        return convolution.ffma(sums)
    if name.startswith("wgmma"):
        return convolution.wgmma(sums, kind, multiprocessors=multiprocessors)
    return convolution.mma(sums, kind)


# -- the fully connected layer -------------------------------------------------------------------------------

LINEAR = dict(zip(dense.DIRECTIONS, DIRECTIONS))  # has the same algorithms as the convolution that it is


@lru_cache(maxsize=4096)
def linear(name, direction, layer, dtype, multiprocessors=SMS):
    """The Program of an algorithm for a `dense.Layer` of arrays of a dtype. Raises Refused."""
    return dense.program(name, direction, layer, CHOICES[name].dtype or dtype, multiprocessors)


def linear_candidates(direction, layer, dtype, precision, device):
    """The Programs of the algorithms that "auto" may use, fastest first. Which ones these are does not depend
    on the number of rows, but for what no index reaches.
    """
    for name in names(LINEAR[direction]):
        if unsuited(name, layer, precision) is None and _unfit(name, device, dtype, dtype) is None:
            arguments = name, direction, layer, dtype, device.multiprocessors
            if _unfit_program(device, lambda: linear(*arguments)) is None:  # noqa: B023
                yield linear(*arguments)
