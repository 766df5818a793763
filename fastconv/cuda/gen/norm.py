"""Sums over channels, batch normalisation and local response normalisation of (N, C, inner).

The terms of a channel are cut into parts by their number alone, a block sums a part, and one warp a channel
puts the parts together, all in a fixed order and without atomics: the same bits every time. Mean, squares and
products are kept by the formulas of Chan, Golub and LeVeque for joining parts, so that one reading of the
data gives them all and a large mean costs no digits. Statistics are float32, whatever the data are.
"""

from .kernel import Kernel, ceil_div, indent
from .vectors import Vectors, operations, suffix

THREADS = 256
TOGETHER = 8  # terms of one step of a thread: few enough to stay in registers, many enough for a division
PARTS = 64  # of a channel at most: two for a lane of the warp that joins them
LEAST = 4 * THREADS * TOGETHER  # terms of a part, if there are more parts than one
WARPS = THREADS // 32

MOMENTS, BACKWARD, GIVEN, SUM = "moments", "backward", "given", "sum"
KEPT = {  # what a part of a channel leaves behind
    MOMENTS: ("n", "mean", "squares"),
    BACKWARD: ("n", "mean", "squares", "mean_g", "products", "sum"),
    GIVEN: ("products", "sum"),
    SUM: ("sum",),
}


