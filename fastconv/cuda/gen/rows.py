"""Rows of classes: softmax, its gradient, cross-entropy. A row stays in the registers of one warp.

A lane holds vectors of up to 16 bytes, as the length of a row allows: element j of vector i of a lane is
class (32 * i + lane) * width + j. Sums run over a lane's own values and then over the lanes, in an order that
the dtype and the number of classes decide; rows do not influence each other.
"""

from .kernel import Kernel, ceil_div, indent
from .vectors import operations, suffix, widest

THREADS = 256
ROWS = THREADS // 32  # of a block, one a warp
LONGEST = 1024  # 32 values a lane


def shape_of(classes, dtype="f32"):
    """(vectors a lane, elements of each) that hold a row; the first a power of two."""
    width = widest(dtype, classes).width
    steps = ceil_div(classes, 32 * width)
    return 1 << (steps - 1).bit_length(), width


def _reduced(name, combine):
    """Lines that combine a value over the lanes of a warp, in an order that is always the same."""
    return [f"{name} = {combine.format(name, f'exchange{m}({name})')}" for m in (16, 8, 4, 2, 1)]


def _sum(name):
    return _reduced(name, "float32({} + {})")


def _start(vectors, steps):
    """Lines: the row, whether it exists, the place of this lane's first vector in it, which vectors exist."""
    width = vectors.width
    lines = [
        "t = uint32(cuda.threadIdx.x)",
        "lane = uint32(t & 31)",
        f"row = uint32(uint32(cuda.blockIdx.x) * {ROWS} + uint32(t >> 5))",
        "exists = lt(row, rows)",
        f"first = uint32(lane * {width})",
        f"place = uint64(uint32(row * classes + first)) * {vectors.bytes // width}",
    ]
    return lines + [
        f"ok{i} = uint32(exists & lt(uint32(first + {32 * i * width}), classes))" for i in range(steps)
    ]


def _load(vectors, steps, name, pointer):
    """Lines: {name}0.. are this lane's values of the row at `pointer`, 0.0 beyond its end."""
    lines, width = [], vectors.width
    for i in range(steps):
        lines += vectors.load("g", f"{pointer} + place + uint64({32 * i * vectors.bytes})", f"ok{i}")
        lines += [f"{name}{i * width + j} = g{j}" for j in range(width)]
    return lines


def _store(vectors, steps, pointer, result):
    """Lines that store result(k), an expression, for this lane's values k."""
    lines, width = [], vectors.width
    for i in range(steps):
        lines += [f"g{j} = {result(i * width + j)}" for j in range(width)]
        lines += vectors.store("g", f"{pointer} + place + uint64({32 * i * vectors.bytes})", f"ok{i}")
    return lines


def _exponentials(vectors, steps):
    """Lines that load a row of x: v is x less the maximum, e its exponential, total the sum of these."""
    width, count = vectors.width, steps * vectors.width
    lines = [*_start(vectors, steps), "lowest = value(uint32(0xFF800000))", "top = lowest"]
    lines += _load(vectors, steps, "v", "x")
    for k in range(count):
        lines += [f"v{k} = choose(v{k}, lowest, ok{k // width})", f"top = maximum(top, v{k})"]
    lines += [*_reduced("top", "maximum({}, {})"), "total = float32(0.0)"]
    for k in range(count):
        lines += [f"v{k} = float32(v{k} - top)", f"e{k} = math.exp(v{k})", f"total = float32(total + e{k})"]
    return lines + _sum("total")


def _exchanges():
    return tuple((f"exchange{m}", "shuffle_xor", m) for m in (16, 8, 4, 2, 1))


def _kernel(name, pointers, body, vectors, steps, more="", scalars="", operands=()):
    full = f"{name}_{steps}x{vectors.width}{suffix(vectors.dtype)}"
    source = f"\ndef {full}({', '.join(pointers)}, rows, classes{scalars}):\n{indent(body, 1)}\n"
    used = (*_exchanges(), *operations(vectors, *operands))
    return Kernel(full, source, "P" * len(pointers) + "II" + more, used, THREADS, 0, 80)


def softmax(vectors, steps, log=False):
    """Softmax, or its logarithm. Parameters: P x, P y, I rows, I classes. Grid: blocks of 8 rows."""
    body = _exponentials(vectors, steps)
    body += ["log_total = math.log(total)"] if log else ["inverse = float32(float32(1.0) / total)"]
    result = (lambda k: f"float32(v{k} - log_total)") if log else (lambda k: f"float32(e{k} * inverse)")
    body += _store(vectors, steps, "y", result)
    return _kernel(f"{'log_' if log else ''}softmax", ["x", "y"], body, vectors, steps)


