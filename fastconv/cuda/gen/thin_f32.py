"""Few rows times a matrix in plain float32 multiply-adds, which is bound by reading the matrix once.

y[m, o] = bias[o] + sum over k of x[m, k] * w[o, k]        (turned: w[k, o])

Every sum is one chain of multiply-adds in the order of k, as in `gemm_f32`: the bits are the same. That
leaves no way to split it, but one thread an element keeps up: 4 cycles a step are 9 us for 4096 steps, in
which memory delivers 38 MB. A block computes 4 * rows rows of y x 32 columns with four warps, one lane a
column; k-tiles of 32 arrive by cp.async, seven ahead, 4 KB of w each.
"""

from .kernel import Kernel, indent, pipeline

COLUMNS, DEPTH, THREADS, STAGES, WARPS = 32, 32, 128, 8, 4
ROWS = 16  # of x that shared memory has room for
STAGE = (COLUMNS + ROWS) * 4 * DEPTH


def kernel(rows, turned=False, bias=False):
    """The `Kernel` for 1, 2 or 4 rows a warp.

    Parameters: P x, P w, P y, (P bias,) I rows of x, I columns of y, I length of a sum, I elements between
    rows of x, of w, and of y. Grid: (column tiles, row tiles). x and w are aligned to 16 bytes, as are their
    rows.
    """
    name = f"thin_f32_{rows}" + ("_turned" if turned else "") + ("_bias" if bias else "")
    integers = ["M", "K", "E", "x_row", "w_row", "y_row"]
    height = WARPS * rows
    load = []
    for i in range(2):  # 256 pieces of 16 bytes of w, 128 of x
        load += [f"r = uint32(uint32(t >> 3) + {16 * i})"]
        if turned:
            load += [
                "e = uint32(uint32(k * 32) + r)",
                "column = uint32(k0 + piece * 4)",
                "ok = uint32(lt(e, E) & lt(column, K))",
                "source = uint32(uint32(e * w_row + column) * ok)",
                "target = uint32(tile + uint32(r * 128) + uint32(piece << 4))",
            ]
        else:
            load += [
                "e = uint32(uint32(k * 32) + piece * 4)",
                "ok = uint32(lt(e, E) & lt(uint32(k0 + r), K))",
                "source = uint32(uint32(uint32(k0 + r) * w_row + e) * ok)",
                "target = uint32(tile + uint32(r * 128) + uint32(uint32(piece ^ uint32(r & 7)) << 4))",
            ]
        load += ["copy16(target, w + uint64(source) * 4, uint32(ok * 16))"]
    load += [
        "r = uint32(t >> 3)",
        "e = uint32(uint32(k * 32) + piece * 4)",
        f"ok = uint32(lt(e, E) & lt(r, {height}) & lt(uint32(m0 + r), M))",
        "source = uint32(uint32(uint32(m0 + r) * x_row + e) * ok)",
        f"target = uint32(tile + {4 * DEPTH * COLUMNS} + uint32(r * 128) + uint32(piece << 4))",
        "copy16(target, x + uint64(source) * 4, uint32(ok * 16))",
    ]
    own = f"uint32(tile + {4 * DEPTH * COLUMNS} + uint32(warp * {128 * rows}))"
    weights = "uint32(tile + uint32(lane * 4))" if turned else "uint32(tile + uint32(lane * 128))"
    multiply = [f"acc = row_sums(acc, {own}, {weights}, uint32(lane & 7))"]
    save = ["column = uint32(k0 + lane)", "inside = lt(column, K)"]
    if bias:
        save += ["own = load_bias(bias + uint64(column) * 4, inside)"]
    for i in range(rows):
        save += [
            f"row = uint32(m0 + warp * {rows} + {i})",
            f"v = float32(acc[{i}]{' + own' if bias else ''})",
            "store(y + uint64(uint32(row * y_row + column)) * 4, v, uint32(inside & lt(row, M)))",
        ]
    source = f"""
def {name}(x, w, y, {"bias, " if bias else ""}{", ".join(integers)}):
    base = shared_address(cuda.shared.array(0, float32))
    t = uint32(cuda.threadIdx.x)
    lane = uint32(t & 31)
    warp = uint32(t >> 5)
    piece = uint32(t & 7)
    k0 = uint32(cuda.blockIdx.x * {COLUMNS})
    m0 = uint32(cuda.blockIdx.y * {height})
    steps = uint32(uint32(E + {DEPTH - 1}) // uint32({DEPTH}))
    acc = zeros()
{indent(pipeline(load, multiply, STAGE, STAGES), 1)}
{indent(save, 1)}
"""
    operations = (
        ("zeros", "zeros", rows), ("row_sums", "row_sums", rows, turned),
        ("wait", "copy_wait", STAGES - 2), ("wait_all", "copy_wait", 0),
        ("load_bias", "load", "f32"), ("store", "store", "f32"),
    )  # fmt: skip
    letters = "PPP" + ("P" if bias else "") + "I" * len(integers)
    return Kernel(name, source, letters, operations, THREADS, STAGES * STAGE, 80, 4)
