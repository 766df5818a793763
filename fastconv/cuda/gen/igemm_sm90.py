"""Implicit GEMM on sm_90a: convolution forward and gradient of the input by TMA im2col and wgmma.

y[m, k] = activation(bias[k] + sum over taps t, channels c of x[pixel(m) + tap(t), c] * weight[k, t, c])

m counts output positions (n, o, p, q); x is channels last, read through an im2col tensor map that supplies
zeros outside the image; weight is packed (K, taps, C rounded up to the 128 bytes of a k-tile) and read
through a tile map. A tile of the result is 64 * consumers positions x BN channels (`sm90`). A gradient of the
input is the same sum over dy for every phase of the stride (`geometry`), which is why y has free strides.

dtype "bf16", "f16", "tf32" (operands as the tensor core reads them) or "f32": three TF32 products. There x
= hi + lo with hi rounded to tf32, the weights come split in two tensors, and y sums lo*whi + hi*wlo +
hi*whi; what is dropped is below 2^-22 of a product. A tensor core truncates when it adds, so every k-tile's
sum starts at zero and is added to the total in float32.
"""

from . import sm90
from .kernel import BYTES, Kernel, activated, decode
from .sm90 import BOX, ROW, described


def tile_channels(dtype):
    """Channels of one k-tile."""
    return ROW // BYTES[dtype]


def stage_bytes(dtype, bn, consumers):
    return (64 * consumers + (2 if dtype == "f32" else 1) * bn) * ROW


def stages_that_fit(dtype, bn, consumers, blocks=1):
    """Stages of a tile; more of narrow ones, whose few bytes would not keep memory busy."""
    return sm90.stages_that_fit(stage_bytes(dtype, bn, consumers), blocks, 6 if bn >= 64 else 12)


