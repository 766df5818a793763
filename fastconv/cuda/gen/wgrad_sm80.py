"""Gradient of the weight by mma.sync on sm_80 and later: 16-bit dtypes, TF32, and three TF32 products.

part[z, k, e] = sum over the positions m of split z of dy[m, k] * x[pixel(m) + tap(e), channel(e)]

Images are channels last. Element e = tap * C + channel counts channels rounded up to 16 bytes, so that a
piece of 16 bytes belongs to one tap and tiles are full however few channels there are. A tile is 128 output
channels x 128 elements; k-tiles of 16 positions (32 of 16-bit dtypes) arrive by cp.async, three ahead of the
one that 8 warps multiply. Each warp owns 64 x 32 of the tile. The parts are added in a fixed order by
`layout.sum_parts`, so that two runs give the same bits.

The sum runs down the columns of both operands. ldmatrix turns 16-bit values on the way to registers; 32-bit
ones, which it cannot turn, are read a word a lane. Rows are 16 bytes (32 for 32-bit dtypes) longer than
their 128 values: then 8 rows of one piece, or 4 rows of 8 words, meet all banks once.

"tf32" leaves it to the tensor core to drop the low bits of both operands; "f32" splits both as `igemm_sm80`
does, each k-tile summed from zero.
"""

from .igemm_sm80 import three_products
from .kernel import AXES, BYTES, Kernel, decode, from_group, indent, pipeline

TILE, THREADS, STAGES = 128, 256, 4
STEPS = 2  # products of mma.sync that a k-tile is deep


def depth(dtype):
    """Positions of one k-tile."""
    return STEPS * (8 if BYTES[dtype] == 4 else 16)


