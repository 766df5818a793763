"""Implicit GEMM in plain float32 multiply-adds: the strict mode, on any device, from images as they lie.

Both kernels compute a tile of 128 x 128 with 256 threads of 8 x 8 accumulators, 16 elements of the sum at a
time, three stages of cp.async ahead. A table row (offset, d, h, w) says for one element of the sum (a channel
at a tap) how far it lies from a position's first element, and by how much on each axis, so that any channel
count, any strides and any phase of a gradient are the same loop.

Which element belongs to a thread is chosen for shared memory: reads of 16 bytes by 8 neighbouring lanes, and
copies by 32, meet all 32 banks once.
"""

from .kernel import AXES, Kernel, activated, decode, from_group, indent, pipeline

DEPTH, TILE, THREADS, STAGES = 16, 128, 256, 3
OPERATIONS = (
    ("zeros", "zeros", 64), ("wait", "copy_wait", STAGES - 2),
    ("load_bias", "load", "f32"), ("store", "store", "f32"),
)  # fmt: skip


# 16 x 16 threads; a warp covers 8 x 4 of them
_PLACE = """
    t = uint32(cuda.threadIdx.x)
    lane = uint32(t & 31)
    warp = uint32(t >> 5)
    ta = uint32(uint32(lane & 7) + uint32(warp & 1) * 8)
    tb = uint32(uint32(lane >> 3) + uint32(warp >> 1) * 4)
    at_a = uint32(ta * 16)
    at_b = uint32(tb * 16)
"""


def _pipeline(load, stage, b_start):
    product = f"acc = outer_sum(acc, uint32(tile + at_a), uint32(tile + at_b + {b_start}))"
    return pipeline(load, [product], stage, STAGES)


def forward(bias=False, activation=None):
    """y[m, k] = activation(bias[k] + sum over e of x[first(m) + offset(e)] * weight[e, k]); any strides.

    Parameters: P x, P table (16 bytes a row), P weight (elements x pitch), P y, (P bias,) then uint32: M, K,
    elements of the sum, pitch of the weight (multiple of 4), and for d, h, w: counts of positions, sizes of
    x, strides of x in elements (n first), position strides, origins; strides of y for n, d, h, w, k; elements
    from group to group of x, weight and y. Grid: tiles of M x tiles of K, K fastest; groups.
    """
    name = "gemm_f32_forward" + ("_bias" if bias else "") + (f"_{activation}" if activation else "")
    integers = ["M", "K", "E", "pitch"]
    integers += [f"{what}_{a}" for what in ("count", "size") for a in AXES]
    integers += [f"x_{a}" for a in "n" + AXES] + [f"{w}_{a}" for w in ("stride", "origin") for a in AXES]
    integers += [f"y_{a}" for a in "n" + AXES + "k"] + ["x_group", "weight_group", "y_group"]
    stage = 2 * DEPTH * TILE * 4
    b_start = DEPTH * TILE * 4
    start = [f"i_{a} = uint32(i_{a} * stride_{a} + origin_{a})" for a in AXES]
    start += ["own = uint32(i_n * x_n + " + " + ".join(f"i_{a} * x_{a}" for a in AXES) + ")"]
    load = []
    for i in range(8):
        load += [
            f"e = uint32(uint32(k * {DEPTH}) + half * 8 + {i})",
            "ok = lt(e, E)",
            "row = load128(table + uint64(e) * 16, ok)",
            "ok = uint32(ok & exists)",
        ]
        load += [f"ok = uint32(ok & lt(uint32(i_{a} + row[{j + 1}]), size_{a}))" for j, a in enumerate(AXES)]
        load += [
            f"target = uint32(tile + uint32(uint32(half * 8 + {i}) * {TILE} + m) * 4)",
            "copy4(target, x + uint64(uint32(uint32(own + row[0]) * ok)) * 4, uint32(ok * 4))",
        ]
    for i in range(2):
        load += [
            f"e = uint32(uint32(k * {DEPTH}) + uint32(t >> 5) + {8 * i})",
            "column = uint32(k0 + lane * 4)",
            "ok = uint32(lt(e, E) & lt(column, pitch))",
            f"target = uint32(tile + {b_start} + uint32(uint32(uint32(t >> 5) + {8 * i}) * {TILE}"
            " + lane * 4) * 4)",
            "copy16(target, weight + uint64(uint32(uint32(e * pitch + column) * ok)) * 4, uint32(ok * 16))",
        ]
    save = ["channel = uint32(k0 + tb * 4)"]
    for j in range(8):
        channel = f"uint32(channel + {j % 4 + 64 * (j // 4)})"
        save += [f"in{j} = lt({channel}, K)", f"at{j} = uint32({channel} * y_k)"]
        if bias:
            save += [f"bias{j} = load_bias(bias + uint64({channel}) * 4, in{j})"]
    for i in range(8):
        save += [f"pixel = uint32(m0 + ta * 4 + {i % 4 + 64 * (i // 4)})", "exists = lt(pixel, M)"]
        save += decode("o_")
        terms = " + ".join(f"o_{a} * y_{a}" for a in "n" + AXES)
        save += [f"here = uint32({terms})"]
        for j in range(8):
            value = f"acc[{8 * i + j}]" + (f" + bias{j}" if bias else "")
            save += [f"v = float32({value})", f"v = {activated(activation, 'v')}"]
            save += [f"store(y + uint64(uint32(here + at{j})) * 4, v, uint32(exists & in{j}))"]
    source = f"""
def {name}(x, table, weight, y, {"bias, " if bias else ""}{", ".join(integers)}):
    base = shared_address(cuda.shared.array(0, float32)){_PLACE}
    group = uint32(cuda.blockIdx.y)
{indent(from_group("x", "weight", "y", size=4, bias=bias), 1)}
    tiles = uint32(uint32(K + {TILE - 1}) // uint32({TILE}))
    m0 = uint32(uint32(uint32(cuda.blockIdx.x) // tiles) * {TILE})
    k0 = uint32(uint32(uint32(cuda.blockIdx.x) % tiles) * {TILE})
    steps = uint32(uint32(E + {DEPTH - 1}) // uint32({DEPTH}))
    m = uint32(t & {TILE - 1})
    half = uint32(t >> 7)
    pixel = uint32(m0 + m)
    exists = lt(pixel, M)
{indent(decode("i_") + start, 1)}
    acc = zeros()
{indent(_pipeline(load, stage, b_start), 1)}
{indent(save, 1)}
"""
    letters = "PPPP" + ("P" if bias else "") + "I" * len(integers)
    operations = (*OPERATIONS, ("wait_all", "copy_wait", 0), ("outer_sum", "outer_sum", DEPTH, 4 * TILE))
    return Kernel(name, source, letters, operations, THREADS, STAGES * stage, 80, 2)


