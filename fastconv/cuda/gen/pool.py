"""Gradients of pooling, and averages: windows of two axes in planes. Sums run in the order of the windows.

Every element of a result is the sum of what belongs to it, taken by the one thread that stores it: no atomics
on floats, the same bits every time, no influence of other planes.
"""

from .kernel import Kernel, ceil_div, indent
from .vectors import Vectors, operations, suffix

THREADS = 256
AXES = "hw"


# -- averages ------------------------------------------------------------------------------------------------


def avg_pool(taps, count, dtype="f32"):
    """The sum of every window over its divisor; taps (R, S), unrolled.

    count: what divides a sum, "valid" (the taps inside the plane), "padded" (those inside the padded plane)
    or "fixed" (the parameter). A window wholly in padding gives 0. Parameters: P x, P y, I planes, and for h,
    w: I counts, I sizes, I strides, I origins, I dilations, I padded sizes; F divisor. Grid: (blocks of 256
    outputs, planes in two factors).
    """
    one = Vectors(dtype, 1)
    body = [
        "t = uint32(uint32(cuda.blockIdx.x) * 256 + uint32(cuda.threadIdx.x))",
        "plane = uint32(cuda.blockIdx.y + cuda.blockIdx.z * cuda.gridDim.y)",
        "i_w = uint32(t % count_w)",
        "i_h = uint32(t // count_w)",
        "inside = uint32(lt(i_h, count_h) & lt(plane, planes))",
        f"source = x + uint64(uint32(plane * size_h)) * uint64(size_w) * {one.bytes}",
        "total = float32(0.0)",
        "number = float32(0.0)",
    ]
    for a, size in zip(AXES, taps):
        for r in range(size):
            body += [f"at_{a}{r} = uint32(i_{a} * stride_{a} + origin_{a} + step_{a} * {r})"]
            body += [f"ok_{a}{r} = lt(at_{a}{r}, size_{a})"]
        if count == "padded":
            body += [f"n_{a} = float32(0.0)"]
            for r in range(size):
                body += [f"in_pad = lt(uint32(i_{a} * stride_{a} + step_{a} * {r}), padded_{a})"]
                body += [f"n_{a} = float32(n_{a} + choose(float32(1.0), float32(0.0), in_pad))"]
    for r in range(taps[0]):
        for s in range(taps[1]):
            body += [f"ok = uint32(inside & ok_h{r} & ok_w{s})"]
            place = f"source + uint64(uint32(at_h{r} * size_w + at_w{s})) * {one.bytes}"
            body += one.load("v", place, "ok")
            body += ["total = float32(total + v0)"]
            if count == "valid":
                body += ["number = float32(number + choose(float32(1.0), float32(0.0), ok))"]
    body += {
        "valid": ["number = maximum(number, float32(1.0))"],
        "padded": ["number = float32(n_h * n_w)"],
        "fixed": ["number = divisor"],
    }[count]
    body += ["v0 = float32(total / number)"]
    body += ["place = uint64(uint32(plane * count_h)) * uint64(count_w) + uint64(t)"]
    body += one.store("v", f"y + place * {one.bytes}", "inside")
    name = f"avg_pool_{taps[0]}x{taps[1]}_{count}{suffix(dtype)}"
    words = ("count", "size", "stride", "origin", "step", "padded")
    integers = ["planes"] + [f"{w}_{a}" for w in words for a in AXES]
    source = f"\ndef {name}(x, y, {', '.join(integers)}, divisor):\n{indent(body, 1)}\n"
    return Kernel(name, source, "PP" + "I" * len(integers) + "F", operations(one), THREADS, 0, 80)