def kernel(dtype, direct=False):
    """The `Kernel` for "bf16", "f16", "tf32" or "f32"; direct: parts are of the dtype instead of float32, as
    it suits a single one.

    Parameters: P x, P dy, P parts, then uint32: N, K, channels rounded up, elements (taps *
    channels), k-tiles a split, elements of a part, and for d, h, w: counts of taps and positions, sizes of x,
    strides of x in elements (n first), position strides, origins, tap distances, strides of dy (n first);
    splits, elements from group to group of x, dy and a part. Grid: (tiles of elements, tiles of K, groups x
    splits, splits fastest). x, dy and their strides are aligned to 16 bytes, and their
    channels are readable up to a multiple of that.
    """
    size, split = BYTES[dtype], dtype == "f32"
    rows = depth(dtype)
    piece = 16 // size
    pieces = TILE // piece  # of a row
    together = THREADS // pieces  # rows that the threads copy at once: half of a k-tile
    pitch = TILE * size + (32 if size == 4 else 16)
    x_start = rows * pitch
    direct = direct and size == 2
    stored = dtype if direct else "f32"
    name = f"wgrad_sm80_{dtype}" + ("_direct" if direct else "")
    integers = ["N", "K", "C", "E", "steps", "part_size"]
    integers += [f"{what}_{a}" for what in ("taps", "count", "size") for a in AXES]
    integers += [f"x_{a}" for a in "n" + AXES]
    integers += [f"{what}_{a}" for what in ("stride", "origin", "step") for a in AXES]
    integers += [f"y_{a}" for a in "n" + AXES] + ["splits", "x_group", "dy_group", "parts_group"]

    # a thread copies the same piece of two rows of x and of dy: its tap and channels never change
    prepare = ["tap = uint32(element // C)"]
    for a in reversed(AXES):
        prepare += [
            f"tap_{a} = uint32(uint32(tap % taps_{a}) * step_{a} + origin_{a})",
            f"tap = uint32(tap // taps_{a})",
        ]
    prepare += ["beyond = uint32(uint32(element % C) + " + " + ".join(f"tap_{a} * x_{a}" for a in AXES) + ")"]
    # positions advance by a k-tile a step, which is added digit by digit: cheaper than dividing every time
    prepare += [f"pixel = uint32({rows})", *decode("go_")]
    for i in (0, 1):
        prepare += [f"pixel = uint32(first + r + {together * i})", *decode(f"p{i}")]

    load = []
    for i in (0, 1):
        load += [
            f"there = uint32(lt(p{i}n, N) & lt(k, steps))",
            f"target = uint32(tile + put + {together * i * pitch})",
            "ok = uint32(there & wanted)",
            "source = uint32(channel + " + " + ".join(f"p{i}{a} * y_{a}" for a in "n" + AXES) + ")",
            f"copy16(target, dy + uint64(uint32(source * ok)) * {size}, uint32(ok * 16))",
            "ok = uint32(there & exists)",
            f"source = uint32(beyond + p{i}n * x_n)",
        ]
        for a in AXES:
            load += [
                f"at = uint32(p{i}{a} * stride_{a})",
                f"ok = uint32(ok & lt(uint32(at + tap_{a}), size_{a}))",
                f"source = uint32(source + at * x_{a})",
            ]
        load += [
            f"copy16(uint32(target + {x_start}), x + uint64(uint32(source * ok)) * {size}, uint32(ok * 16))",
            "carry = uint32(0)",
        ]
        for a in reversed(AXES):
            load += [
                f"p{i}{a} = uint32(p{i}{a} + go_{a} + carry)",
                f"carry = uint32(lt(p{i}{a}, count_{a}) ^ 1)",
                f"p{i}{a} = uint32(p{i}{a} - carry * count_{a})",
            ]
        load += [f"p{i}n = uint32(p{i}n + go_n + carry)"]

    multiply = ["part_sum = zeros()"] if split else []
    for s in range(STEPS):
        if size == 2:
            start = 16 * s * pitch
            for operand, count in (("a", 4), ("b", 2)):
                multiply += [
                    f"{operand}{m} = matrix_load_transposed(uint32(tile + at_{operand} + {start + 32 * m}))"
                    for m in range(count)
                ]
            multiply += ["acc = mma(acc, a0 + a1 + a2 + a3, b0 + b1)"]
            continue
        # register i of a tile of A: positions 0-3 or 4-7, channels 0-7 or 8-15; of B: positions 0-3 or 4-7
        places = {
            "a": [(4 * (i >> 1), 16 * m + 8 * (i & 1)) for m in range(4) for i in range(4)],
            "b": [(4 * i, 8 * j) for j in range(4) for i in range(2)],
        }
        registers = {operand: [f"{operand}{i}" for i in range(len(at))] for operand, at in places.items()}
        for operand, at in places.items():
            for register, (row, column) in zip(registers[operand], at):
                distance = (8 * s + row) * pitch + 4 * column
                multiply += [f"{register} = shared_load(uint32(tile + at_{operand} + {distance}))"]
        if split:
            multiply += three_products(registers["a"], registers["b"])
        else:
            multiply += [f"acc = mma(acc, ({', '.join(registers['a'])}), ({', '.join(registers['b'])}))"]
    multiply += ["acc = accumulate(acc, part_sum)"] if split else []

    if size == 2:
        # a lane's row of the four 8 x 8 matrices: of A positions 0-7 at 8 channels and at the next 8, then
        # positions 8-15; of B positions 0-7 and 8-15, then the same at the next 8 elements
        place = [
            f"at_a = uint32(uint32(uint32(lane & 7) + uint32(uint32(lane >> 4) * 8)) * {pitch}"
            " + uint32(uint32(warp & 1) * 64 + uint32(lane & 8)) * 2)",
            f"at_b = uint32(uint32(lane & 15) * {pitch}"
            f" + uint32(uint32(warp >> 1) * 32 + uint32(uint32(lane >> 4) * 8)) * 2 + {x_start})",
        ]
    else:
        place = [
            f"at_a = uint32(uint32(lane & 3) * {pitch}"
            " + uint32(uint32(warp & 1) * 64 + uint32(lane >> 2)) * 4)",
            f"at_b = uint32(uint32(lane & 3) * {pitch}"
            f" + uint32(uint32(warp >> 1) * 32 + uint32(lane >> 2)) * 4 + {x_start})",
        ]

    save = [f"in{j} = lt(uint32(column + {8 * j}), E)" for j in range(4)]
    for m in range(4):
        for half in (0, 1):
            save += [
                f"line = uint32(row + {16 * m + 8 * half})",
                "there = lt(line, K)",
                f"here = part + uint64(uint32(line * E + column)) * {BYTES[stored]}",
            ]
            for j in range(4):
                i = (m * 4 + j) * 4 + 2 * half
                at = f"here + uint64({8 * j * BYTES[stored]})"
                save += [f"store2({at}, acc[{i}], acc[{i + 1}], uint32(there & in{j}))"]
    source = f"""
def {name}(x, dy, parts, {", ".join(integers)}):
    base = shared_address(cuda.shared.array(0, float32))
    t = uint32(cuda.threadIdx.x)
    lane = uint32(t & 31)
    warp = uint32(t >> 5)
    e0 = uint32(cuda.blockIdx.x * {TILE})
    k0 = uint32(cuda.blockIdx.y * {TILE})
    group = uint32(uint32(cuda.blockIdx.z) // splits)
    split = uint32(uint32(cuda.blockIdx.z) % splits)
{indent(from_group("x", "dy", size=size), 1)}
    first = uint32(split * steps * {rows})
    r = uint32(t // uint32({pieces}))
    own = uint32(uint32(t & {pieces - 1}) * {piece})
    put = uint32(r * {pitch} + own * {size})
    element = uint32(e0 + own)
    exists = lt(element, E)
    channel = uint32(k0 + own)
    wanted = lt(channel, K)
{indent(prepare, 1)}
{indent(place, 1)}
    acc = zeros()
{indent(pipeline(load, multiply, 2 * x_start, STAGES), 1)}
    row = uint32(k0 + uint32(warp & 1) * 64 + uint32(lane >> 2))
    column = uint32(e0 + uint32(warp >> 1) * 32 + uint32(lane & 3) * 2)
    part = parts + (uint64(split) * uint64(part_size) + uint64(uint32(group * parts_group))) * {BYTES[stored]}
{indent(save, 1)}
"""
    operations = [
        ("mma", "mma", 4, 4, "tf32" if size == 4 else dtype), ("zeros", "zeros", 64),
        ("store2", "store2", stored),
        ("wait", "copy_wait", STAGES - 2), ("wait_all", "copy_wait", 0),
    ]  # fmt: skip
    operations += [("accumulate", "accumulate", 64)] if split else []
    letters = "PPP" + "I" * len(integers)
    shared = STAGES * 2 * x_start
    return Kernel(name, source, letters, tuple(operations), THREADS, shared, 80, 1 if split else 2)
