"""Layout passes.

Images to channels last, weights to the order in which a kernel reads them, sums of partial results.
"""

from .kernel import BYTES, Kernel, indent

THREADS = 256


def channels_last(dtype, pairs=False):
    """(N, C, P) -> (N, P, C rounded up): x planes are contiguous; channels from C on become zero.

    pairs (16-bit only): two pixels are read at once, which needs even P, an aligned x and even plane
    strides. Parameters: P x, P out, I C, I P, I rounded (even for 16-bit), I stride of x between images, I
    between planes. Grid: (pixel tiles, channel tiles, N); a tile is 32 x 32 (32-bit) or 64 x 64 (16-bit).
    """
    wide = BYTES[dtype] == 4
    name = f"channels_last_{8 * BYTES[dtype]}" + ("_pairs" if pairs else "")
    pitch = 33  # words of a tile row: one more than the 32 banks, so that columns are read without conflict
    if wide:
        read = []
        for i in range(4):
            read += [
                f"c = uint32(c0 + warp + {8 * i})",
                "v = load32(x + uint64(uint32(c * x_c + p0 + lane)) * 4, uint32(lt(c, C) & "
                "lt(uint32(p0 + lane), P)))",
                f"shared_store(uint32(tile + uint32(lane * {pitch} + warp + {8 * i}) * 4), v)",
            ]
        write = []
        for i in range(4):
            write += [
                f"p = uint32(p0 + warp + {8 * i})",
                f"v = shared_load(uint32(tile + uint32(uint32(warp + {8 * i}) * {pitch} + lane) * 4))",
                "ok = uint32(lt(p, P) & lt(uint32(c0 + lane), rounded))",
                "store32(out + uint64(uint32(p * rounded + c0 + lane)) * 4, v, ok)",
            ]
        side = 32
    else:
        side, read, write = 64, [], []
        for i in range(4):
            read += [f"c = uint32(c0 + uint32(warp + {8 * i}) * 2)", "p = uint32(p0 + lane * 2)"]
            for which in (0, 1):
                read += [
                    f"in{which} = lt(uint32(c + {which}), C)",
                    f"at = uint64(uint32(uint32(c + {which}) * x_c + p)) * 2",
                ]
                if pairs:
                    read += [f"r{which} = load32(x + at, uint32(in{which} & lt(p, P)))"]
                else:
                    read += [f"a = load16(x + at, uint32(in{which} & lt(p, P)))"]
                    read += [f"b = load16(x + at + 2, uint32(in{which} & lt(uint32(p + 1), P)))"]
                    read += [f"r{which} = uint32(a | uint32(b << 16))"]
            read += [
                f"at = uint32(tile + uint32(lane * {2 * pitch} + warp + {8 * i}) * 4)",
                "shared_store(at, uint32(uint32(r0 & 0xFFFF) | uint32(r1 << 16)))",
                f"shared_store(uint32(at + {4 * pitch}), uint32(uint32(r0 >> 16) | uint32(r1 & 0xFFFF0000)))",
            ]
        for i in range(8):
            write += [
                f"p = uint32(p0 + warp + {8 * i})",
                f"v = shared_load(uint32(tile + uint32(uint32(warp + {8 * i}) * {pitch} + lane) * 4))",
                "c = uint32(c0 + lane * 2)",
                "store32(out + uint64(uint32(p * rounded + c)) * 2, v, uint32(lt(p, P) & lt(c, rounded)))",
            ]
    source = f"""
def {name}(x, out, C, P, rounded, x_n, x_c):
    tile = shared_address(cuda.shared.array(0, float32))
    t = uint32(cuda.threadIdx.x)
    warp = uint32(t >> 5)
    lane = uint32(t & 31)
    p0 = uint32(cuda.blockIdx.x * {side})
    c0 = uint32(cuda.blockIdx.y * {side})
    n = uint32(cuda.blockIdx.z)
    x = x + uint64(n) * uint64(x_n) * {BYTES[dtype]}
    out = out + uint64(n) * uint64(uint32(P * rounded)) * {BYTES[dtype]}
{indent(read, 1)}
    cuda.syncthreads()
{indent(write, 1)}
"""
    return Kernel(name, source, "PPIIIII", (), THREADS, side * pitch * 4, 80)


def gather(width):
    """(N, D, H, W, C rounded up) from any strides, an element a thread; channels from C on become zero.

    W may be padded: position w of the result is w - left of x, and zero outside of it. Parameters: P x, P
    out, I total, I C, I rounded, I sizes D H W of the result, I left, I width of x, I strides of x in
    elements for n, c, d, h, w.
    """
    name = f"gather_{8 * width}"
    source = f"""
def {name}(x, out, total, C, rounded, D, H, W, left, inner, x_n, x_c, x_d, x_h, x_w):
    e = uint32(uint32(cuda.blockIdx.x) * {THREADS} + uint32(cuda.threadIdx.x))
    c = uint32(e % rounded)
    r = uint32(e // rounded)
    w = uint32(uint32(r % W) - left)
    r = uint32(r // W)
    h = uint32(r % H)
    r = uint32(r // H)
    d = uint32(r % D)
    n = uint32(r // D)
    inside = lt(e, total)
    at = uint64(uint32(n * x_n + c * x_c + d * x_d + h * x_h + w * x_w)) * {width}
    v = load{8 * width}(x + at, uint32(inside & lt(c, C) & lt(w, inner)))
    store{8 * width}(out + uint64(e) * {width}, v, inside)
"""
    return Kernel(name, source, "PP" + "I" * 13, (), THREADS, 0, 80)


