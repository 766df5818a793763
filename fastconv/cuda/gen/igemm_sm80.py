"""Implicit GEMM by mma.sync on sm_80 and later: forward convolution and gradient of the input.

The same sum and the same packed weight (K, taps, channels rounded up) as `igemm_sm90`; x is channels last. A
tile is 128 positions x 128 channels; k-tiles of 64 bytes arrive by cp.async, three ahead of the one that 8
warps multiply. Each warp owns 64 x 32 of the tile.

A row of 64 bytes holds 4 pieces of 16; piece p of row r is stored at p ^ (r / 2 % 4), so that the 8 rows that
ldmatrix reads at a time meet all banks once. One 16-byte piece is 8 16-bit or 4 32-bit values, and ldmatrix
hands out words, so that all dtypes share the text. "f32" is three TF32 products as in `igemm_sm90`, split
here for both operands, each k-tile summed from zero.
"""

from .kernel import AXES, BYTES, Kernel, activated, decode, indent

TILE, THREADS, STAGES, ROW = 128, 256, 4, 64
STAGE = 2 * TILE * ROW


def tile_channels(dtype):
    """Channels of one k-tile."""
    return ROW // BYTES[dtype]


def three_products(a, b):
    """Lines that add A B to part_sum in three TF32 products, the small ones first.

    a, b: texts of the float32 registers of A (4 a tile) and B (2 a tile). A value is its part rounded to
    nearest, h, and the rest, l; l * l, at most 2**-22 of the product, is left out.
    """
    lines, names = [], {}
    for operand, registers in (("a", a), ("b", b)):
        for i, register in enumerate(registers):
            name = f"{operand}{i // 4}{i % 4}"
            lines += [f"h = rounded_tf32({register})", f"h{name} = h", f"l{name} = rest({register}, h)"]
            for part in "hl":
                names.setdefault(part + operand, []).append(part + name)
    for left, right in (("la", "hb"), ("ha", "lb"), ("ha", "hb")):
        lines += [f"part_sum = mma(part_sum, ({', '.join(names[left])}), ({', '.join(names[right])}))"]
    return lines


