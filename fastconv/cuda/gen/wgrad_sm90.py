"""Gradient of the weight on sm_90a for 16-bit dtypes: both operands straight from TMA into transposed wgmma.

part[z, k, t, c] = sum over the positions m of split z of dy[m, k] * x[pixel(m) + tap(t), c]

One block computes 64 * consumers output channels x BN input channels of one tap and one split (`sm90`).
Shared memory holds 64 positions x 64 channels a box, so the sum runs down the columns of both operands: that
is wgmma's MN-major form, which exists for 16-bit dtypes only. The parts are added in a fixed order by
`layout.sum_parts`, so that two runs give the same bits.

Why float32 stays with mma.sync (`wgrad_sm80`): wgmma takes 32-bit operands from shared memory K-major only,
here with neighbouring positions side by side, and TMA cannot turn a tile of channels-last images. dy could go
through registers, a word a lane, as in the three TF32 products of `igemm_sm90`; x would have to be read and
written again by a warpgroup of its own, and fenced from one proxy to the other. Counted for a tile of 128 x
128 and 32 positions, at 128 bytes a cycle: 256 cycles to fill, 256 to turn, 128 for dy, 256 for the reads of
wgmma, 900 in all, where the product alone takes 490; mma.sync needs 1024. That gains a tenth for one TF32
product. For three, shared memory and wgmma would take about 1500 each, against 2400 by mma.sync: worth it
once hardware can tell whether the turning hides.
"""

from . import sm90
from .kernel import BYTES, Kernel, decode
from .sm90 import BOX, described

DEPTH = 64  # positions of a k-tile


def stage_bytes(bn, consumers):
    return (consumers + bn // 64) * BOX


def stages_that_fit(bn, consumers):
    return sm90.stages_that_fit(stage_bytes(bn, consumers))


def kernel(dtype, rank=2, bn=128, consumers=2, stages=None, direct=False):
    """The `Kernel` for "bf16" or "f16"; rank 2 or 3 spatial axes; bn input channels a block: 64, 128 or 256;
    direct: parts are of the dtype instead of float32, as it suits a single one.

    Parameters: M x (im2col, 64 positions), M dy (tile, positions x K), P parts, then uint32: K, C,
    tiles of C, k-tiles a split, elements of one part, of one k, and of one tap; counts of taps and of
    positions, strides, origins and tap distances of every spatial axis. Grid: (tiles of C * taps, tiles of K,
    splits).
    """
    axes = "dhw"[3 - rank :]
    stages = stages or stages_that_fit(bn, consumers)
    stage, dy_bytes = stage_bytes(bn, consumers), consumers * BOX
    stored, size = (dtype, BYTES[dtype]) if direct else ("f32", 4)
    name = f"wgrad_sm90_{dtype}_{rank}d_{64 * consumers}x{bn}_{stages}" + ("_direct" if direct else "")
    integers = ["K", "C", "c_tiles", "steps", "part_size", "k_size", "tap_size"]
    integers += [f"{what}_{a}" for what in ("taps", "count", "stride", "origin", "step") for a in axes]

    place = [
        "tap = uint32(uint32(cuda.blockIdx.x) // c_tiles)",
        f"c0 = uint32(uint32(uint32(cuda.blockIdx.x) % c_tiles) * {bn})",
        f"k0 = uint32(cuda.blockIdx.y * {64 * consumers})",
    ]
    begin = ["rest_of_tap = uint32(tap)"]
    for a in reversed(axes[1:]):
        begin += [
            f"tap_{a} = uint32(rest_of_tap % taps_{a})",
            f"rest_of_tap = uint32(rest_of_tap // taps_{a})",
        ]
    begin += [
        f"tap_{axes[0]} = uint32(rest_of_tap)",
        f"pixel = uint32(cuda.blockIdx.z * steps * {DEPTH})",
    ]
    coordinates, offsets = sm90.im2col(axes)
    load = decode("i_", axes)
    load += [
        f"tma_tile(uint32(tile + {i * BOX}), dy_map, bar, uint32(k0 + {64 * i}), pixel)"
        for i in range(consumers)
    ]
    for i in range(bn // 64):
        target = f"uint32(tile + {dy_bytes + i * BOX})"
        load += [
            f"tma_im2col{rank}({target}, x_map, bar, uint32(c0 + {64 * i}), {coordinates}, i_n, {offsets})"
        ]
    load += [f"pixel = uint32(pixel + {DEPTH})"]
    issue = [described("a", f"group * {BOX}", BOX), described("b", dy_bytes, BOX), "wgmma_fence()"]
    # 16 positions are 16 rows of 128 bytes
    issue += [
        f"acc = wgmma(acc, a + uint64({i * 128}), b + uint64({i * 128}), uint32(1))"
        for i in range(DEPTH // 16)
    ]
    save = [
        "row = uint32(k0 + group * 64 + warp * 16 + uint32(lane >> 2))",
        "column = uint32(c0 + uint32(lane & 3) * 2)",
        "inside0 = lt(row, K)",
        "inside1 = lt(uint32(row + 8), K)",
        f"base = parts + uint64(cuda.blockIdx.z) * uint64(part_size) * {size}",
        f"place0 = base + uint64(uint32(row * k_size + tap * tap_size + column)) * {size}",
        f"place1 = place0 + uint64(uint32(k_size * 8)) * {size}",
    ]
    for j in range(bn // 8):
        save += [f"inside = lt(uint32(column + {8 * j}), C)"]
        for half in (0, 1):
            pair = f"acc[{4 * j + 2 * half}], acc[{4 * j + 2 * half + 1}]"
            save += [f"store2(place{half} + uint64({8 * j * size}), {pair}, uint32(inside{half} & inside))"]
    source = sm90.source(
        name, ["x_map", "dy_map", "parts", *integers], consumers, stage, stages, place, ["x_map", "dy_map"],
        begin, load, sm90.consume(issue, stage, stages), save,
    )  # fmt: skip
    operations = (*sm90.operations(bn, dtype, "mn", consumers), ("store2", "store2", stored))
    letters = "MMP" + "I" * len(integers)
    shared = sm90.shared_bytes(stages, stage)
    return Kernel(name, source, letters, operations, 128 * (consumers + 1), shared, 90)
