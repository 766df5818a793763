"""Operations that move more than they compute: activations, softmax, cross-entropy, maxima, depthwise
convolution.

All are float32. What counts is that every byte is moved once, in wide and coalesced accesses, with enough of
them in flight: activations move 16 bytes a thread four times; a softmax row stays in the registers of one
warp between its three passes; windows are unrolled, and their overlap is left to the cache.
"""

from .kernel import Kernel, activated, indent

THREADS, VECTORS = 256, 4
ROWS = THREADS // 32  # softmax rows of a block, one a warp
LONGEST = 1024  # a softmax row: 32 values a lane
UNROLLED = 49  # taps of a depthwise window
AXES = "hw"


# -- activations ---------------------------------------------------------------------------------------------


def _forward(name, x, out):
    """Lines that set `out` to the activation of `x`. Every branch lets NaN through."""
    if name == "relu":
        return [f"{out} = maximum({x}, float32(0.0))"]
    if name in ("leaky_relu", "elu"):
        low = x if name == "leaky_relu" else f"math.expm1({x})"
        return [f"{out} = choose({x}, float32(parameter * {low}), above({x}, float32(0.0)))"]
    if name == "sigmoid":  # through the exponential that cannot overflow
        return [
            f"small = math.exp(float32(-maximum({x}, float32(-{x}))))",
            f"{out} = choose(small, float32(1.0), above(float32(0.0), {x}))",
            f"{out} = float32({out} / float32(float32(1.0) + small))",
        ]
    return [f"{out} = math.tanh({x})"]


def _backward(name, dy, y, out):
    """Lines that set `out` to dy * f'(x), the derivative written in the output y."""
    if name == "sigmoid":
        return [f"{out} = float32(float32({dy} * {y}) * float32(float32(1.0) - {y}))"]
    if name == "tanh":
        return [f"{out} = float32({dy} * float32(float32(1.0) - float32({y} * {y})))"]
    low = {
        "relu": "float32(0.0)",
        "leaky_relu": f"float32(parameter * {dy})",
        "elu": f"float32(float32({y} + parameter) * {dy})",
    }
    return [f"{out} = choose({dy}, {low[name]}, above({y}, float32(0.0)))"]


def activation(name, backward=False):
    """y = f(x), or dx from dy and y, over contiguous arrays aligned to 16 bytes.

    Parameters: P x (P dy, P y), P out, I whole vectors of four, I elements beyond them, F parameter.
    Grid: blocks of 1024 vectors.
    """
    inputs = ["dy", "y"] if backward else ["x"]
    body = []
    for i in range(VECTORS):
        body += [f"i{i} = uint32(uint32(cuda.blockIdx.x) * {THREADS * VECTORS} + t + {THREADS * i})"]
        body += [f"ok{i} = lt(i{i}, vectors)"]
        body += [f"{a}{i} = load128({a} + uint64(i{i}) * 16, ok{i})" for a in inputs]
    compute = _backward if backward else _forward
    for i in range(VECTORS):
        for j in range(4):
            body += [f"{a}_v = value({a}{i}[{j}])" for a in inputs]
            body += [*compute(name, *(f"{a}_v" for a in inputs), "r"), f"r{j} = bits(r)"]
        body += [f"store128(out + uint64(i{i}) * 16, r0, r1, r2, r3, ok{i})"]
    body += ["last = uint32(lt(t, tail) & lt(uint32(cuda.blockIdx.x), uint32(1)))"]
    body += ["at = uint64(uint32(uint32(vectors * 4) + t)) * 4"]
    body += [f"{a}_v = value(load32({a} + at, last))" for a in inputs]
    body += [*compute(name, *(f"{a}_v" for a in inputs), "r"), "store32(out + at, bits(r), last)"]
    full = f"{name}_{'backward' if backward else 'forward'}"
    source = f"""
def {full}({", ".join(inputs)}, out, vectors, tail, parameter):
    t = uint32(cuda.threadIdx.x)
{indent(body, 1)}
"""
    return Kernel(full, source, "P" * len(inputs) + "PIIF", (), THREADS, 0, 80)