def pack_weight(dtype):
    """Weight elements in a kernel's order: out[row, tap, column] with columns rounded up by zeros.

    dtype "tf32" rounds to nearest (an infinity stays one, and so does every NaN, which rounding by adding to
    the bits would make zero or an infinity), "f32" writes the tf32 part to `out` and the rest to `low`, of
    which one is NaN where the weight is, "copy32" and 16-bit dtypes copy. Parameters: P weight, P out, (P
    low,) I rows, I columns, I rounded, I taps of three axes (slow to fast), I strides in elements of row,
    column, tap axes, I element of tap (0, 0, 0), I elements from group to group. Strides may be negative.
    Grid: (blocks of 256 elements of a group, groups).
    """
    width = 2 if dtype in ("f16", "bf16") else 4
    load, store = ("load16", "store16") if width == 2 else ("load32", "store32")
    name = f"pack_weight_{ {'f16': 'copy16', 'bf16': 'copy16'}.get(dtype, dtype) }"
    low = ["low"] if dtype == "f32" else []
    if dtype == "f32":
        write = [
            "h = rounded_tf32(v)",
            "store32(out + at, h, inside)",
            "store32(low + at, rest(v, h), inside)",
        ]
    elif dtype == "tf32":
        write = [
            "nan = above(value(v), value(uint32(0x7F800000)))",  # nothing but NaN is above infinity
            "store32(out + at, select(uint32(v | 0x400000), rounded_tf32(v), nan), inside)",
        ]
    else:
        write = [f"{store}(out + at, v, inside)"]
    integers = "rows, columns, rounded, taps_d, taps_h, taps_w, s_row, s_column, s_d, s_h, s_w, first, "
    integers += "s_group"
    source = f"""
def {name}({", ".join(["weight", "out", *low])}, {integers}):
    e = uint32(uint32(cuda.blockIdx.x) * {THREADS} + uint32(cuda.threadIdx.x))
    column = uint32(e % rounded)
    r = uint32(e // rounded)
    w = uint32(r % taps_w)
    r = uint32(r // taps_w)
    h = uint32(r % taps_h)
    r = uint32(r // taps_h)
    d = uint32(r % taps_d)
    row = uint32(r // taps_d)
    inside = lt(row, rows)
    group = uint32(cuda.blockIdx.y)
    source = uint32(first + group * s_group + row * s_row + column * s_column + d * s_d + h * s_h + w * s_w)
    v = {load}(weight + uint64(source) * {width}, uint32(inside & lt(column, columns)))
    at = uint64(uint32(e + group * rows * taps_d * taps_h * taps_w * rounded)) * {width}
{indent(write, 1)}
"""
    return Kernel(name, source, "PP" + "P" * len(low) + "I" * 13, (), THREADS, 0, 80)


def sum_table():
    """Rows (offset, d, h, w) of `gemm_f32`: how far element e = (channel, tap) of a sum lies from a
    position's start.

    Parameters: P out (16 bytes a row), I E, I taps of d, h, w, I stride of x in elements for c, d, h, w, I
    tap distances.
    """
    name = "sum_table"
    source = f"""
def {name}(out, E, taps_d, taps_h, taps_w, x_c, x_d, x_h, x_w, step_d, step_h, step_w):
    e = uint32(uint32(cuda.blockIdx.x) * {THREADS} + uint32(cuda.threadIdx.x))
    w = uint32(uint32(e % taps_w) * step_w)
    r = uint32(e // taps_w)
    h = uint32(uint32(r % taps_h) * step_h)
    r = uint32(r // taps_h)
    d = uint32(uint32(r % taps_d) * step_d)
    c = uint32(r // taps_d)
    offset = uint32(c * x_c + d * x_d + h * x_h + w * x_w)
    store128(out + uint64(e) * 16, offset, d, h, w, lt(e, E))
"""
    return Kernel(name, source, "P" + "I" * 11, (), THREADS, 0, 80)


def sum_parts(dtype):
    """dweight (K, C, taps) from float32 partial sums, added in the order of the parts: the same bits on
    every run.

    Parameters: P parts, P out, I elements of out, I parts, I elements of a part, I C, I taps, I strides of
    a part for k, c, tap.
    """
    name = f"sum_parts_{dtype}"
    source = f"""
def {name}(parts, out, total, count, size, C, taps, s_k, s_c, s_tap):
    e = uint32(uint32(cuda.blockIdx.x) * {THREADS} + uint32(cuda.threadIdx.x))
    inside = lt(e, total)
    tap = uint32(e % taps)
    r = uint32(e // taps)
    c = uint32(r % C)
    k = uint32(r // C)
    at = parts + uint64(uint32(k * s_k + c * s_c + tap * s_tap)) * 4
    v = float32(0.0)
    for i in range(count):
        v = float32(v + load_part(at, inside))
        at = at + uint64(size) * 4
    store(out + uint64(e) * {BYTES[dtype]}, v, inside)
"""
    return Kernel(
        name,
        source,
        "PP" + "I" * 8,
        (("load_part", "load", "f32"), ("store", "store", dtype)),
        THREADS,
        0,
        80,
    )