def steps_of(length, width):
    """(parts of a channel of so many terms, steps of a thread) with vectors of this width."""
    parts = max(1, min(PARTS, length // LEAST))
    return parts, ceil_div(length, parts * THREADS * TOGETHER)


# -- parts ---------------------------------------------------------------------------------------------------


def _joined(kept, other):
    """Lines that add the part in the variables {name}{other} to the one in {name}."""
    lines = []
    if "n" in kept:
        lines += [
            f"joint = float32(n + n{other})",
            f"part = float32(n{other} / maximum(joint, float32(1.0)))",
            f"apart = float32(mean{other} - mean)",
            "cross = float32(float32(n * part) * apart)",
            "mean = float32(mean + float32(apart * part))",
            f"squares = float32(float32(squares + squares{other}) + float32(cross * apart))",
        ]
        if "products" in kept:
            lines += [
                f"apart = float32(mean_g{other} - mean_g)",
                "mean_g = float32(mean_g + float32(apart * part))",
                f"products = float32(float32(products + products{other}) + float32(cross * apart))",
            ]
        lines += ["n = joint"]
    elif "products" in kept:
        lines += [f"products = float32(products + products{other})"]
    if "sum" in kept:
        lines += [f"sum = float32(sum + sum{other})"]
    return lines


def _exchanged(kept, masks):
    """Lines that join the parts of the lanes of a warp."""
    lines = []
    for m in masks:
        lines += [f"{name}_2 = exchange{m}({name})" for name in kept]
        lines += _joined(kept, "_2")
    return lines


def parts(what, vectors, known="f32"):
    """The parts of every channel: see `KEPT`.

    what: "moments" of x; "backward": those and the products with dy; "given": sums of dy and of dy (x - mean)
    for means of the dtype `known`; "sum" of x. vectors: of x and dy; `inner` is a multiple of their width.
    Parameters: P x, (P dy,) (P running mean,) P out (float32: one row of channels * parts a number kept), I
    channels, I vectors a row of `inner`, I vectors a channel, I steps. Grid: (channels, parts).
    """
    center = Vectors(known, 1)
    kept, width = KEPT[what], vectors.width
    many = TOGETHER // width
    two = what in (BACKWARD, GIVEN)
    body = [
        "t = uint32(cuda.threadIdx.x)",
        "c = uint32(cuda.blockIdx.x)",
        "part_number = uint32(cuda.blockIdx.y)",
        *(f"{name} = float32(0.0)" for name in kept),
    ]
    if what == GIVEN:
        body += center.load("center", f"running_mean + uint64(c) * {center.bytes}", "uint32(1)")
    step = []
    for m in range(many):
        step += [
            f"k = uint32(uint32(uint32(part_number * steps + uint32(now)) * {many} + {m}) * {THREADS} + t)",
            f"ok{m} = lt(k, total)",
            "image = uint32(k // across)",
            "at = uint64(uint32(uint32(uint32(image * channels + c) * across) + uint32(k - image * across)))",
        ]
        step += vectors.load(f"x{m}_", f"x + at * {vectors.bytes}", f"ok{m}")
        if two:
            step += vectors.load(f"g{m}_", f"dy + at * {vectors.bytes}", f"ok{m}")
    places = [(m, j) for m in range(many) for j in range(width)]

    def added(name, term):
        """Lines that set a variable to the sum of a term over all places."""
        lines = [f"{name} = float32(0.0)"]
        return lines + [f"{name} = float32({name} + {term(m, j)})" for m, j in places]

    whenever = lambda m, value: f"choose({value}, float32(0.0), ok{m})"  # noqa: E731
    if what == SUM:
        step += [*added("sum_1", lambda m, j: f"x{m}_{j}"), *_joined(kept, "_1")]
    elif what == GIVEN:
        product = lambda m, j: f"float32(g{m}_{j} * float32(x{m}_{j} - center0))"  # noqa: E731
        step += added("products_1", lambda m, j: whenever(m, product(m, j)))
        step += [*added("sum_1", lambda m, j: f"g{m}_{j}"), *_joined(kept, "_1")]
    else:
        step += ["n_1 = float32(0.0)"]
        one = f"choose(float32({width}.0), float32(0.0), ok{{}})"
        step += [f"n_1 = float32(n_1 + {one.format(m)})" for m in range(many)]
        step += ["share = float32(float32(1.0) / maximum(n_1, float32(1.0)))"]
        step += [*added("mean_1", lambda m, j: f"x{m}_{j}"), "mean_1 = float32(mean_1 * share)"]
        step += [f"x{m}_{j} = {whenever(m, f'float32(x{m}_{j} - mean_1)')}" for m, j in places]
        step += added("squares_1", lambda m, j: f"float32(x{m}_{j} * x{m}_{j})")
        if two:
            step += [*added("sum_1", lambda m, j: f"g{m}_{j}"), "mean_g_1 = float32(sum_1 * share)"]
            product = lambda m, j: f"float32(x{m}_{j} * float32(g{m}_{j} - mean_g_1))"  # noqa: E731
            step += added("products_1", product)
        step += _joined(kept, "_1")
    body += ["for now in range(steps):", *("    " + line for line in step)]
    body += _exchanged(kept, (16, 8, 4, 2, 1))
    body += ["base = shared_address(cuda.shared.array(0, float32))"]
    for i, name in enumerate(kept):
        body += [f"shared_store(uint32(base + uint32(t + {i * THREADS}) * 4), bits({name}))"]
    body += ["cuda.syncthreads()", f"mine = uint32(base + uint32(t & {WARPS - 1}) * 128)"]
    for i, name in enumerate(kept):
        body += [f"{name} = value(shared_load(uint32(mine + {4 * i * THREADS})))"]
    body += _exchanged(kept, (4, 2, 1))
    body += [
        "place = uint64(uint32(c * cuda.gridDim.y + part_number)) * 4",
        "row = uint64(uint32(channels * cuda.gridDim.y)) * 4",
        "lead = equal(t, uint32(0))",
    ]
    for i, name in enumerate(kept):
        body += [f"store32(out + place + row * {i}, bits({name}), lead)"]
    name = f"channels_{what}_{width}{suffix(vectors.dtype)}" + (suffix(known) if what == GIVEN else "")
    pointers = ["x", *(["dy"] if two else []), *(["running_mean"] if what == GIVEN else []), "out"]
    source = f"\ndef {name}({', '.join(pointers)}, channels, across, total, steps):\n{indent(body, 1)}\n"
    used = operations(vectors, *([center] if what == GIVEN else []))
    used += tuple((f"exchange{m}", "shuffle_xor", m) for m in (16, 8, 4, 2, 1))
    used = tuple(o for o in used if not o[0].startswith(("store", "pack")))  # data are only read
    return Kernel(name, source, "P" * len(pointers) + "IIII", used, THREADS, 4 * THREADS * len(kept), 80)


# -- channels ------------------------------------------------------------------------------------------------


def _whole(kept):
    """Lines that join the parts of channel c: every lane of its warp ends with them all."""
    lines = []
    for i, name in enumerate(kept):
        lines += [
            f"{name} = value(load32(out + place + row * {i}, has))",
            f"{name}_2 = value(load32(out + place + row * {i} + 128, has_2))",
        ]
    return [
        "t = uint32(cuda.threadIdx.x)",
        "lane = uint32(t & 31)",
        f"c = uint32(uint32(cuda.blockIdx.x) * {WARPS} + uint32(t >> 5))",
        "exists = lt(c, channels)",
        "has = uint32(exists & lt(lane, parts))",
        "has_2 = uint32(exists & lt(uint32(lane + 32), parts))",
        "place = uint64(uint32(c * parts + lane)) * 4",
        "row = uint64(uint32(channels * parts)) * 4",
        *lines,
        *_joined(kept, "_2"),
        *_exchanged(kept, (16, 8, 4, 2, 1)),
        "lead = uint32(exists & equal(lane, uint32(0)))",
    ]


def _finish(name, body, pointers, scalars, letters, used, dtype):
    full = name + suffix(dtype)
    source = f"\ndef {full}({', '.join(pointers)}, channels{scalars}):\n{indent(body, 1)}\n"
    exchanges = tuple((f"exchange{m}", "shuffle_xor", m) for m in (16, 8, 4, 2, 1))
    return Kernel(full, source, "P" * len(pointers) + "I" + letters, used + exchanges, THREADS, 0, 80)


def channel_sums(dtype):
    """y[c] = the sum of the parts of channel c. Parameters: P out, P y, I channels, I parts.

    Grid: blocks of 8 channels.
    """
    one = Vectors(dtype, 1)
    body = [*_whole(KEPT[SUM]), "sum0 = sum", *one.store("sum", f"y + uint64(c) * {one.bytes}", "lead")]
    return _finish("channel_sums", body, ["out", "y"], ", parts", "I", operations(one), dtype)


def _scaled(inverse):
    """Lines: scale = weight / sqrt(var + eps) and the shift, from w0 and b0 where there are such arrays."""
    return [
        f"scale = float32({inverse} * choose(w0, float32(1.0), has_weight))",
        "store32(table + uint64(uint32(channels + c)) * 4, bits(scale), lead)",
    ]


ROOT = "inverse = float32(float32(1.0) / float32(math.sqrt(float32({} + eps))))"


def statistics(dtype):
    """What normalises by the batch, from the moments' parts, and the running statistics.

    table (3, C) of float32 becomes mean, weight / sqrt(var + eps) and bias; mean and var (biased) are those
    of the channel. running = (1 - momentum) running + momentum * that of the batch (var: unbiased). dtype: of
    weight, bias and the running statistics. Parameters: P out, P table, P weight, P bias, P running mean, P
    running var, I channels, I parts, I whether there is a weight, a bias, a running mean, a running var, F
    momentum, F correction (n / (n - 1)), F eps. Grid: blocks of 8 channels.
    """
    one = Vectors(dtype, 1)
    body = [*_whole(KEPT[MOMENTS]), f"at = uint64(c) * {one.bytes}"]
    body += ["var = float32(squares / maximum(n, float32(1.0)))", ROOT.format("var")]
    body += one.load("w", "weight + at", "uint32(lead & has_weight)")
    body += one.load("b", "bias + at", "uint32(lead & has_bias)")
    body += ["store32(table + uint64(c) * 4, bits(mean), lead)", *_scaled("inverse")]
    body += ["store32(table + uint64(uint32(uint32(channels * 2) + c)) * 4, bits(b0), lead)"]
    body += ["rest = float32(float32(1.0) - momentum)"]
    for name, value in (("mean", "mean"), ("var", "float32(var * correction)")):
        ok = f"uint32(lead & has_{name})"
        body += one.load("r", f"running_{name} + at", ok)
        body += [f"r0 = float32(float32(rest * r0) + float32(momentum * {value}))"]
        body += one.store("r", f"running_{name} + at", ok)
    pointers = ["out", "table", "weight", "bias", "running_mean", "running_var"]
    scalars = ", parts, has_weight, has_bias, has_mean, has_var, momentum, correction, eps"
    return _finish("statistics", body, pointers, scalars, "IIIIIFFF", operations(one), dtype)


def running(dtype):
    """The table of `statistics` from running statistics. Parameters: P table, P weight, P bias, P running
    mean, P running var, I channels, I whether there is a weight, a bias, F eps. Grid: blocks of 256 channels.
    """
    one = Vectors(dtype, 1)
    body = [
        f"c = uint32(uint32(cuda.blockIdx.x) * {THREADS} + uint32(cuda.threadIdx.x))",
        "lead = lt(c, channels)",
        f"at = uint64(c) * {one.bytes}",
        *one.load("w", "weight + at", "uint32(lead & has_weight)"),
        *one.load("b", "bias + at", "uint32(lead & has_bias)"),
        *one.load("m", "running_mean + at", "lead"),
        *one.load("v", "running_var + at", "lead"),
        ROOT.format("v0"),
        "store32(table + uint64(c) * 4, bits(m0), lead)",
        *_scaled("inverse"),
        "store32(table + uint64(uint32(uint32(channels * 2) + c)) * 4, bits(b0), lead)",
    ]
    pointers = ["table", "weight", "bias", "running_mean", "running_var"]
    scalars = ", has_weight, has_bias, eps"
    made = _finish("running", body, pointers, scalars, "IIF", operations(one), dtype)
    return made._replace(operations=operations(one))


def gradients(dtype, batch):
    """dweight and dbias, and what dx needs, from the parts of "backward" (batch) or of "given".

    table (4, C) becomes mean, weight / sqrt(var + eps), and what is subtracted from dy: a + b (x - mean),
    both 0 for given statistics. Parameters: P out, P table, P weight, P dweight, P dbias, (P running mean, P
    running var,) I channels, I parts, I whether there is a weight, F eps. Grid: blocks of 8 channels.
    """
    one = Vectors(dtype, 1)
    body = [*_whole(KEPT[BACKWARD if batch else GIVEN]), f"at = uint64(c) * {one.bytes}"]
    if batch:
        body += ["var = float32(squares / maximum(n, float32(1.0)))", ROOT.format("var")]
        subtracted = "mean_g", "float32(float32(float32(products / n) * inverse) * inverse)"
    else:
        body += [*one.load("v", "running_var + at", "lead"), ROOT.format("v0")]
        body += [*one.load("m", "running_mean + at", "lead"), "mean = m0"]
        subtracted = "float32(0.0)", "float32(0.0)"
    body += ["store32(table + uint64(c) * 4, bits(mean), lead)"]
    body += [*one.load("w", "weight + at", "uint32(lead & has_weight)"), *_scaled("inverse")]
    for i, value in enumerate(subtracted, 2):
        body += [f"store32(table + uint64(uint32(uint32(channels * {i}) + c)) * 4, bits({value}), lead)"]
    body += ["r0 = float32(products * inverse)", *one.store("r", "dweight + at", "lead")]
    body += ["r0 = sum", *one.store("r", "dbias + at", "lead")]
    pointers = [
        "out",
        "table",
        "weight",
        "dweight",
        "dbias",
        *([] if batch else ["running_mean", "running_var"]),
    ]
    name = "gradients" if batch else "gradients_given"
    return _finish(name, body, pointers, ", parts, has_weight, eps", "IIF", operations(one), dtype)


# -- elements ------------------------------------------------------------------------------------------------


def normalise(vectors, backward=False):
    """y = (x - mean) scale + shift, or dx = scale (dy - a - b (x - mean)), by the rows of `table`.

    Parameters: P x, (P dy,) P table, P out, I channels, I vectors a row of `inner`, I vectors in all. Grid:
    blocks of 256 * (8 / width) vectors.
    """
    width = vectors.width
    many = TOGETHER // width
    inputs = ["x", *(["dy"] if backward else [])]
    body = ["t = uint32(cuda.threadIdx.x)"]
    for m in range(many):
        body += [
            f"k{m} = uint32(uint32(cuda.blockIdx.x) * {THREADS * many} + t + {m * THREADS})",
            f"ok{m} = lt(k{m}, total)",
        ]
        for a in inputs:
            body += vectors.load(f"{a}{m}_", f"{a} + uint64(k{m}) * {vectors.bytes}", f"ok{m}")
    for m in range(many):
        body += [f"c = uint32(uint32(k{m} // across) % channels)"]
        for i, name in enumerate(("mean", "scale", "a", "b") if backward else ("mean", "scale", "shift")):
            body += [f"{name} = value(load32(table + uint64(uint32(uint32(channels * {i}) + c)) * 4, ok{m}))"]
        for j in range(width):
            away = f"float32(x{m}_{j} - mean)"
            if backward:
                rest = f"float32(float32(dy{m}_{j} - a) - float32(b * {away}))"
                body += [f"r{j} = float32(scale * {rest})"]
            else:
                body += [f"r{j} = float32(float32({away} * scale) + shift)"]
        body += vectors.store("r", f"out + uint64(k{m}) * {vectors.bytes}", f"ok{m}")
    name = f"normalise{'_backward' if backward else ''}_{width}{suffix(vectors.dtype)}"
    pointers = [*inputs, "table", "out"]
    source = f"\ndef {name}({', '.join(pointers)}, channels, across, total):\n{indent(body, 1)}\n"
    return Kernel(name, source, "P" * len(pointers) + "III", operations(vectors), THREADS, 0, 80)


# -- local response normalisation ----------------------------------------------------------------------------

SEGMENT = 8  # channels of a thread
WIDEST = 9  # channels of a window, which is unrolled


def response(size, vectors, backward=False):
    """y = x s^-beta, or dx = dy s^-beta - factor x sum of dy x s^(-beta - 1) over the windows with x.

    s = k + share * sum of x^2 over `size` channels from c - size // 2 on; s must be positive. A thread has
    SEGMENT channels, and reads each x and dy that these need once; powers are exp(-beta log s). Parameters: P
    x, (P dy,) P out, I channels, I vectors a row of `inner`, I segments of channels, I threads that have
    something to do, F k, F share, F beta, F factor. Grid: blocks of 256.
    """
    width, low = vectors.width, size // 2
    high = size - 1 - low
    inputs = ["x", *(["dy"] if backward else [])]
    body = [
        "e = uint32(uint32(cuda.blockIdx.x) * 256 + uint32(cuda.threadIdx.x))",
        "exists = lt(e, total)",
        "r = uint32(e // across)",
        "at = uint32(e - r * across)",
        "n = uint32(r // segments)",
        f"c0 = uint32(uint32(r - n * segments) * {SEGMENT})",
        "plane = uint32(n * channels)",
    ]
    # outputs are channels 0 to SEGMENT - 1 of the segment; dy and s are needed for those whose windows meet
    # them, x for what these windows hold
    first, last = (-high, SEGMENT - 1 + low) if backward else (0, SEGMENT - 1)
    for j in range(first - low, last + high + 1):
        body += [f"c = uint32(c0 + {j})" if j >= 0 else f"c = uint32(c0 - {-j})"]
        body += ["ok = uint32(exists & lt(c, channels))"]
        body += [f"place = uint64(uint32(uint32(uint32(plane + c) * across) + at)) * {vectors.bytes}"]
        body += vectors.load(f"x{_tag(j)}_", "x + place", "ok")
        if backward and first <= j <= last:
            body += vectors.load(f"dy{_tag(j)}_", "dy + place", "ok")
    for v in range(width):
        for j in range(first, last + 1):
            body += ["s = float32(0.0)"]
            for i in range(j - low, j + high + 1):
                body += [f"s = float32(s + float32(x{_tag(i)}_{v} * x{_tag(i)}_{v}))"]
            body += ["s = float32(k + float32(share * s))"]
            x = f"x{_tag(j)}_{v}"
            if backward:
                body += [
                    "power = math.exp(float32(float32(-float32(beta + float32(1.0))) * math.log(s)))",
                    f"part{_tag(j)}_{v} = float32(float32(dy{_tag(j)}_{v} * {x}) * power)",
                    f"dy{_tag(j)}_{v} = float32(dy{_tag(j)}_{v} * float32(power * s))",
                ]
            else:
                body += [f"y{j}_{v} = float32({x} * math.exp(float32(float32(-beta) * math.log(s))))"]
    for j in range(SEGMENT):
        for v in range(width):
            if not backward:
                continue
            body += ["s = float32(0.0)"]
            for i in range(j - high, j + low + 1):
                body += [f"s = float32(s + part{_tag(i)}_{v})"]
            body += [f"y{j}_{v} = float32(dy{j}_{v} - float32(float32(factor * x{j}_{v}) * s))"]
        body += [f"c = uint32(c0 + {j})", "ok = uint32(exists & lt(c, channels))"]
        body += [f"place = uint64(uint32(uint32(uint32(plane + c) * across) + at)) * {vectors.bytes}"]
        body += vectors.store(f"y{j}_", "out + place", "ok")
    name = f"response{'_backward' if backward else ''}_{size}_{width}{suffix(vectors.dtype)}"
    pointers = [*inputs, "out"]
    scalars = "channels, across, segments, total, k, share, beta, factor"
    source = f"\ndef {name}({', '.join(pointers)}, {scalars}):\n{indent(body, 1)}\n"
    return Kernel(name, source, "P" * len(pointers) + "IIIIFFFF", operations(vectors), THREADS, 0, 80)


def _tag(j):
    """A channel's number in a name."""
    return str(j) if j >= 0 else f"m{-j}"
