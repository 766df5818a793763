"""What convolution and pooling share: sizes along an axis, padding as pairs, parts of a problem's name."""

from numpy import ndarray

from .. import _arguments as arguments

AXES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}

CACHE = 2048  # problems kept of each kind: more than the layers of any network times its batch sizes


def key(array):
    """What a problem needs to know of an array: shape and one-letter dtype code (without byte order).

    The 16-bit dtypes, which only arrays on a device may have, come from there by name.
    """
    if array is None:
        return None, None
    if type(array) is ndarray:
        return array.shape, array.dtype.char
    return tuple(array.shape), device_char(array)


def device_char(array):
    """The code of the dtype of an array on a device."""
    char = arguments.dtype_char(array)
    return arguments.native_dtype(char).name if char in arguments.HALVES else char


def three(values, unit):
    """Values of the user's one to three axes as those of D, H, W."""
    values = tuple(values)
    return (unit,) * (3 - len(values)) + values


def spatial(op, name, shape, ndim):
    """(batched, N, C, size) of (N, C, *spatial) or (C, *spatial)."""
    if len(shape) not in (ndim + 1, ndim + 2):
        axes = ", ".join("DHW"[3 - ndim :])
        raise ValueError(
            f"{op}: {name} has {len(shape)} dimensions {shape},"
            f" need {ndim + 2} (N, C, {axes}) or {ndim + 1} (C, {axes})"
        )
    batched = len(shape) == ndim + 2
    if 0 in shape[batched:]:
        raise ValueError(f"{op}: {name} has shape {shape}, need at least 1 on every axis but N")
    return batched, shape[0] if batched else 1, shape[-ndim - 1], shape[-ndim:]


def pairs(op, padding, ndim):
    """A canonical padding (an int, ints, or pairs) as one (low, high) pair per axis."""
    if isinstance(padding, str):
        raise TypeError(
            f"{op}: padding={padding!r}, need an int, one int per axis, or one (low, high) pair per axis"
        )
    values = (padding,) * ndim if isinstance(padding, int) else padding
    found = [v if isinstance(v, tuple) else (v, v) for v in values]
    kinds = {isinstance(v, tuple) for v in values}
    shown = arguments.show(padding)
    if len(kinds) > 1 or any(len(pair) != 2 for pair in found):
        raise ValueError(
            f"{op}: padding={shown}, need an int, one int per axis, or one (low, high) pair per axis"
        )
    if len(found) == 1:
        found *= ndim
    if len(found) != ndim:
        unequal = ndim == 1 and kinds == {False}
        hint = " (one axis with unequal sides is written ((low, high),))" if unequal else ""
        raise ValueError(
            f"{op}: padding={shown} has {len(found)} values, need 1 or {ndim} (one per spatial axis){hint}"
        )
    for low, high in found:
        if min(low, high) < 0:
            raise ValueError(f"{op}: padding={shown}, need at least 0 on every side")
        if max(low, high) > arguments.INT_MAX:
            raise ValueError(f"{op}: padding={shown}, need at most {arguments.INT_MAX} on every side")
    return tuple(found)


def output_size(op, size, kernel, stride, dilation, pads):
    """floor((size + low + high - dilation * (kernel - 1) - 1) / stride) + 1 per axis, at least 1."""
    out = []
    for name, s, k, st, d, (low, high) in zip(AXES[len(size)], size, kernel, stride, dilation, pads):
        room = s + low + high - d * (k - 1) - 1
        if room < 0:
            raise ValueError(
                f"{op}: output {name} would be {room // st + 1} (x {name} {s}, padding {(low, high)},"
                f" kernel {k}, dilation {d}, stride {st}), need the kernel to fit the padded input"
            )
        out.append(room // st + 1)
    return tuple(out)


# -- names: options that all axes share are written once, others joined by x ---------------------------------


def plane_name(N, C, size):
    """n8c64h56w56; without n for a problem without a batch axis."""
    return ("" if N is None else f"n{N}") + f"c{C}" + letters("dhw", size)


def dtype_word(dtype):
    """f32, f64; on a device also f16, bf16."""
    return "bf16" if dtype is arguments.BFLOAT16 else f"f{8 * dtype.itemsize}"


def letters(names, values):
    return "".join(f"{a}{v}" for a, v in zip(names[-len(values) :], values))


def joined(values, always=False):
    """st2 is "2" for all axes, st2x1 differs; `always` writes every axis."""
    values = tuple(values)
    return str(values[0]) if len(set(values)) == 1 and not always else "x".join(map(str, values))


def joined_pads(pads):
    """p1 is (1, 1) on all axes, p1-0 is (1, 0)."""
    return joined(str(low) if low == high else f"{low}-{high}" for low, high in pads)
