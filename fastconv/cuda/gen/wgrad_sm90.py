"""Gradient of the weight on sm_90a for 16-bit dtypes: both operands straight from TMA into transposed wgmma.

part[z, k, t, c] = sum over the positions m of split z of dy[m, k] * x[pixel(m) + tap(t), c]

One block computes 64 * consumers output channels x BN input channels of one tap and one split. Shared memory
holds 64 positions x 64 channels a box, so the sum runs down the columns of both operands: that is wgmma's
MN-major form, which exists for 16-bit dtypes only. The parts are added in a fixed order by
`layout.sum_parts`, so that two runs give the same bits.
"""

from .igemm_sm90 import consume, descriptor
from .kernel import Kernel, indent

DEPTH = 64  # positions of a k-tile
BOX = 64 * 128  # bytes of 64 positions x 64 channels


def stage_bytes(bn, consumers):
    return (consumers + bn // 64) * BOX


def stages_that_fit(bn, consumers):
    return min(6, (227 * 1024 - 2048) // stage_bytes(bn, consumers))


def kernel(dtype, rank=2, bn=128, consumers=2, stages=None):
    """The `Kernel` for "bf16" or "f16"; rank 2 or 3 spatial axes; bn input channels a block: 64, 128 or 256.

    Parameters: M x (im2col, 64 positions), M dy (tile, positions x K), P parts (float32), then uint32: K, C,
    tiles of C, k-tiles a split, elements of one part, of one k, and of one tap; counts of taps and of
    positions, strides, origins and tap distances of every spatial axis. Grid: (tiles of C * taps, tiles of K,
    splits).
    """
    axes = "dhw"[3 - rank :]
    stages = stages or stages_that_fit(bn, consumers)
    stage, dy_bytes = stage_bytes(bn, consumers), consumers * BOX
    name = f"wgrad_sm90_{dtype}_{rank}d_{64 * consumers}x{bn}_{stages}"
    integers = ["K", "C", "c_tiles", "steps", "part_size", "k_size", "tap_size"]
    integers += [f"{what}_{a}" for what in ("taps", "count", "stride", "origin", "step") for a in axes]
    decode = ["n = uint32(pixel)"]
    for a in reversed(axes):
        decode += [f"i_{a} = uint32(n % count_{a})", f"n = uint32(n // count_{a})"]
    decode_tap = ["rest_of_tap = uint32(tap)"]
    for a in reversed(axes[1:]):
        decode_tap += [f"tap_{a} = uint32(rest_of_tap % taps_{a})"]
        decode_tap += [f"rest_of_tap = uint32(rest_of_tap // taps_{a})"]
    decode_tap += [f"tap_{axes[0]} = uint32(rest_of_tap)"]
    coordinates = ", ".join(f"uint32(i_{a} * stride_{a} + origin_{a})" for a in reversed(axes))
    offsets = ", ".join(f"uint16(tap_{a} * step_{a})" for a in reversed(axes))
    loads = [
        f"tma_tile(uint32(tile + {i * BOX}), dy_map, bar, uint32(k0 + {64 * i}), pixel)"
        for i in range(consumers)
    ]
    for i in range(bn // 64):
        target = f"uint32(tile + {dy_bytes + i * BOX})"
        loads += [
            f"tma_im2col{rank}({target}, x_map, bar, uint32(c0 + {64 * i}), {coordinates}, n, {offsets})"
        ]
    issue = [
        f"tile = uint32(first + st * {stage})",
        f"a = uint64({descriptor(BOX)}) | uint64(uint32(uint32(tile + group * {BOX}) >> 4))",
        f"b = uint64({descriptor(BOX)}) | uint64(uint32(uint32(tile + {dy_bytes}) >> 4))",
        "wgmma_fence()",
    ]
    # 16 positions are 16 rows of 128 bytes
    issue += [
        f"acc = wgmma(acc, a + uint64({i * 128}), b + uint64({i * 128}), uint32(1))"
        for i in range(DEPTH // 16)
    ]
    save = []
    for j in range(bn // 8):
        save += [f"inside = lt(uint32(column + {8 * j}), C)"]
        for half in (0, 1):
            pair = f"acc[{4 * j + 2 * half}], acc[{4 * j + 2 * half + 1}]"
            save += [f"store2(place{half} + uint64({32 * j}), {pair}, uint32(inside{half} & inside))"]
    move = consumers == 2
    source = f"""
def {name}(x_map, dy_map, parts, {", ".join(integers)}):
    first = uint32(uint32(shared_address(cuda.shared.array(0, float32)) + 1023) & 0xFFFFFC00)
    full = uint32(first + {stages * stage})
    empty = uint32(full + {8 * stages})
    t = uint32(cuda.threadIdx.x)
    group = uniform(uint32(t >> 7))
    tap = uint32(uint32(cuda.blockIdx.x) // c_tiles)
    c0 = uint32(uint32(uint32(cuda.blockIdx.x) % c_tiles) * {bn})
    k0 = uint32(cuda.blockIdx.y * {64 * consumers})
    if one_thread(t, 0):
        for s in range({stages}):
            barrier_init(uint32(full + s * 8), uint32(1))
            barrier_init(uint32(empty + s * 8), uint32({4 * consumers}))
        barrier_init_fence()
    cuda.syncthreads()
    st = uint32(0)
    if group == {consumers}:
{indent(["release_registers()"] if move else [], 2)}
        if one_thread(t, {128 * consumers}):
            tma_prefetch(x_map)
            tma_prefetch(dy_map)
{indent(decode_tap, 3)}
            parity = uint32(1)
            pixel = uint32(cuda.blockIdx.z * steps * {DEPTH})
            for k in range(steps):
                barrier_wait(uint32(empty + st * 8), parity)
                bar = uint32(full + st * 8)
                tile = uint32(first + st * {stage})
{indent(decode, 4)}
                barrier_expect(bar, uint32({stage}))
{indent(loads, 4)}
                pixel = uint32(pixel + {DEPTH})
                st = uint32(st + 1)
                if st == {stages}:
                    st = uint32(0)
                    parity = uint32(parity ^ 1)
    else:
{indent(["take_registers()"] if move else [], 2)}
        lane = uint32(t & 31)
        warp = uint32(uint32(t >> 5) & 3)
        leader = lt(lane, uint32(1))
        acc = zeros()
        parity = uint32(0)
{indent(consume(issue, stages), 2)}
        row = uint32(k0 + group * 64 + warp * 16 + uint32(lane >> 2))
        column = uint32(c0 + uint32(lane & 3) * 2)
        inside0 = lt(row, K)
        inside1 = lt(uint32(row + 8), K)
        base = parts + uint64(cuda.blockIdx.z) * uint64(part_size) * 4
        place0 = base + uint64(uint32(row * k_size + tap * tap_size + column)) * 4
        place1 = place0 + uint64(uint32(k_size * 8)) * 4
{indent(save, 2)}
"""
    operations = [
        ("wgmma", "wgmma", bn, dtype, "mn"), ("zeros", "zeros", bn // 2), ("store2", "store2", "f32"),
        ("wgmma_wait0", "wgmma_wait", 0), ("wgmma_wait1", "wgmma_wait", 1),
    ]  # fmt: skip
    if move:
        operations += [
            ("release_registers", "registers", "dec", 40),
            ("take_registers", "registers", "inc", 232),
        ]
    shared = stages * stage + 16 * stages + 1024
    letters = "MMP" + "I" * len(integers)
    return Kernel(name, source, letters, tuple(operations), 128 * (consumers + 1), shared, 90)
