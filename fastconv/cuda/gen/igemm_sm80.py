"""Implicit GEMM by mma.sync on sm_80 and later: forward convolution and gradient of the input.

The same sum and the same packed weight (K, taps, channels rounded up) as `igemm_sm90`; x is channels last.
k-tiles of 64 bytes arrive by cp.async, some ahead of the one that is multiplied. A `Tile` says how many
positions x channels a block computes and how its warps share them; the sum of an element does not depend on
it. Groups of channels are the second axis of the grid.

A row of 64 bytes holds 4 pieces of 16; piece p of row r is stored at p ^ (r / 2 % 4), so that the 8 rows that
ldmatrix reads at a time meet all banks once. One 16-byte piece is 8 16-bit or 4 32-bit values, and ldmatrix
hands out words, so that all dtypes share the text. "f32" is three TF32 products as in `igemm_sm90`, split
here for both operands, each k-tile summed from zero.
"""

from typing import NamedTuple

from .kernel import AXES, BYTES, Kernel, activated, decode, from_group, indent, pipeline

ROW = 64


class Tile(NamedTuple):
    """positions x channels of a block, by down x across warps; stages: a power of two."""

    positions: int
    channels: int
    down: int
    across: int
    stages: int

    @property
    def threads(self):
        return 32 * self.down * self.across

    @property
    def stage(self):
        return (self.positions + self.channels) * ROW


WIDE = Tile(128, 128, 2, 4, 4)
# for few positions: more blocks, and as many bytes of weights on their way as keep memory busy
THIN = Tile(32, 32, 2, 2, 8)
# for few channels, as groups have them
TALL = Tile(128, 32, 4, 1, 4)


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


