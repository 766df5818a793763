"""Windows in planes that move more than they compute: maxima and depthwise convolution.

Every byte is moved once from memory: windows are unrolled, and their overlap is left to the cache. An element
of the result depends on its own window alone.
"""

from .kernel import Kernel, activated, indent
from .vectors import Vectors, suffix

THREADS = 256
UNROLLED = 49  # taps of a depthwise window
AXES = "hw"


# -- windows -------------------------------------------------------------------------------------------------


def _window_start():
    """Lines: position (h, w) of this thread in the result, the plane, and where its window begins in x."""
    return [
        "t = uint32(uint32(cuda.blockIdx.x) * 256 + uint32(cuda.threadIdx.x))",
        "plane = uint32(cuda.blockIdx.y + cuda.blockIdx.z * cuda.gridDim.y)",
        "i_w = uint32(t % count_w)",
        "i_h = uint32(t // count_w)",
        "inside = uint32(lt(i_h, count_h) & lt(plane, planes))",
        "b_h = uint32(i_h * stride_h + origin_h)",
        "b_w = uint32(i_w * stride_w + origin_w)",
    ]


def max_pool(taps, indices, dtype="f32"):
    """The maximum of every window, the first of equals, NaN before all; with its flat position (int64).

    taps: (R, S), unrolled. Parameters: P x, P y, (P indices,) I planes, and for h, w: I counts, I sizes,
    I strides, I origins, I dilations. Grid: (blocks of 256 outputs, planes in two factors).
    """
    one = Vectors(dtype, 1)
    body = _window_start()
    body += [
        f"source = x + uint64(uint32(plane * size_h)) * uint64(size_w) * {one.bytes}",
        "best = value(uint32(0xFF800000))",
        "at = uint32(0xFFFFFFFF)",
    ]
    for r in range(taps[0]):
        body += [f"h = uint32(b_h + step_h * {r})", "in_h = uint32(inside & lt(h, size_h))"]
        for s in range(taps[1]):
            body += [
                f"w = uint32(b_w + step_w * {s})",
                "ok = uint32(in_h & lt(w, size_w))",
                "here = uint32(h * size_w + w)",
                *one.load("v", f"source + uint64(here) * {one.bytes}", "ok"),
                # taken if larger or NaN, unless a NaN was found before; the first tap inside always
                "nan = uint32(above(best, best))",
                "taken = uint32(ok & uint32(uint32(above(v0, best) & uint32(nan ^ 1)) | "
                "lt(uint32(0xFFFFFFFE), at)))",
                "best = choose(v0, best, taken)",
                "at = select(here, at, taken)",
            ]
    body += ["place = uint64(uint32(plane * count_h)) * uint64(count_w) + uint64(t)"]
    body += ["best0 = best", *one.store("best", f"y + place * {one.bytes}", "inside")]
    if indices:
        body += [
            "store32(indices + place * 8, at, inside)",
            "store32(indices + place * 8 + 4, select(at, uint32(0), lt(uint32(0xFFFFFFFE), at)), inside)",
        ]
    name = f"max_pool_{taps[0]}x{taps[1]}" + ("_indices" if indices else "") + suffix(dtype)
    integers = ["planes"] + [f"{w}_{a}" for w in ("count", "size", "stride", "origin", "step") for a in AXES]
    pointers = ["x", "y"] + (["indices"] if indices else [])
    source = f"\ndef {name}({', '.join(pointers + integers)}):\n{indent(body, 1)}\n"
    return Kernel(name, source, "P" * len(pointers) + "I" * len(integers), one.operations, THREADS, 0, 80)


def depthwise(taps, bias=False, activation=None):
    """y[n, c] = activation(bias[c] + x[n, c] * weight[c]), every channel alone; taps (R, S), unrolled.

    Gradients of the input are the same sum (`geometry`). Parameters: P x, P weight, P y, (P bias,) I planes
    (N * C), I channels, and for h, w: I counts, I sizes, I strides, I origins, I tap distances, I strides
    of the weight; I weight elements a channel, I its first, I strides of y for the plane, h, w. Grid as
    `max_pool`.
    """
    body = _window_start()
    body += [
        "c = uint32(plane % channels)",
        "source = x + uint64(uint32(plane * size_h)) * uint64(size_w) * 4",
        "total = float32(0.0)",
        "one = lt(plane, planes)",
    ]
    for r in range(taps[0]):
        body += [f"h = uint32(b_h + step_h * {r})", "in_h = uint32(inside & lt(h, size_h))"]
        for s in range(taps[1]):
            body += [
                f"w = uint32(b_w + step_w * {s})",
                "ok = uint32(in_h & lt(w, size_w))",
                "v = value(load32(source + uint64(uint32(h * size_w + w)) * 4, ok))",
                f"tap = uint32(c * weight_c + weight_first + weight_h * {r} + weight_w * {s})",
                "k = value(load32(weight + uint64(tap) * 4, one))",
                "total = float32(total + choose(float32(v * k), float32(0.0), ok))",
            ]
    if bias:
        body += ["total = float32(total + value(load32(bias + uint64(c) * 4, one)))"]
    body += [
        f"total = {activated(activation, 'total')}",
        "place = uint32(plane * y_c + i_h * y_h + i_w * y_w)",
        "store32(y + uint64(place) * 4, bits(total), inside)",
    ]
    name = (
        f"depthwise_{taps[0]}x{taps[1]}"
        + ("_bias" if bias else "")
        + (f"_{activation}" if activation else "")
    )
    integers = ["planes", "channels"]
    integers += [f"{w}_{a}" for w in ("count", "size", "stride", "origin", "step", "weight") for a in AXES]
    integers += ["weight_c", "weight_first", "y_c", "y_h", "y_w"]
    pointers = ["x", "weight", "y"] + (["bias"] if bias else [])
    source = f"\ndef {name}({', '.join(pointers + integers)}):\n{indent(body, 1)}\n"
    return Kernel(name, source, "P" * len(pointers) + "I" * len(integers), (), THREADS, 0, 80)
