"""Gradient of the weight of a depthwise convolution: every channel is a sum of products of two planes.

part[z, c, r, s] = sum over the positions m of part z of dy[c, m] * x[c, m * stride + origin + (r, s) * step]

A block sums one part of one channel. A thread takes four neighbouring positions of a row at a time, so that
what their windows share is loaded once, and keeps a sum for every tap; 256 sums of a tap are then added in
the order of a butterfly within the warps, and warp by warp. Which positions belong to a part depends on the
problem alone, and `layout.sum_parts` adds the parts in order: two runs give the same bits.
"""

from .kernel import BYTES, Kernel, indent

THREADS, TOGETHER = 256, 4
LONGEST = 49  # taps, each a register
SLOTS = 64  # words that a warp leaves in shared memory: a sum for every tap


def kernel(dtype, taps, stride, step):
    """The `Kernel` for taps (R, S), and for one stride and distance of taps along rows.

    Parameters: P x, P dy, P parts (float32), I channels, I groups of four positions in all, and in a row, I
    steps of 256 such groups that a part has, I elements of a part, and for h, w: I counts of positions, I
    sizes of x, I origins; I stride and I distance of taps along columns. x and dy are contiguous (N, C, H,
    W). Grid: (channels, parts).
    """
    R, S = taps
    size, count = BYTES[dtype], R * S
    # columns of x to the right of the first window, with the first of the positions that read it: if any of
    # these exists, that one does
    first = {j * stride + s * step: j for j in reversed(range(TOGETHER)) for s in range(S)}
    columns = sorted(first)
    body = [
        "quad = uint32(unit % quads)",
        "row = uint32(unit // quads)",
        "p = uint32(row % count_h)",
        "plane = uint32(uint32(row // count_h) * channels + c)",
        f"q = uint32(quad * {TOGETHER})",
        "there = lt(unit, units)",
        "own = uint32(uint32(plane * count_h + p) * count_w + q)",
    ]
    for j in range(TOGETHER):
        body += [
            f"exists{j} = uint32(there & lt(uint32(q + {j}), count_w))",
            f"g{j} = load(dy + uint64(uint32(own + {j})) * {size}, exists{j})",
        ]
    body += [f"left = uint32(q * {stride} + origin_w)"]
    body += [
        f"in{i} = uint32(exists{first[o]} & lt(uint32(left + {o}), size_w))" for i, o in enumerate(columns)
    ]
    for r in range(R):
        body += [
            f"h = uint32(p * stride_h + origin_h + step_h * {r})",
            "in_h = lt(h, size_h)",
            "start = uint32(uint32(plane * size_h + h) * size_w + left)",
        ]
        body += [
            f"x{o} = load(x + uint64(uint32(start + {o})) * {size}, uint32(in_h & in{i}))"
            for i, o in enumerate(columns)
        ]
        for s in range(S):
            for j in range(TOGETHER):
                a = f"a{r * S + s}"
                body += [f"{a} = float32({a} + float32(x{j * stride + s * step} * g{j}))"]
    body += [f"unit = uint32(unit + {THREADS})"]
    reduce = ["low = float32(0.0)", "high = float32(0.0)"]
    for i in range(count):
        reduce += [f"a{i} = float32(a{i} + exchange{m}(a{i}))" for m in (16, 8, 4, 2, 1)]
        kept = "low" if i < 32 else "high"
        reduce += [f"{kept} = choose(a{i}, {kept}, equal(lane, uint32({i % 32})))"]
    reduce += [
        f"place = uint32(base + uint32(warp * {SLOTS} + lane) * 4)",
        "shared_store(place, bits(low))",
        "shared_store(uint32(place + 128), bits(high))",
        "cuda.syncthreads()",
        f"slot = uint32(t & {SLOTS - 1})",
        "v = float32(0.0)",
    ]
    for w in range(THREADS // 32):
        reduce += [f"v = float32(v + value(shared_load(uint32(base + uint32(slot + {w * SLOTS}) * 4))))"]
    name = f"wgrad_depthwise_{dtype}_{R}x{S}_{stride}_{step}"
    integers = ["channels", "units", "quads", "steps", "part_size"]
    integers += [f"{what}_{a}" for what in ("count", "size", "origin") for a in "hw"] + ["stride_h", "step_h"]
    source = f"""
def {name}(x, dy, parts, {", ".join(integers)}):
    base = shared_address(cuda.shared.array(0, float32))
    t = uint32(cuda.threadIdx.x)
    lane = uint32(t & 31)
    warp = uint32(t >> 5)
    c = uint32(cuda.blockIdx.x)
    unit = uint32(cuda.blockIdx.y * steps * {THREADS} + t)
{indent([f"a{i} = float32(0.0)" for i in range(count)], 1)}
    for now in range(steps):
{indent(body, 2)}
{indent(reduce, 1)}
    at = uint64(cuda.blockIdx.y) * uint64(part_size) + uint64(uint32(c * {count} + slot))
    store32(parts + at * 4, bits(v), lt(t, {count}))
"""
    operations = tuple((f"exchange{m}", "shuffle_xor", m) for m in (16, 8, 4, 2, 1))
    operations += (("load", "load", dtype),)
    shared = 4 * SLOTS * THREADS // 32
    return Kernel(name, source, "PPP" + "I" * len(integers), operations, THREADS, shared, 80)