def weight_gradient():
    """part[z, k, e] = sum over the positions m of split z of dy[m, k] * x[first(m) + offset(e)]; any strides.

    Parameters: P x, P table, P dy, P parts, then uint32: M, K, E, k-tiles a split, elements of a part, and
    for d, h, w: counts of positions, sizes of x, strides of x (n first), position strides, origins, strides
    of dy for n, d, h, w, k; splits, elements from group to group of x, dy and a part. Grid: (tiles of E,
    tiles of K, groups x splits, splits fastest).
    """
    name = "gemm_f32_weight_gradient"
    integers = ["M", "K", "E", "steps", "part_size"]
    integers += [f"{what}_{a}" for what in ("count", "size") for a in AXES]
    integers += [f"x_{a}" for a in "n" + AXES] + [f"{w}_{a}" for w in ("stride", "origin") for a in AXES]
    integers += [f"y_{a}" for a in "n" + AXES + "k"] + ["splits", "x_group", "dy_group", "parts_group"]
    # lanes copy 8 positions of 4 channels: the pitch spreads them over all banks
    pitch = TILE + 4
    stage = 2 * DEPTH * pitch * 4
    b_start = DEPTH * pitch * 4
    prepare = []
    for j in range(4):
        prepare += [
            f"element{j} = uint32(e0 + r + {32 * j})",
            f"ok{j} = lt(element{j}, E)",
            f"row{j} = load128(table + uint64(element{j}) * 16, ok{j})",
            f"channel{j} = uint32(k0 + r + {32 * j})",
            f"exists{j} = lt(channel{j}, K)",
            f"place{j} = uint32(channel{j} * y_k)",
        ]
    load = []
    for i in range(2):
        load += [
            f"pixel = uint32(p0 + uint32(k * {DEPTH}) + low + {8 * i})",
            "there = uint32(lt(pixel, M) & lt(uint32(k), steps))",
            *decode("i_"),
        ]
        load += ["here = uint32(" + " + ".join(f"i_{a} * y_{a}" for a in "n" + AXES) + ")"]
        load += [f"i_{a} = uint32(i_{a} * stride_{a} + origin_{a})" for a in AXES]
        load += ["own = uint32(i_n * x_n + " + " + ".join(f"i_{a} * x_{a}" for a in AXES) + ")"]
        for j in range(4):
            load += [
                f"at = uint32(tile + uint32(uint32(low + {8 * i}) * {pitch} + r + {32 * j}) * 4)",
                f"ok = uint32(there & exists{j})",
                f"copy4(at, dy + uint64(uint32(uint32(here + place{j}) * ok)) * 4, uint32(ok * 4))",
                f"ok = uint32(there & ok{j})",
            ]
            load += [
                f"ok = uint32(ok & lt(uint32(i_{a} + row{j}[{q + 1}]), size_{a}))" for q, a in enumerate(AXES)
            ]
            load += [
                f"copy4(uint32(at + {b_start}), x + uint64(uint32(uint32(own + row{j}[0]) * ok)) * 4,"
                " uint32(ok * 4))"
            ]
    save = []
    for i in range(8):
        save += [f"row = uint32(k0 + ta * 4 + {i % 4 + 64 * (i // 4)})", "there = lt(row, K)"]
        for j in range(8):
            save += [f"e = uint32(e0 + tb * 4 + {j % 4 + 64 * (j // 4)})"]
            save += [
                f"store(part + uint64(uint32(row * E + e)) * 4, acc[{8 * i + j}], uint32(there & lt(e, E)))"
            ]
    source = f"""
def {name}(x, table, dy, parts, {", ".join(integers)}):
    base = shared_address(cuda.shared.array(0, float32)){_PLACE}
    e0 = uint32(cuda.blockIdx.x * {TILE})
    k0 = uint32(cuda.blockIdx.y * {TILE})
    group = uint32(uint32(cuda.blockIdx.z) // splits)
    split = uint32(uint32(cuda.blockIdx.z) % splits)
{indent(from_group("x", "dy", size=4), 1)}
    p0 = uint32(split * steps * {DEPTH})
    low = uint32(t & 7)
    r = uint32(t >> 3)
{indent(prepare, 1)}
    acc = zeros()
{indent(_pipeline(load, stage, b_start), 1)}
    part = parts + (uint64(split) * uint64(part_size) + uint64(uint32(group * parts_group))) * 4
{indent(save, 1)}
"""
    operations = (*OPERATIONS, ("wait_all", "copy_wait", 0), ("outer_sum", "outer_sum", DEPTH, 4 * pitch))
    return Kernel(name, source, "PPPP" + "I" * len(integers), operations, THREADS, STAGES * stage, 80, 1)
