"""Implicit GEMM on sm_90a: convolution forward and gradient of the input by TMA im2col and wgmma.

y[m, k] = activation(bias[k] + sum over taps t, channels c of x[pixel(m) + tap(t), c] * weight[k, t, c])

m counts output positions (n, o, p, q); x is channels last, read through an im2col tensor map that supplies
zeros outside the image; weight is packed (K, taps, C rounded up to the 128 bytes of a k-tile) and read
through a tile map. One block computes 64 * consumers positions x BN channels: the last warpgroup starts TMA
loads `stages` k-tiles ahead, the others multiply. A gradient of the input is the same sum over dy for every
phase of the stride (`geometry`), which is why y has free strides.

dtype "bf16", "f16", "tf32" (operands as the tensor core reads them) or "f32": three TF32 products. There x
= hi + lo with hi rounded to tf32, the weights come split in two tensors, and y sums lo*whi + hi*wlo +
hi*whi; what is dropped is below 2^-22 of a product. A tensor core truncates when it adds, so every k-tile's
sum starts at zero and is added to the total in float32.
"""

from .kernel import BYTES, Kernel, activated, indent

LIMIT = 227 * 1024  # shared memory of one block on sm_90
ROW = 128  # bytes of a k-tile row: the widest swizzle, hence 64 16-bit or 32 32-bit channels


def tile_channels(dtype):
    """Channels of one k-tile."""
    return ROW // BYTES[dtype]


def stage_bytes(dtype, bn, consumers):
    return (64 * consumers + (2 if dtype == "f32" else 1) * bn) * ROW