def kernel(
    dtype, rank=2, bn=128, consumers=2, stages=None, bias=None, activation=None, planar=False, blocks=1,
    turned=False,
):  # fmt: skip
    """The `Kernel` for a dtype and tile.

    rank: 2 or 3 spatial axes; bn: channels of y a block (multiple of 8, up to 256; 128 for "f32"); bias: None
    or of what there is one, "channel" or "position"; planar: y has any channel stride (else 1, and K is
    even); turned (16 bits, bn a multiple of 64): the weight lies as (C, K), one tap.

    Parameters: M x, M weight (M low part of the weight, only "f32"), P y, P bias (only with bias), then
    uint32: M positions, K, k-tiles a tap, columns of the weight a tap, the counts of taps and of positions,
    strides, origins and tap distances of every spatial axis (slow to fast), strides of y in elements for n,
    every axis, and channel. Grid: up to tiles of M x tiles of K, K fastest; blocks of a shorter one walk on.
    """
    axes = "dhw"[3 - rank :]
    split = dtype == "f32"
    stages = stages or stages_that_fit(dtype, bn, consumers, blocks)
    stage = stage_bytes(dtype, bn, consumers)
    bm, a_bytes, b_bytes = 64 * consumers, 64 * consumers * ROW, bn * ROW
    chunk = tile_channels(dtype)
    name = f"igemm_sm90_{dtype}_{rank}d_{bm}x{bn}_{stages}_{'planar' if planar else 'packed'}_{blocks}"
    name += (f"_bias_{bias}" if bias else "") + (f"_{activation}" if activation else "")
    name += "_turned" if turned else ""
    maps = ["x_map", "weight_map"] + (["low_map"] if split else [])
    pointers = ["y"] + (["bias"] if bias else [])
    integers = ["M", "K", "chunks", "pitch"] + [
        f"{what}_{a}" for what in ("taps", "count", "stride", "origin", "step") for a in axes
    ]
    integers += [f"y_{a}" for a in "n" + axes + "k"]

    tiles = [
        f"across = uint32(uint32(K + {bn - 1}) // uint32({bn}))",
        f"tiles = uint32(uint32(uint32(M + {bm - 1}) // uint32({bm})) * across)",
        f"steps = uint32({' * '.join(f'taps_{a}' for a in axes)} * chunks)",
    ]
    place = [
        f"m0 = uint32(uint32(index // across) * {bm})",
        f"k0 = uint32(uint32(index % across) * {bn})",
    ]
    begin = ["pixel = m0", *decode("i_", axes), "chunk = uint32(0)", "begin = uint32(0)"]
    begin += [f"tap_{a} = uint32(0)" for a in axes]
    coordinates, offsets = sm90.im2col(axes)
    load = [
        f"column = uint32(begin + chunk * {chunk})",
        f"tma_im2col{rank}(tile, x_map, bar, uint32(chunk * {chunk}), {coordinates}, i_n, {offsets})",
    ]
    if turned:
        load += [
            f"tma_tile(uint32(tile + {a_bytes + i * BOX}), weight_map, bar, uint32(k0 + {64 * i}), column)"
            for i in range(bn // 64)
        ]
    else:
        load += [f"tma_tile(uint32(tile + {a_bytes}), weight_map, bar, column, k0)"]
    if split:
        load += [f"tma_tile(uint32(tile + {a_bytes + b_bytes}), low_map, bar, column, k0)"]
    load += [
        "chunk = uint32(chunk + 1)",
        "if chunk == chunks:",
        "    chunk = uint32(0)",
        "    begin = uint32(begin + pitch)",
    ]
    for depth, a in enumerate(reversed(axes)):  # the next tap, fastest axis first
        pad = "    " * (depth + 1)
        load += [f"{pad}tap_{a} = uint32(tap_{a} + 1)"]
        if depth + 1 < rank:
            load += [f"{pad}if tap_{a} == taps_{a}:", f"{pad}    tap_{a} = uint32(0)"]

    multiply = _split(a_bytes, b_bytes, stage, stages) if split else _direct(a_bytes, stage, stages, turned)
    save = [
        "row = uint32(m0 + group * 64 + warp * 16 + uint32(lane >> 2))",
        "column = uint32(k0 + uint32(lane & 3) * 2)",
        *_epilogue(axes, bn, BYTES[dtype], bias, activation, planar),
    ]
    source = sm90.source(
        name, maps + pointers + integers, consumers, stage, stages, place, maps, begin, load, multiply, save,
        tiles,
    )  # fmt: skip
    storage = "f32" if dtype in ("f32", "tf32") else dtype
    form = "rs" if split else "kn" if turned else "ss"
    operations = sm90.operations(bn, "tf32" if split else dtype, form, consumers)
    operations += [
        ("store", "store", storage), ("store2", "store2", storage), ("load_bias", "load", storage),
    ]  # fmt: skip
    operations += [("accumulate", "accumulate", bn // 2)] if split else []
    letters = "M" * len(maps) + "P" * len(pointers) + "I" * len(integers)
    shared = sm90.shared_bytes(stages, stage)
    return Kernel(name, source, letters, tuple(operations), 128 * (consumers + 1), shared, 90, blocks)


PRODUCTS = ROW // 32  # of a k-tile: a wgmma covers 32 bytes of k


def _direct(a_bytes, stage, stages, turned):
    """A wgmma for every 32 bytes of k; of a turned weight that is 16 rows of 128 bytes."""
    issue = [
        described("a", f"group * {BOX}"),
        described("b", a_bytes, BOX if turned else 16),
        "wgmma_fence()",
    ]
    step = 16 * ROW // 16 if turned else 2
    issue += [
        f"acc = wgmma(acc, a + uint64({2 * i}), b + uint64({step * i}), uint32(1))" for i in range(PRODUCTS)
    ]
    return sm90.consume(issue, stage, stages)


def _split(a_bytes, b_bytes, stage, stages):
    """Three TF32 products a k-tile: the small ones first, so that they are added while the sum is small."""
    lines = [
        # of a swizzled tile: the 16-byte piece column // 4 of a row is stored at piece ^ (row % 8)
        "g = uint32(lane >> 2)",
        "own = uint32(uint32(group * 64 + warp * 16 + g) * 128 + uint32(lane & 3) * 4)",
        "for k in range(steps):",
    ]
    body = ["barrier_wait(uint32(full + st * 8), parity)", f"tile = uint32(first + st * {stage})"]
    body += ["a = uint32(tile + own)", described("high", a_bytes), described("low", a_bytes + b_bytes)]
    for i in range(PRODUCTS):
        for j, (down, right) in enumerate(((0, 0), (1024, 0), (0, 1), (1024, 1))):
            body += [
                f"x{i}{j} = shared_load(uint32(a + {down} + uint32(uint32({2 * i + right} ^ g) << 4)))",
                f"h{i}{j} = rounded_tf32(x{i}{j})",
                f"l{i}{j} = rest(x{i}{j}, h{i}{j})",
            ]
    body += ["part = zeros()", "wgmma_fence()"]
    calls = [("l", "high"), ("h", "low")]
    order = [(i, *call) for i in range(PRODUCTS) for call in calls]
    order += [(i, "h", "high") for i in range(PRODUCTS)]
    for number, (i, letter, b) in enumerate(order):
        values = ", ".join(f"{letter}{i}{j}" for j in range(4))
        body += [f"part = wgmma(part, {values}, {b} + uint64({2 * i}), uint32({int(number > 0)}))"]
    body += ["wgmma_commit()", "wgmma_wait0()", "barrier_arrive(uint32(empty + st * 8), leader)"]
    body += ["acc = accumulate(acc, part)", *sm90.next_stage(stages)]
    return lines + ["    " + line for line in body]


def _epilogue(axes, bn, size, bias, activation, planar):
    """Lines that add the bias, apply the activation and store the accumulators of rows `row` and `row + 8`.
    """
    lines = []
    terms = " + ".join(f"i_{a} * y_{a}" for a in "n" + axes)
    for half in (0, 1):
        lines += [f"pixel = uint32(row + {8 * half})", f"inside{half} = lt(pixel, M)", *decode("i_", axes)]
        lines += [f"place{half} = y + uint64(uint32({terms} + column * y_k)) * {size}"]
        if bias == "position":
            lines += [f"own{half} = load_bias(bias + uint64(pixel) * {size}, inside{half})"]
    if planar:
        lines += [f"plane = uint64(y_k) * {size}", "jump = plane * 8"]
    for j in range(bn // 8):
        first = f"uint32(column + {8 * j})"
        lines += [f"in0 = lt({first}, K)"]
        if planar or bias == "channel":
            lines += [f"in1 = lt(uint32(column + {8 * j + 1}), K)"]
        if bias == "channel":
            lines += [
                f"bias{i} = load_bias(bias + uint64(uint32(column + {8 * j + i})) * {size}, in{i})"
                for i in (0, 1)
            ]
        for half in (0, 1):
            added = {None: ("", ""), "channel": (" + bias0", " + bias1"), "position": (f" + own{half}",) * 2}
            for i in (0, 1):
                value = f"acc[{4 * j + 2 * half + i}]" + added[bias][i]
                lines += [f"v{i} = float32({value})", f"v{i} = {activated(activation, f'v{i}')}"]
            if planar:
                lines += [f"store(place{half}, v0, uint32(inside{half} & in0))"]
                lines += [f"store(place{half} + plane, v1, uint32(inside{half} & in1))"]
                lines += [f"place{half} = place{half} + jump"]
            else:
                lines += [f"store2(place{half} + uint64({8 * j * size}), v0, v1, uint32(inside{half} & in0))"]
    return lines