def avg_pool_backward(taps, stride, count, vectors):
    """dx = the sum of dy over its divisor over the windows with the element, by rows and columns of windows.

    taps (R, S) without dilation, and stride, literally: divisions by a constant are multiplications. vectors:
    of dx; a vector lies in one row. count: as `avg_pool`. Parameters: P dy, P dx, I vectors in all, I vectors
    a row, and for h, w: I sizes of dy, I sizes of dx, I pads in front, I padded sizes; F divisor. Grid:
    blocks of 256 vectors.
    """
    one, width = Vectors(vectors.dtype, 1), vectors.width
    most = [ceil_div(k, s) for k, s in zip(taps, stride)]
    body = [
        "k = uint32(uint32(cuda.blockIdx.x) * 256 + uint32(cuda.threadIdx.x))",
        "exists = lt(k, total)",
        "row = uint32(k // across)",
        f"w = uint32(uint32(k - row * across) * {width})",
        "plane = uint32(row // size_h)",
        "h = uint32(row - plane * size_h)",
        "above_rows = uint32(plane * out_h)",
    ]

    def windows(a, size, step, many, at, tag):
        """Lines for the windows that may hold position `at` of an axis, the first of them first."""
        lines = [
            f"at_{a}{tag} = uint32({at} + pad_{a})",
            f"last_{a}{tag} = uint32(at_{a}{tag} // uint32({step}))",
        ]
        for j in range(many):
            o, begin = f"o_{a}{tag}_{j}", f"uint32(o_{a}{tag}_{j} * {step})"
            lines += [
                f"{o} = uint32(last_{a}{tag} - {many - 1 - j})",
                f"far = uint32(at_{a}{tag} - {begin})",
                f"ok_{a}{tag}_{j} = uint32(lt({o}, out_{a}) & lt(far, uint32({size})))",
            ]
            if count != "fixed":
                lines += [f"end = uint32({begin} + {size})"]
            if count == "padded":
                lines += [
                    f"end = uint32(select(end, padded_{a}, lt(end, padded_{a})))",
                    f"n_{a}{tag}_{j} = float32(uint32(end - {begin}))",
                ]
            if count == "valid":
                edge = f"uint32(pad_{a} + size_{a})"
                lines += [
                    f"end = uint32(select(end, {edge}, lt(end, {edge})))",
                    f"low = uint32(select({begin}, pad_{a}, lt(pad_{a}, {begin})))",
                    f"n_{a}{tag}_{j} = float32(uint32(end - low))",
                ]
        return lines

    body += windows("h", taps[0], stride[0], most[0], "h", "")
    for v in range(width):
        body += windows("w", taps[1], stride[1], most[1], f"uint32(w + {v})", v)
        body += ["sum_v = float32(0.0)"]
        for i in range(most[0]):
            for j in range(most[1]):
                place = f"uint32(uint32(above_rows + o_h_{i}) * out_w + o_w{v}_{j})"
                ok = f"uint32(exists & ok_h_{i} & ok_w{v}_{j})"
                body += one.load("g", f"dy + uint64({place}) * {one.bytes}", ok)
                if count == "fixed":
                    body += ["sum_v = float32(sum_v + g0)"]
                else:  # what is outside may have a divisor of 0
                    share = f"choose(float32(g0 / float32(n_h_{i} * n_w{v}_{j})), float32(0.0), {ok})"
                    body += [f"sum_v = float32(sum_v + {share})"]
        body += [f"r{v} = {'float32(sum_v / divisor)' if count == 'fixed' else 'sum_v'}"]
    body += vectors.store("r", f"dx + uint64(k) * {vectors.bytes}", "exists")
    shape = f"{taps[0]}x{taps[1]}_{stride[0]}x{stride[1]}"
    name = f"avg_pool_backward_{shape}_{count}_{width}{suffix(vectors.dtype)}"
    integers = ["total", "across"] + [f"{w}_{a}" for w in ("out", "size", "pad", "padded") for a in AXES]
    source = f"\ndef {name}(dy, dx, {', '.join(integers)}, divisor):\n{indent(body, 1)}\n"
    used = operations(vectors, one)
    return Kernel(name, source, "PP" + "I" * len(integers) + "F", used, THREADS, 0, 80)


# -- maxima --------------------------------------------------------------------------------------------------


def shared_of(outputs, rows, width):
    """Bytes that `max_pool_backward` needs for a plane, rounded up so that few kernels do for all planes."""
    need = 8 * ceil_div(outputs, THREADS) * THREADS + 8 * (rows + width) + 8
    shared = 8192
    while shared < need:
        shared *= 2
    return shared