def softmax_backward(vectors, steps, log=False):
    """dx = y (dy - sum of dy y), or with `log` dx = dy - exp(y) sum of dy.

    Parameters: P dy, P y, P dx, I rows, I classes. Grid: blocks of 8 rows.
    """
    body = [*_start(vectors, steps), *_load(vectors, steps, "d", "dy"), *_load(vectors, steps, "v", "y")]
    body += ["total = float32(0.0)"]
    for k in range(steps * vectors.width):
        body += [f"total = float32(total + {f'd{k}' if log else f'float32(d{k} * v{k})'})"]
    body += _sum("total")
    if log:
        result = lambda k: f"float32(d{k} - float32(math.exp(v{k}) * total))"  # noqa: E731
    else:
        result = lambda k: f"float32(v{k} * float32(d{k} - total))"  # noqa: E731
    body += _store(vectors, steps, "dx", result)
    return _kernel(f"{'log_' if log else ''}softmax_backward", ["dy", "y", "dx"], body, vectors, steps)


def cross_entropy(vectors, steps, losses):
    """loss = -sum over c of q[c] log softmax(x)[c] and its gradient, for class labels.

    q = 1 - smoothing at the label, and smoothing / classes everywhere. A row whose label is no class, or is
    ignored, has loss and gradient 0. The gradient is divided by *count where `mean` is 1. losses: `Vectors`
    of width 1, of the dtype that they are stored in.
    Parameters: P x, P target (int64), P count (float32), P losses, P dx, I rows, I classes, I mean, I ignore,
    I ignored label (low and high word), F smoothing, F classes. Grid: blocks of 8 rows.
    """
    count, width = steps * vectors.width, vectors.width
    body = _exponentials(vectors, steps)
    body += [
        "log_total = math.log(total)",
        # one division a row: the slow path of a division is a branch, and 64 of them take a minute to compile
        "inverse = float32(float32(1.0) / total)",
        "label = load32(target + uint64(row) * 8, exists)",
        "high = load32(target + uint64(row) * 8 + 4, exists)",
        "ignored = uint32(ignore & equal(label, ignore_low) & equal(high, ignore_high))",
        "counts = uint32(lt(label, classes) & equal(high, uint32(0)) & uint32(ignored ^ 1))",
        # no conversion from integers is needed: the host passes classes as a float too
        "spread = float32(smoothing / classes_f)",
        "hot = float32(float32(1.0) - smoothing)",
        "whole = float32(float32(spread * classes_f) + hot)",
        "own = float32(0.0)",
        "others = float32(0.0)",
    ]
    for k in range(count):
        c = 32 * width * (k // width) + k % width
        body += [
            f"h{k} = equal(uint32(first + {c}), label)",
            f"own = float32(own + choose(float32(v{k} - log_total), float32(0.0), h{k}))",
            f"others = float32(others + choose(float32(v{k} - log_total), float32(0.0), ok{k // width}))",
        ]
    body += [*_sum("own"), *_sum("others")]
    body += [
        # without smoothing the other classes take no part, whatever their scores are
        "others = choose(float32(spread * others), float32(0.0), above(spread, float32(0.0)))",
        "loss = float32(-float32(float32(hot * own) + others))",
        "one0 = choose(loss, float32(0.0), counts)",
        "lead = uint32(exists & lt(lane, uint32(1)))",
        *losses.store("one", f"losses + uint64(row) * {losses.bytes}", "lead"),
        "divisor = choose(value(load32(count, mean)), float32(1.0), mean)",
        "share = float32(float32(1.0) / divisor)",
        "inverse = float32(inverse * whole)",
    ]
    for k in range(count):
        body += [
            f"e{k} = float32(float32(float32(e{k} * inverse) - spread) - choose(hot, float32(0.0), h{k}))",
            f"e{k} = choose(float32(e{k} * share), float32(0.0), counts)",
        ]
    body += _store(vectors, steps, "dx", lambda k: f"e{k}")
    name = "cross_entropy" if losses.dtype == vectors.dtype else f"cross_entropy_{losses.dtype}_of"
    scalars = ", mean, ignore, ignore_low, ignore_high, smoothing, classes_f"
    pointers = ["x", "target", "count", "losses", "dx"]
    return _kernel(name, pointers, body, vectors, steps, "IIIIFF", scalars, (losses,))