def stages_that_fit(dtype, bn, consumers, blocks=1, most=6):
    """As many stages as leave room for `blocks` blocks an SM (each also keeps 1 KiB for the system)."""
    room = min(LIMIT, 228 * 1024 // blocks - 1024) - 1024 - 256
    return min(most, room // stage_bytes(dtype, bn, consumers))


def kernel(
    dtype, rank=2, bn=128, consumers=2, stages=None, bias=False, activation=None, planar=False, blocks=1
):
    """The `Kernel` for a dtype and tile.

    rank: 2 or 3 spatial axes; bn: channels of y a block (multiple of 8, up to 256; 128 for "f32"); planar:
    y has any channel stride (else 1, and K is even).

    Parameters: M x, M weight (M low part of the weight, only "f32"), P y, P bias (only with bias), then
    uint32: M positions, K, k-tiles a tap, columns of the weight a tap, the counts of taps and of positions,
    strides, origins and tap distances of every spatial axis (slow to fast), strides of y in elements for n,
    every axis, and channel.
    """
    axes = "dhw"[3 - rank :]
    split = dtype == "f32"
    stages = stages or stages_that_fit(dtype, bn, consumers, blocks)
    stage, size = stage_bytes(dtype, bn, consumers), BYTES[dtype]
    bm, a_bytes, b_bytes = 64 * consumers, 64 * consumers * ROW, bn * ROW
    chunk, products = tile_channels(dtype), ROW // 32  # a wgmma covers 32 bytes of k
    name = f"igemm_sm90_{dtype}_{rank}d_{bm}x{bn}_{stages}_{'planar' if planar else 'packed'}_{blocks}"
    name += ("_bias" if bias else "") + (f"_{activation}" if activation else "")
    maps = ["x_map", "weight_map"] + (["low_map"] if split else [])
    pointers = ["y"] + (["bias"] if bias else [])
    integers = ["M", "K", "chunks", "pitch"] + [
        f"{what}_{a}" for what in ("taps", "count", "stride", "origin", "step") for a in axes
    ]
    integers += [f"y_{a}" for a in "n" + axes + "k"]
    decode = ["n = uint32(pixel)"]
    for a in reversed(axes):
        decode += [f"i_{a} = uint32(n % count_{a})", f"n = uint32(n // count_{a})"]
    coordinates = ", ".join(f"uint32(i_{a} * stride_{a} + origin_{a})" for a in reversed(axes))
    offsets = ", ".join(f"uint16(tap_{a} * step_{a})" for a in reversed(axes))
    advance = []  # the next tap, fastest axis first
    for depth, a in enumerate(reversed(axes)):
        advance += ["    " * depth + f"tap_{a} = uint32(tap_{a} + 1)"]
        if depth + 1 < rank:
            advance += [
                "    " * depth + f"if tap_{a} == taps_{a}:",
                "    " * (depth + 1) + f"tap_{a} = uint32(0)",
            ]
    loads = [f"tma_tile(uint32(tile + {a_bytes}), weight_map, bar, column, k0)"]
    if split:
        loads += [f"tma_tile(uint32(tile + {a_bytes + b_bytes}), low_map, bar, column, k0)"]
    move = (
        consumers == 2
    )  # 3 warpgroups start with 168 registers each: the producer hands some of its own over
    multiply = _split_step(products, a_bytes, b_bytes, stages) if split else _step(products, a_bytes, stages)
    source = f"""
def {name}({", ".join(maps + pointers + integers)}):
    first = uint32(uint32(shared_address(cuda.shared.array(0, float32)) + 1023) & 0xFFFFFC00)
    full = uint32(first + {stages * stage})
    empty = uint32(full + {8 * stages})
    t = uint32(cuda.threadIdx.x)
    group = uniform(uint32(t >> 7))
    tiles = uint32(uint32(K + {bn - 1}) // uint32({bn}))
    m0 = uint32(uint32(uint32(cuda.blockIdx.x) // tiles) * {bm})
    k0 = uint32(uint32(uint32(cuda.blockIdx.x) % tiles) * {bn})
    steps = uint32({" * ".join(f"taps_{a}" for a in axes)} * chunks)
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
{indent([f"tma_prefetch({m})" for m in maps], 3)}
            pixel = m0
{indent(decode, 3)}
            parity = uint32(1)
            chunk = uint32(0)
            begin = uint32(0)
{indent([f"tap_{a} = uint32(0)" for a in axes], 3)}
            for k in range(steps):
                barrier_wait(uint32(empty + st * 8), parity)
                bar = uint32(full + st * 8)
                tile = uint32(first + st * {stage})
                column = uint32(begin + chunk * {chunk})
                barrier_expect(bar, uint32({stage}))
                tma_im2col{rank}(tile, x_map, bar, uint32(chunk * {chunk}), {coordinates}, n, {offsets})
{indent(loads, 4)}
                chunk = uint32(chunk + 1)
                if chunk == chunks:
                    chunk = uint32(0)
                    begin = uint32(begin + pitch)
{indent(advance, 5)}
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
{indent(multiply(stage), 2)}
        row = uint32(m0 + group * 64 + warp * 16 + uint32(lane >> 2))
        column = uint32(k0 + uint32(lane & 3) * 2)
{indent(_epilogue(axes, decode, bn, dtype, size, bias, activation, planar), 2)}
"""
    storage = "f32" if dtype in ("f32", "tf32") else dtype
    operations = [
        ("wgmma", "wgmma", bn, "tf32" if split else dtype, "rs" if split else "ss"),
        ("zeros", "zeros", bn // 2),
        ("store", "store", storage), ("store2", "store2", storage), ("load_bias", "load", storage),
        ("wgmma_wait0", "wgmma_wait", 0), ("wgmma_wait1", "wgmma_wait", 1),
    ]  # fmt: skip
    operations += [("accumulate", "accumulate", bn // 2)] if split else []
    operations += (
        [("release_registers", "registers", "dec", 40), ("take_registers", "registers", "inc", 232)]
        if move
        else []
    )
    letters = "M" * len(maps) + "P" * len(pointers) + "I" * len(integers)
    shared = stages * stage + 16 * stages + 1024
    return Kernel(name, source, letters, tuple(operations), 128 * (consumers + 1), shared, 90, blocks)


def descriptor(leading=16, stride=1024):
    """The constant bits of a wgmma shared memory descriptor: 128-byte swizzle, offsets in bytes (PTX ISA,
    matrix descriptor).

    K-major: `stride` between groups of 8 rows, `leading` unused. MN-major: `leading` between blocks of 64
    columns.
    """
    return (1 << 62) | ((stride >> 4) << 32) | ((leading >> 4) << 16)


def _next_stage(stages):
    return [
        "st = uint32(st + 1)",
        f"if st == {stages}:",
        "    st = uint32(0)",
        "    parity = uint32(parity ^ 1)",
    ]


def consume(issue, stages):
    """Lines of the loop over k-tiles that keeps one wgmma group in flight: stage k - 1 is released when
    group k is issued.
    """
    body = ["barrier_wait(uint32(full + st * 8), parity)", *issue, "wgmma_commit()", "wgmma_wait1()"]
    body += [
        "if k > 0:",
        "    barrier_arrive(uint32(empty + before * 8), leader)",
        "before = st",
        *_next_stage(stages),
    ]
    return [
        "before = uint32(0)",
        "for k in range(steps):",
        *("    " + line for line in body),
        "wgmma_wait0()",
    ]


def _step(products, a_bytes, stages):
    def lines(stage):
        issue = [
            f"tile = uint32(first + st * {stage})",
            f"a = uint64({descriptor()}) | uint64(uint32(uint32(tile + group * 8192) >> 4))",
            f"b = uint64({descriptor()}) | uint64(uint32(uint32(tile + {a_bytes}) >> 4))",
            "wgmma_fence()",
        ]
        issue += [
            f"acc = wgmma(acc, a + uint64({2 * i}), b + uint64({2 * i}), uint32(1))" for i in range(products)
        ]
        return consume(issue, stages)

    return lines


def _split_step(products, a_bytes, b_bytes, stages):
    """Three TF32 products a k-tile: the small ones first, so that they are added while the sum is small."""

    def lines(stage):
        out = [
            # of a swizzled tile: the 16-byte piece column // 4 of a row is stored at piece ^ (row % 8)
            "g = uint32(lane >> 2)",
            "own = uint32(uint32(group * 64 + warp * 16 + g) * 128 + uint32(lane & 3) * 4)",
            "for k in range(steps):",
        ]
        body = ["barrier_wait(uint32(full + st * 8), parity)", f"tile = uint32(first + st * {stage})"]
        body += ["a = uint32(tile + own)"]
        for name, offset in (("high", a_bytes), ("low", a_bytes + b_bytes)):
            body += [f"{name} = uint64({descriptor()}) | uint64(uint32(uint32(tile + {offset}) >> 4))"]
        for i in range(products):
            for j, (down, right) in enumerate(((0, 0), (1024, 0), (0, 1), (1024, 1))):
                body += [
                    f"x{i}{j} = shared_load(uint32(a + {down} + uint32(uint32({2 * i + right} ^ g) << 4)))",
                    f"h{i}{j} = rounded_tf32(x{i}{j})",
                    f"l{i}{j} = rest(x{i}{j}, h{i}{j})",
                ]
        body += ["part = zeros()", "wgmma_fence()"]
        calls = [("l", "high"), ("h", "low")]
        order = [(i, *call) for i in range(products) for call in calls] + [
            (i, "h", "high") for i in range(products)
        ]
        for number, (i, letter, b) in enumerate(order):
            values = ", ".join(f"{letter}{i}{j}" for j in range(4))
            body += [f"part = wgmma(part, {values}, {b} + uint64({2 * i}), uint32({int(number > 0)}))"]
        body += ["wgmma_commit()", "wgmma_wait0()", "barrier_arrive(uint32(empty + st * 8), leader)"]
        body += ["acc = accumulate(acc, part)", *_next_stage(stages)]
        return out + ["    " + line for line in body]

    return lines


def _epilogue(axes, decode, bn, dtype, size, bias, activation, planar):
    """Lines that add the bias, apply the activation and store the accumulators of rows `row` and `row + 8`.
    """
    lines = []
    terms = " + ".join(f"i_{a} * y_{a}" for a in axes)
    for half in (0, 1):
        lines += [f"pixel = uint32(row + {8 * half})", f"inside{half} = lt(pixel, M)", *decode]
        lines += [f"place{half} = y + uint64(uint32(n * y_n + {terms} + column * y_k)) * {size}"]
    if planar:
        lines += [f"plane = uint64(y_k) * {size}", "jump = plane * 8"]
    for j in range(bn // 8):
        first = f"uint32(column + {8 * j})"
        lines += [f"in0 = lt({first}, K)"]
        if planar or bias:
            lines += [f"in1 = lt(uint32(column + {8 * j + 1}), K)"]
        if bias:
            lines += [
                f"bias{i} = load_bias(bias + uint64(uint32(column + {8 * j + i})) * {size}, in{i})"
                for i in (0, 1)
            ]
        for half in (0, 1):
            for i in (0, 1):
                value = f"acc[{4 * j + 2 * half + i}]" + (f" + bias{i}" if bias else "")
                lines += [f"v{i} = float32({value})", f"v{i} = {activated(activation, f'v{i}')}"]
            if planar:
                lines += [f"store(place{half}, v0, uint32(inside{half} & in0))"]
                lines += [f"store(place{half} + plane, v1, uint32(inside{half} & in1))"]
                lines += [f"place{half} = place{half} + jump"]
            else:
                lines += [f"store2(place{half} + uint64({8 * j * size}), v0, v1, uint32(inside{half} & in0))"]
    return lines