def max_pool_backward(shared, vectors):
    """dx = the sum of those dy whose index is the element's, in the order of the outputs.

    A block has a plane: it keeps where each dy belongs, and for every row and column of dx the first and the
    last row (or column) of outputs that have an index there. An element then looks at these outputs alone,
    which for windows of any kind are the few that hold it; indices of any other origin come out right too.
    The tables are made by minima and maxima of integers, whose order does not matter. An index outside of the
    plane (-1 aside) adds nothing, and its position is left in `wrong` (the smallest).

    shared: bytes, see `shared_of`; vectors: of dx, each in one row. Parameters: P dy, P indices (int64), P
    dx, P wrong (int64), I outputs of a plane, I outputs a row, I rows, I width, I vectors of a plane. Grid:
    planes.
    """
    one, width = Vectors(vectors.dtype, 1), vectors.width
    body = [
        "t = uint32(cuda.threadIdx.x)",
        "plane = uint32(cuda.blockIdx.x)",
        "base = shared_address(cuda.shared.array(0, float32))",
        f"rounds = uint32(uint32(outputs + {THREADS - 1}) // uint32({THREADS}))",
        f"values = uint32(base + rounds * {4 * THREADS})",
        f"first = uint32(values + rounds * {4 * THREADS})",  # of rows, then of columns
        "lines = uint32(rows + across)",
        "last = uint32(first + lines * 4)",
        "spans = uint32(last + lines * 4)",
        f"for now in range(uint32(uint32(lines + {THREADS - 1}) // uint32({THREADS}))):",
        f"    i = uint32(uint32(now) * {THREADS} + t)",
        "    i = uint32(select(i, uint32(0), lt(i, lines)))",
        "    shared_minimum(uint32(last + i * 4), uint32(0), uint32(1))",
        "    shared_maximum(uint32(first + i * 4), uint32(0xFFFFFFFF), uint32(1))",
        "shared_minimum(uint32(spans + uint32(t & 1) * 4), uint32(0), uint32(1))",
        "cuda.syncthreads()",
        "for now in range(rounds):",
        f"    o = uint32(uint32(now) * {THREADS} + t)",
        "    inside = lt(o, outputs)",
        "    at = uint64(uint32(plane * outputs + o))",
        "    low = load32(indices + at * 8, inside)",
        "    high = load32(indices + at * 8 + 4, inside)",
        "    ok = uint32(inside & equal(high, uint32(0)) & lt(low, uint32(rows * across)))",
        "    none = uint32(equal(high, uint32(0xFFFFFFFF)) & equal(low, uint32(0xFFFFFFFF)))",
        "    minimum64(wrong, at, uint32(inside & uint32(uint32(ok | none) ^ 1)))",
        "    shared_store(uint32(base + o * 4), select(low, uint32(0xFFFFFFFF), ok))",
        *("    " + line for line in one.load("g", f"dy + at * {one.bytes}", "inside")),
        "    shared_store(uint32(values + o * 4), bits(g0))",
        "    h = uint32(select(uint32(low // across), uint32(0), ok))",
        "    w = uint32(select(uint32(low - h * across), uint32(0), ok))",
        "    p = uint32(o // out_w)",
        "    q = uint32(o - p * out_w)",
        "    at_h = uint32(h * 4)",
        "    at_w = uint32(uint32(rows + w) * 4)",
        "    shared_minimum(uint32(first + at_h), p, ok)",
        "    shared_maximum(uint32(last + at_h), p, ok)",
        "    shared_minimum(uint32(first + at_w), q, ok)",
        "    shared_maximum(uint32(last + at_w), q, ok)",
        "cuda.syncthreads()",
        f"for now in range(uint32(uint32(lines + {THREADS - 1}) // uint32({THREADS}))):",
        f"    i = uint32(uint32(now) * {THREADS} + t)",
        "    inside = lt(i, lines)",
        "    i = uint32(select(i, uint32(0), inside))",
        "    a = shared_load(uint32(first + i * 4))",
        "    b = shared_load(uint32(last + i * 4))",
        "    used = uint32(inside & lt(a, uint32(0xFFFFFFFF)))",
        "    cell = uint32(select(uint32(spans), uint32(spans + 4), lt(i, rows)))",
        "    shared_maximum(cell, uint32(uint32(b - a) + 1), used)",
        "cuda.syncthreads()",
        "tall = uniform(shared_load(spans))",
        "wide = uniform(shared_load(uint32(spans + 4)))",
        f"for now in range(uint32(uint32(vectors + {THREADS - 1}) // uint32({THREADS}))):",
        f"    k = uint32(uint32(now) * {THREADS} + t)",
        "    inside = lt(k, vectors)",
        f"    e = uint32(uint32(select(k, uint32(0), inside)) * {width})",
        "    h = uint32(e // across)",
        "    w = uint32(e - h * across)",
        "    p0 = shared_load(uint32(first + h * 4))",
        "    p1 = shared_load(uint32(last + h * 4))",
    ]
    for v in range(width):
        place = f"uint32(rows + w + {v})"
        body += [f"    r{v} = float32(0.0)", f"    q0_{v} = shared_load(uint32(first + {place} * 4))"]
        body += [f"    q1_{v} = shared_load(uint32(last + {place} * 4))"]
    body += [
        "    for down in range(tall):",
        "        p = uint32(p0 + uint32(down))",
        "        ok = uint32(lt(p0, uint32(0xFFFFFFFF)) & uint32(lt(p1, p) ^ 1))",
        "        for right in range(wide):",
    ]
    for v in range(width):
        body += [
            f"            q = uint32(q0_{v} + uint32(right))",
            f"            hit = uint32(ok & lt(q0_{v}, uint32(0xFFFFFFFF)) & uint32(lt(q1_{v}, q) ^ 1))",
            "            o = uint32(select(uint32(p * out_w + q), uint32(0), hit))",
            f"            hit = uint32(hit & equal(shared_load(uint32(base + o * 4)), uint32(e + {v})))",
            "            g = value(shared_load(uint32(values + o * 4)))",
            f"            r{v} = float32(r{v} + choose(g, float32(0.0), hit))",
        ]
    body += ["    place = uint64(uint32(plane * vectors + k))"]
    body += ["    " + line for line in vectors.store("r", f"dx + place * {vectors.bytes}", "inside")]
    name = f"max_pool_backward_{shared // 1024}k_{width}{suffix(vectors.dtype)}"
    source = f"""
def {name}(dy, indices, dx, wrong, outputs, out_w, rows, across, vectors):
{indent(body, 1)}
"""
    used = operations(vectors, one)
    return Kernel(name, source, "PPPPIIIII", used, THREADS, shared, 80)
