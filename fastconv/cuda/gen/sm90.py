"""What generators for sm_90a share: one warpgroup fetches tiles by TMA, the others multiply them by wgmma.

A block has `consumers` warpgroups of 64 rows each and one more, of which one thread starts TMA loads up to
`stages` k-tiles ahead. A k-tile of `stage` bytes has two barriers: `full` completes when its bytes have
arrived, `empty` when every warp has read them.

Where a block walks over several tiles of the result, loads of the next begin while this one is stored. Which
block computes a tile changes nothing in it.
"""

from .kernel import indent

LIMIT = 227 * 1024  # shared memory of one block
ROW = 128  # bytes of a tile's row: the widest swizzle
BOX = 64 * ROW  # bytes of 64 rows


def stages_that_fit(stage, blocks=1, most=6):
    """As many stages as leave room for `blocks` blocks an SM (each also keeps 1 KiB for the system)."""
    room = min(LIMIT, 228 * 1024 // blocks - 1024) - 1024 - 256
    return min(most, room // stage)


def shared_bytes(stages, stage):
    """Of a block: the stages, their barriers, and what aligns the first stage to 1024 bytes."""
    return stages * stage + 16 * stages + 1024


def descriptor(leading=16, stride=1024):
    """The constant bits of a wgmma shared memory descriptor: 128-byte swizzle, offsets in bytes (PTX ISA,
    matrix descriptor).

    K-major: `stride` between groups of 8 rows, `leading` unused. MN-major: `leading` between blocks of 64
    columns.
    """
    return (1 << 62) | ((stride >> 4) << 32) | ((leading >> 4) << 16)


def described(name, offset, leading=16):
    """Line that sets `name` to the descriptor of what lies `offset` (text) beyond the k-tile."""
    return f"{name} = uint64({descriptor(leading)}) | uint64(uint32(uint32(tile + {offset}) >> 4))"


def im2col(axes):
    """Texts of the coordinates of position i_* and of the offsets of tap tap_*, fastest axis first."""
    coordinates = ", ".join(f"uint32(i_{a} * stride_{a} + origin_{a})" for a in reversed(axes))
    return coordinates, ", ".join(f"uint16(tap_{a} * step_{a})" for a in reversed(axes))


def next_stage(stages):
    return [
        "st = uint32(st + 1)",
        f"if st == {stages}:",
        "    st = uint32(0)",
        "    parity = uint32(parity ^ 1)",
    ]


def consume(issue, stage, stages):
    """Lines of the loop over k-tiles that keeps one wgmma group in flight: stage k - 1 is released when
    group k is issued.

    issue: lines that start the products of the k-tile at `tile`.
    """
    body = [
        "barrier_wait(uint32(full + st * 8), parity)",
        f"tile = uint32(first + st * {stage})",
        *issue,
        "wgmma_commit()",
        "wgmma_wait1()",
        "if k > 0:",
        "    barrier_arrive(uint32(empty + before * 8), leader)",
        "before = st",
        *next_stage(stages),
    ]
    return [
        "before = uint32(0)",
        "for k in range(steps):",
        *("    " + line for line in body),
        "wgmma_wait0()",
        "if steps > 0:",
        "    barrier_arrive(uint32(empty + before * 8), leader)",
    ]


def _walk(tiles, place, body):
    """Lines that do `body` for the tiles of this block: for all of `turns`, or for the one."""
    if tiles is None:
        return body
    index = "index = uint32(uint32(cuda.blockIdx.x) + uint32(turn) * uint32(cuda.gridDim.x))"
    return ["for turn in range(turns):", *("    " + line for line in [index, *place, *body])]


def source(
    name, parameters, consumers, stage, stages, place, maps, begin, load, multiply, save, tiles=None
):
    """The text of a kernel. All are lines, but for numbers, names and the list of parameters.

    place: this block's tile; maps: names of tensor maps; begin: before the producer's loop over `steps`
    k-tiles; load: fetch k-tile k to address `tile`, reporting to barrier `bar`, and move on; multiply: from
    acc == 0 to the whole sum; save: acc. `multiply` and `save` know group, warp, lane, leader. tiles: None,
    or lines that set `tiles`, their number, and whatever is the same for all; `place` then starts from
    `index`, and the first axis of the grid may be as short as one likes.
    """
    walk = [] if tiles is None else [
        *tiles,
        "ahead = uint32(tiles - uint32(cuda.blockIdx.x) + uint32(cuda.gridDim.x) - 1)",
        "turns = uint32(ahead // uint32(cuda.gridDim.x))",
    ]  # fmt: skip
    fetch = ["for k in range(steps):"]
    fetch += [
        "    " + line
        for line in [
            "barrier_wait(uint32(empty + st * 8), parity)",
            "bar = uint32(full + st * 8)",
            f"tile = uint32(first + st * {stage})",
            f"barrier_expect(bar, uint32({stage}))",
            *load,
            *next_stage(stages),
        ]
    ]
    # 3 warpgroups start with 168 registers each: the producer hands some of its own over
    move = consumers == 2
    return f"""
def {name}({", ".join(parameters)}):
    first = uint32(uint32(shared_address(cuda.shared.array(0, float32)) + 1023) & 0xFFFFFC00)
    full = uint32(first + {stages * stage})
    empty = uint32(full + {8 * stages})
    t = uint32(cuda.threadIdx.x)
    group = uniform(uint32(t >> 7))
{indent(walk or place, 1)}
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
            parity = uint32(1)
{indent(_walk(tiles, place, [*begin, *fetch]), 3)}
    else:
{indent(["take_registers()"] if move else [], 2)}
        lane = uint32(t & 31)
        warp = uint32(uint32(t >> 5) & 3)
        leader = lt(lane, uint32(1))
        parity = uint32(0)
{indent(_walk(tiles, place, ["acc = zeros()", *multiply, *save]), 2)}
"""


def operations(bn, dtype, form, consumers):
    """The operations that `source` and `consume` call, for wgmma of 64 x bn."""
    found = [
        ("wgmma", "wgmma", bn, dtype, form), ("zeros", "zeros", bn // 2),
        ("wgmma_wait0", "wgmma_wait", 0), ("wgmma_wait1", "wgmma_wait", 1),
    ]  # fmt: skip
    if consumers == 2:
        found += [
            ("release_registers", "registers", "dec", 40),
            ("take_registers", "registers", "inc", 232),
        ]
    return found