# -- rows of classes -----------------------------------------------------------------------------------------


def per_lane(classes):
    """Values of a row that one lane holds: the power of two that covers it."""
    return max(1, 1 << (-(-classes // 32) - 1).bit_length())


def _reduced(name, combine):
    """Lines that combine a value over the lanes of a warp, in an order that is always the same."""
    return [f"{name} = {combine.format(name, f'exchange{m}({name})')}" for m in (16, 8, 4, 2, 1)]


def _row(count):
    """Lines that load a row, and its maximum and sum of exponentials; values stay in v0.. and e0.."""
    lines = [
        "t = uint32(cuda.threadIdx.x)",
        "lane = uint32(t & 31)",
        f"row = uint32(uint32(cuda.blockIdx.x) * {ROWS} + uint32(t >> 5))",
        "exists = lt(row, rows)",
        "base = x + uint64(uint32(row * classes + lane)) * 4",
        "top = value(uint32(0xFF800000))",
    ]
    for i in range(count):
        lines += [f"ok{i} = uint32(exists & lt(uint32(lane + {32 * i}), classes))"]
        lines += [f"v{i} = value(select(load32(base + uint64({128 * i}), ok{i}), uint32(0xFF800000), ok{i}))"]
    lines += [f"top = maximum(top, v{i})" for i in range(count)]
    lines += [*_reduced("top", "maximum({}, {})"), "total = float32(0.0)"]
    for i in range(count):
        lines += [f"v{i} = float32(v{i} - top)", f"e{i} = math.exp(v{i})", f"total = float32(total + e{i})"]
    return lines + _reduced("total", "float32({} + {})")


def _exchanges():
    return tuple((f"exchange{m}", "shuffle_xor", m) for m in (16, 8, 4, 2, 1))


def softmax(count, log=False):
    """Softmax, or its logarithm, of rows of up to 32 * count classes.

    Parameters: P x, P y, I rows, I classes. Grid: blocks of 8 rows.
    """
    body = _row(count) + (
        ["log_total = math.log(total)"] if log else ["inverse = float32(float32(1.0) / total)"]
    )
    body += ["place = y + uint64(uint32(row * classes + lane)) * 4"]
    for i in range(count):
        result = f"float32(v{i} - log_total)" if log else f"float32(e{i} * inverse)"
        body += [f"store32(place + uint64({128 * i}), bits({result}), ok{i})"]
    name = f"{'log_' if log else ''}softmax_{count}"
    source = f"\ndef {name}(x, y, rows, classes):\n{indent(body, 1)}\n"
    return Kernel(name, source, "PPII", _exchanges(), THREADS, 0, 80)


def cross_entropy(count):
    """loss = -sum over c of q[c] log softmax(x)[c] and its gradient, for class labels; up to 32 * count
    classes.

    q = 1 - smoothing at the label, and smoothing / classes everywhere. A row whose label is no class, or is
    ignored, has loss and gradient 0. The gradient is divided by *count where `mean` is 1.
    Parameters: P x, P target (int64), P count, P losses, P dx, I rows, I classes, I mean, I ignore,
    I ignored label (low and high word), F smoothing. Grid: blocks of 8 rows.
    """
    body = _row(count)
    body += [
        "log_total = math.log(total)",
        # one division a row: the slow path of a division is a branch, and 64 of them take a minute to compile
        "inverse = float32(float32(1.0) / total)",
        "label = load32(target + uint64(row) * 8, exists)",
        "high = load32(target + uint64(row) * 8 + 4, exists)",
        "ignored = uint32(ignore & equal(label, ignore_low) & equal(high, ignore_high))",
        "counts = uint32(lt(label, classes) & equal(high, uint32(0)) & uint32(ignored ^ 1))",
        # no conversion from integers is needed: the host passes classes as a float too
        "spread = float32(smoothing / classes_f)",
        "hot = float32(float32(1.0) - smoothing)",
        "whole = float32(float32(spread * classes_f) + hot)",
        "own = float32(0.0)",
        "others = float32(0.0)",
    ]
    for i in range(count):
        body += [
            f"h{i} = equal(uint32(lane + {32 * i}), label)",
            f"own = float32(own + choose(float32(v{i} - log_total), float32(0.0), h{i}))",
            f"others = float32(others + choose(float32(v{i} - log_total), float32(0.0), ok{i}))",
        ]
    body += [*_reduced("own", "float32({} + {})"), *_reduced("others", "float32({} + {})")]
    body += [
        # without smoothing the other classes take no part, whatever their scores are
        "others = choose(float32(spread * others), float32(0.0), above(spread, float32(0.0)))",
        "loss = float32(-float32(float32(hot * own) + others))",
        "first = uint32(exists & lt(lane, uint32(1)))",
        "store32(losses + uint64(row) * 4, bits(choose(loss, float32(0.0), counts)), first)",
        "divisor = choose(value(load32(count, mean)), float32(1.0), mean)",
        "share = float32(float32(1.0) / divisor)",
        "inverse = float32(inverse * whole)",
        "place = dx + uint64(uint32(row * classes + lane)) * 4",
    ]
    for i in range(count):
        body += [
            f"g = float32(float32(float32(e{i} * inverse) - spread) - choose(hot, float32(0.0), h{i}))",
            "g = choose(float32(g * share), float32(0.0), counts)",
            f"store32(place + uint64({128 * i}), bits(g), ok{i})",
        ]
    name = f"cross_entropy_{count}"
    parameters = (
        "x, target, count, losses, dx, rows, classes, mean, ignore, ignore_low, "
        "ignore_high, smoothing, classes_f"
    )
    source = f"\ndef {name}({parameters}):\n{indent(body, 1)}\n"
    return Kernel(name, source, "PPPPPIIIIIIFF", _exchanges(), THREADS, 0, 80)


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


def max_pool(taps, indices):
    """The maximum of every window, the first of equals, NaN before all; with its flat position (int64).

    taps: (R, S), unrolled. Parameters: P x, P y, (P indices,) I planes, and for h, w: I counts, I sizes,
    I strides, I origins, I dilations. Grid: (blocks of 256 outputs, planes in two factors).
    """
    body = _window_start()
    body += [
        "source = x + uint64(uint32(plane * size_h)) * uint64(size_w) * 4",
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
                "v = value(load32(source + uint64(here) * 4, ok))",
                # taken if larger or NaN, unless a NaN was found before; the first tap inside always
                "nan = uint32(above(best, best))",
                "taken = uint32(ok & uint32(uint32(above(v, best) & uint32(nan ^ 1)) | "
                "lt(uint32(0xFFFFFFFE), at)))",
                "best = choose(v, best, taken)",
                "at = select(here, at, taken)",
            ]
    body += ["place = uint64(uint32(plane * count_h)) * uint64(count_w) + uint64(t)"]
    body += ["store32(y + place * 4, bits(best), inside)"]
    if indices:
        body += [
            "store32(indices + place * 8, at, inside)",
            "store32(indices + place * 8 + 4, select(at, uint32(0), lt(uint32(0xFFFFFFFE), at)), inside)",
        ]
    name = f"max_pool_{taps[0]}x{taps[1]}" + ("_indices" if indices else "")
    integers = ["planes"] + [f"{w}_{a}" for w in ("count", "size", "stride", "origin", "step") for a in AXES]
    pointers = ["x", "y"] + (["indices"] if indices else [])
    source = f"\ndef {name}({', '.join(pointers + integers)}):\n{indent(body, 1)}\n"
    return Kernel(name, source, "P" * len(pointers) + "I" * len(integers), (), THREADS, 0, 80)


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