def kernel(dtype, bias=False, activation=None):
    """The `Kernel` for "bf16", "f16", "tf32" or "f32".

    Parameters: P x, P weight, P y, (P bias,) then uint32: M, K, channels of x, k-tiles a tap, counts of
    taps and positions, sizes of x, strides of x in elements (n first), position strides, origins, tap
    distances for d, h, w; strides of y for n, d, h, w, k. Grid: tiles of M x tiles of K, K fastest. x is
    aligned to 16 bytes and so are its strides.
    """
    size, split = BYTES[dtype], dtype == "f32"
    piece = 16 // size
    chunk = tile_channels(dtype)
    name = f"igemm_sm80_{dtype}" + ("_bias" if bias else "") + (f"_{activation}" if activation else "")
    integers = ["M", "K", "C", "chunks"] + [f"{what}_{a}" for what in ("taps", "count", "size") for a in AXES]
    integers += [f"x_{a}" for a in "n" + AXES]
    integers += [f"{what}_{a}" for what in ("stride", "origin", "step") for a in AXES]
    integers += [f"y_{a}" for a in "n" + AXES + "k"]

    prepare = []
    for i in (0, 1):  # a thread copies one piece of two rows of x and of the weight
        prepare += [f"pixel = uint32(m0 + r + {64 * i})", f"exists{i} = lt(pixel, M)", *decode(f"p{i}")]
        prepare += [f"p{i}{a} = uint32(p{i}{a} * stride_{a} + origin_{a})" for a in AXES]
        prepare += [f"own{i} = uint32(" + " + ".join(f"p{i}{a} * x_{a}" for a in "n" + AXES) + ")"]
        prepare += [
            f"wanted{i} = lt(uint32(k0 + r + {64 * i}), K)",
            f"column{i} = uint32(uint32(k0 + r + {64 * i}) * steps * {chunk} + piece * {piece})",
        ]
    load = [
        f"channel = uint32(part * {chunk} + piece * {piece})",
        "ahead_ok = uint32(lt(uint32(k), steps) & lt(channel, C))",
    ]
    load += [f"at_{a} = uint32(tap_{a} * step_{a})" for a in AXES]
    load += ["beyond = uint32(channel + " + " + ".join(f"at_{a} * x_{a}" for a in AXES) + ")"]
    for i in (0, 1):
        load += [f"ok = uint32(ahead_ok & exists{i})"]
        load += [f"ok = uint32(ok & lt(uint32(p{i}{a} + at_{a}), size_{a}))" for a in AXES]
        load += [
            f"target = uint32(tile + put + {64 * i * ROW})",
            f"copy16(target, x + uint64(uint32(uint32(own{i} + beyond) * ok)) * {size}, uint32(ok * 16))",
            f"ok = uint32(lt(uint32(k), steps) & wanted{i})",
            f"source = uint32(uint32(column{i} + uint32(k * {chunk})) * ok)",
            f"copy16(uint32(target + {TILE * ROW}), weight + uint64(source) * {size}, uint32(ok * 16))",
        ]
    load += ["copy_commit()", "part = uint32(part + 1)", "if part == chunks:", "    part = uint32(0)"]
    for depth, a in enumerate(reversed(AXES)):
        load += ["    " * (depth + 1) + f"tap_{a} = uint32(tap_{a} + 1)"]
        if a != "d":
            load += ["    " * (depth + 1) + f"if tap_{a} == taps_{a}:"]
            load += ["    " * (depth + 2) + f"tap_{a} = uint32(0)"]
    multiply = []
    if split:
        multiply += ["part_sum = zeros()"]
    for k in range(ROW // 32):
        for m in range(4):
            address = (
                f"uint32(tile + at_a + {16 * m * ROW} + uint32(uint32(uint32(high + {2 * k}) ^ turn) << 4))"
            )
            multiply += [f"a{m} = matrix_load({address})"]
        for n in range(2):
            address = (
                f"uint32(tile + at_b + {16 * n * ROW} + uint32(uint32(uint32(other + {2 * k}) ^ turn) << 4))"
            )
            multiply += [f"b{n} = matrix_load({address})"]
        if split:
            a, b = ([f"{v}{i}[{j}]" for i in range(c) for j in range(4)] for v, c in (("a", 4), ("b", 2)))
            multiply += three_products(a, b)
        else:
            multiply += ["acc = mma(acc, a0 + a1 + a2 + a3, b0 + b1)"]
    if split:
        multiply += ["acc = accumulate(acc, part_sum)"]
    save = []
    for j in range(4):
        for i in (0, 1):
            channel = f"uint32(column + {8 * j + i})"
            save += [f"in{j}{i} = lt({channel}, K)", f"at{j}{i} = uint32({channel} * y_k)"]
            if bias:
                save += [f"bias{j}{i} = load_bias(bias + uint64({channel}) * {size}, in{j}{i})"]
    for m in range(4):
        for half in (0, 1):
            save += [f"pixel = uint32(row + {16 * m + 8 * half})", "exists = lt(pixel, M)", *decode("o_")]
            save += ["here = uint32(" + " + ".join(f"o_{a} * y_{a}" for a in "n" + AXES) + ")"]
            for j in range(4):
                for i in (0, 1):
                    value = f"acc[{(m * 4 + j) * 4 + 2 * half + i}]" + (f" + bias{j}{i}" if bias else "")
                    save += [f"v = float32({value})", f"v = {activated(activation, 'v')}"]
                    save += [
                        f"store(y + uint64(uint32(here + at{j}{i})) * {size}, v, uint32(exists & in{j}{i}))"
                    ]
    source = f"""
def {name}(x, weight, y, {"bias, " if bias else ""}{", ".join(integers)}):
    base = shared_address(cuda.shared.array(0, float32))
    t = uint32(cuda.threadIdx.x)
    lane = uint32(t & 31)
    warp = uint32(t >> 5)
    tiles = uint32(uint32(K + {TILE - 1}) // uint32({TILE}))
    m0 = uint32(uint32(uint32(cuda.blockIdx.x) // tiles) * {TILE})
    k0 = uint32(uint32(uint32(cuda.blockIdx.x) % tiles) * {TILE})
    steps = uint32(taps_d * taps_h * taps_w * chunks)
    r = uint32(t >> 2)
    piece = uint32(t & 3)
    put = uint32(r * {ROW} + uint32(uint32(piece ^ uint32(uint32(r >> 1) & 3)) << 4))
{indent(prepare, 1)}
    part = uint32(0)
{indent([f"tap_{a} = uint32(0)" for a in AXES], 1)}
    # a lane's row of the four 8 x 8 matrices: of A rows 0-7 and 8-15, then the same rows 16 bytes on; of B
    # rows 0-7, the same 16 bytes on, then rows 8-15
    row_a = uint32(uint32(warp & 1) * 64 + uint32(lane & 15))
    row_b = uint32(uint32(warp >> 1) * 32 + uint32(lane & 7) + uint32(uint32(lane >> 4) * 8))
    high = uint32(lane >> 4)
    other = uint32(uint32(lane >> 3) & 1)
    turn = uint32(uint32(lane >> 1) & 3)
    at_a = uint32(row_a * {ROW})
    at_b = uint32(row_b * {ROW} + {TILE * ROW})
    acc = zeros()
    st = uint32(0)
    for k in range({STAGES - 1}):
        tile = uint32(base + st * {STAGE})
{indent(load, 2)}
        st = uint32(st + 1)
    st = uint32(0)
    ahead = uint32({STAGES - 1})
    for now in range(steps):
        wait()
        cuda.syncthreads()
        k = uint32(now + {STAGES - 1})
        tile = uint32(base + ahead * {STAGE})
{indent(load, 2)}
        tile = uint32(base + st * {STAGE})
{indent(multiply, 2)}
        st = uint32(uint32(st + 1) & {STAGES - 1})
        ahead = uint32(uint32(ahead + 1) & {STAGES - 1})
    wait_all()
    row = uint32(m0 + uint32(warp & 1) * 64 + uint32(lane >> 2))
    column = uint32(k0 + uint32(warp >> 1) * 32 + uint32(lane & 3) * 2)
{indent(save, 1)}
"""
    storage = "f32" if size == 4 else dtype
    operations = [
        ("mma", "mma", 4, 4, "tf32" if size == 4 else dtype), ("zeros", "zeros", 64),
        ("load_bias", "load", storage), ("store", "store", storage),
        ("wait", "copy_wait", STAGES - 2), ("wait_all", "copy_wait", 0),
    ]  # fmt: skip
    operations += [("accumulate", "accumulate", 64)] if split else []
    letters = "PPP" + ("P" if bias else "") + "I" * len(integers)
    return Kernel(name, source, letters, tuple(operations), THREADS, STAGES * STAGE, 80, 1 if split else 2)