def kernel(dtype, bias=False, activation=None, tile=WIDE):
    """The `Kernel` for "bf16", "f16", "tf32" or "f32".

    Parameters: P x, P weight, P y, (P bias,) then uint32: M, K, channels of x, k-tiles a tap, counts of
    taps and positions, sizes of x, strides of x in elements (n first), position strides, origins, tap
    distances for d, h, w; strides of y for n, d, h, w, k; elements from group to group of x, weight and y.
    Grid: tiles of M x tiles of K, K fastest; groups. x is aligned to 16 bytes and so are its strides.
    """
    size, split = BYTES[dtype], dtype == "f32"
    piece = 16 // size
    chunk = tile_channels(dtype)
    together = tile.threads // 4  # rows that the threads copy at once, a piece each
    high, wide = tile.positions // tile.down // 16, tile.channels // tile.across // 16  # a warp's 16 x 16
    name = f"igemm_sm80_{dtype}_{tile.positions}x{tile.channels}"
    name += ("_bias" if bias else "") + (f"_{activation}" if activation else "")
    integers = ["M", "K", "C", "chunks"] + [f"{what}_{a}" for what in ("taps", "count", "size") for a in AXES]
    integers += [f"x_{a}" for a in "n" + AXES]
    integers += [f"{what}_{a}" for what in ("stride", "origin", "step") for a in AXES]
    integers += [f"y_{a}" for a in "n" + AXES + "k"] + ["x_group", "weight_group", "y_group"]
    rows_of_x, rows_of_weight = range(tile.positions // together), range(tile.channels // together)

    prepare = []
    for i in rows_of_x:
        prepare += [f"pixel = uint32(m0 + r + {together * i})", f"exists{i} = lt(pixel, M)"]
        prepare += decode(f"p{i}")
        prepare += [f"p{i}{a} = uint32(p{i}{a} * stride_{a} + origin_{a})" for a in AXES]
        prepare += [f"own{i} = uint32(" + " + ".join(f"p{i}{a} * x_{a}" for a in "n" + AXES) + ")"]
    for i in rows_of_weight:
        prepare += [
            f"wanted{i} = lt(uint32(k0 + r + {together * i}), K)",
            f"column{i} = uint32(uint32(k0 + r + {together * i}) * steps * {chunk} + piece * {piece})",
        ]
    load = [
        f"channel = uint32(part * {chunk} + piece * {piece})",
        "more = lt(uint32(k), steps)",
        "ahead_ok = uint32(more & lt(channel, C))",
    ]
    load += [f"at_{a} = uint32(tap_{a} * step_{a})" for a in AXES]
    load += ["beyond = uint32(channel + " + " + ".join(f"at_{a} * x_{a}" for a in AXES) + ")"]
    for i in rows_of_x:
        load += [f"ok = uint32(ahead_ok & exists{i})"]
        load += [f"ok = uint32(ok & lt(uint32(p{i}{a} + at_{a}), size_{a}))" for a in AXES]
        load += [
            f"copy16(uint32(tile + put + {together * i * ROW}), "
            f"x + uint64(uint32(uint32(own{i} + beyond) * ok)) * {size}, uint32(ok * 16))",
        ]
    for i in rows_of_weight:
        load += [
            f"ok = uint32(more & wanted{i})",
            f"source = uint32(uint32(column{i} + uint32(k * {chunk})) * ok)",
            f"copy16(uint32(tile + put + {(tile.positions + together * i) * ROW}), "
            f"weight + uint64(source) * {size}, uint32(ok * 16))",
        ]
    load += ["part = uint32(part + 1)", "if part == chunks:", "    part = uint32(0)"]
    for depth, a in enumerate(reversed(AXES)):
        load += ["    " * (depth + 1) + f"tap_{a} = uint32(tap_{a} + 1)"]
        if a != "d":
            load += ["    " * (depth + 1) + f"if tap_{a} == taps_{a}:"]
            load += ["    " * (depth + 2) + f"tap_{a} = uint32(0)"]
    multiply = []
    if split:
        multiply += ["part_sum = zeros()"]
    for k in range(ROW // 32):
        for operand, count, which in (("a", high, "high"), ("b", wide, "other")):
            turned = f"uint32(uint32(uint32({which} + {2 * k}) ^ turn) << 4)"
            multiply += [
                f"{operand}{i} = matrix_load(uint32(tile + at_{operand} + {16 * i * ROW} + {turned}))"
                for i in range(count)
            ]
        if split:
            registers = (
                [f"{v}{i}[{j}]" for i in range(c) for j in range(4)] for v, c in (("a", high), ("b", wide))
            )
            multiply += three_products(*registers)
        else:
            a, b = (" + ".join(f"{v}{i}" for i in range(c)) for v, c in (("a", high), ("b", wide)))
            multiply += [f"acc = mma(acc, {a}, {b})"]
    if split:
        multiply += ["acc = accumulate(acc, part_sum)"]
    save = []
    for j in range(2 * wide):
        for i in (0, 1):
            channel = f"uint32(column + {8 * j + i})"
            save += [f"in{j}{i} = lt({channel}, K)", f"at{j}{i} = uint32({channel} * y_k)"]
            if bias:
                save += [f"bias{j}{i} = load_bias(bias + uint64({channel}) * {size}, in{j}{i})"]
    for m in range(high):
        for half in (0, 1):
            save += [f"pixel = uint32(row + {16 * m + 8 * half})", "exists = lt(pixel, M)", *decode("o_")]
            save += ["here = uint32(" + " + ".join(f"o_{a} * y_{a}" for a in "n" + AXES) + ")"]
            for j in range(2 * wide):
                for i in (0, 1):
                    value = f"acc[{(m * 2 * wide + j) * 4 + 2 * half + i}]"
                    value += f" + bias{j}{i}" if bias else ""
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
    group = uint32(cuda.blockIdx.y)
{indent(from_group("x", "weight", "y", size=size, bias=bias), 1)}
    tiles = uint32(uint32(K + {tile.channels - 1}) // uint32({tile.channels}))
    m0 = uint32(uint32(uint32(cuda.blockIdx.x) // tiles) * {tile.positions})
    k0 = uint32(uint32(uint32(cuda.blockIdx.x) % tiles) * {tile.channels})
    steps = uint32(taps_d * taps_h * taps_w * chunks)
    r = uint32(t >> 2)
    piece = uint32(t & 3)
    put = uint32(r * {ROW} + uint32(uint32(piece ^ uint32(uint32(r >> 1) & 3)) << 4))
{indent(prepare, 1)}
    part = uint32(0)
{indent([f"tap_{a} = uint32(0)" for a in AXES], 1)}
    # a lane's row of the four 8 x 8 matrices: of A rows 0-7 and 8-15, then the same rows 16 bytes on; of B
    # rows 0-7, the same 16 bytes on, then rows 8-15
    above = uint32(uint32(warp & {tile.down - 1}) * {16 * high})
    left = uint32(uint32(warp // uint32({tile.down})) * {16 * wide})
    row_a = uint32(above + uint32(lane & 15))
    row_b = uint32(left + uint32(lane & 7) + uint32(uint32(lane >> 4) * 8))
    high = uint32(lane >> 4)
    other = uint32(uint32(lane >> 3) & 1)
    turn = uint32(uint32(lane >> 1) & 3)
    at_a = uint32(row_a * {ROW})
    at_b = uint32(row_b * {ROW} + {tile.positions * ROW})
    acc = zeros()
{indent(pipeline(load, multiply, tile.stage, tile.stages), 1)}
    row = uint32(m0 + above + uint32(lane >> 2))
    column = uint32(k0 + left + uint32(lane & 3) * 2)
{indent(save, 1)}
"""
    storage = "f32" if size == 4 else dtype
    width = high * 2 * wide * 4
    operations = [
        ("mma", "mma", high, 2 * wide, "tf32" if size == 4 else dtype), ("zeros", "zeros", width),
        ("load_bias", "load", storage), ("store", "store", storage),
        ("wait", "copy_wait", tile.stages - 2), ("wait_all", "copy_wait", 0),
    ]  # fmt: skip
    operations += [("accumulate", "accumulate", width)] if split else []
    letters = "PPP" + ("P" if bias else "") + "I" * len(integers)
    blocks = 1 if split and tile is WIDE else 2
    return Kernel(
        name, source, letters, tuple(operations), tile.threads, tile.stages * tile.stage, 80, blocks
    )
