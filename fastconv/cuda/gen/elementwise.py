"""Elementwise operations over contiguous arrays: activations and their gradients, dropout, sums.

Every byte is moved once, 16 bytes a thread several times over, so that enough of them are in flight. An
element of the result depends on the elements at its own place alone.
"""

from .kernel import Kernel, indent
from .vectors import Vectors, operations, suffix

THREADS, VECTORS = 256, 4


def _forward(name, x, out):
    """Lines that set `out` to the activation of `x`. Every branch lets NaN through."""
    if name == "relu":
        return [f"{out} = maximum({x}, float32(0.0))"]
    if name in ("leaky_relu", "elu"):
        low = x if name == "leaky_relu" else f"math.expm1({x})"
        return [f"{out} = choose({x}, float32(parameter * {low}), above({x}, float32(0.0)))"]
    if name == "sigmoid":  # through the exponential that cannot overflow
        return [
            f"small = math.exp(float32(-maximum({x}, float32(-{x}))))",
            f"{out} = choose(small, float32(1.0), above(float32(0.0), {x}))",
            f"{out} = float32({out} / float32(float32(1.0) + small))",
        ]
    return [f"{out} = math.tanh({x})"]


def _backward(name, dy, y, out):
    """Lines that set `out` to dy * f'(x), the derivative written in the output y."""
    if name == "sigmoid":
        return [f"{out} = float32(float32({dy} * {y}) * float32(float32(1.0) - {y}))"]
    if name == "tanh":
        return [f"{out} = float32({dy} * float32(float32(1.0) - float32({y} * {y})))"]
    low = {
        "relu": "float32(0.0)",
        "leaky_relu": f"float32(parameter * {dy})",
        "elu": f"float32(float32({y} + parameter) * {dy})",
    }
    return [f"{out} = choose({dy}, {low[name]}, above({y}, float32(0.0)))"]


def _flat(name, inputs, compute, dtype, vectors, masked=False):
    """out = compute(inputs) over contiguous arrays aligned to 16 bytes, the last elements one by one.

    inputs: names of arrays; compute(*variables, out): lines; vectors: of 16 bytes that a thread moves of each
    array; masked: with an array of bytes, whose variable comes last (0 or another uint32). Parameters: P
    inputs, (P mask,) P out, I whole vectors, I elements beyond them, F parameter. Grid: blocks of
    THREADS * vectors of these.
    """
    whole, one = Vectors(dtype, {"f32": 4}.get(dtype, 8)), Vectors(dtype, 1)
    size, width = one.bytes, whole.width
    body = []
    for i in range(vectors):
        body += [f"i{i} = uint32(uint32(cuda.blockIdx.x) * {THREADS * vectors} + t + {THREADS * i})"]
        body += [f"ok{i} = lt(i{i}, vectors)"]
        for a in inputs:
            body += whole.load(f"{a}{i}_", f"{a} + uint64(i{i}) * 16", f"ok{i}")
        if masked:
            body += [f"mask{i} = load{8 * width}(mask + uint64(i{i}) * {width}, ok{i})"]
    for i in range(vectors):
        for j in range(width):
            given = [f"{a}{i}_{j}" for a in inputs]
            if masked:
                word = f"mask{i}" if width == 4 else f"mask{i}[{j // 4}]"
                given += [f"uint32({word} & {255 << 8 * (j % 4)})"]
            body += compute(*given, f"r{j}")
        body += whole.store("r", f"out + uint64(i{i}) * 16", f"ok{i}")
    body += ["last = uint32(lt(t, tail) & lt(uint32(cuda.blockIdx.x), uint32(1)))"]
    body += [f"at = uint64(uint32(uint32(vectors * {width}) + t))"]
    for a in inputs:
        body += one.load(f"{a}_", f"{a} + at * {size}", "last")
    given = [f"{a}_0" for a in inputs]
    if masked:
        body, given = body + ["mask_0 = load8(mask + at, last)"], given + ["mask_0"]
    body += compute(*given, "r0") + one.store("r", f"out + at * {size}", "last")
    pointers = [*inputs, *(["mask"] if masked else []), "out"]
    full = name + suffix(dtype)
    source = f"""
def {full}({", ".join(pointers)}, vectors, tail, parameter):
    t = uint32(cuda.threadIdx.x)
{indent(body, 1)}
"""
    return Kernel(full, source, "P" * len(pointers) + "IIF", operations(whole, one), THREADS, 0, 80)


def vectors_of(kernel_inputs, dtype):
    """Vectors that a thread moves: four of float32; of 16 bits as many as keep the text short."""
    return VECTORS if dtype == "f32" or kernel_inputs == 1 else VECTORS // 2


def activation(name, backward=False, dtype="f32"):
    """y = f(x), or dx from dy and y. Inputs "x", or "dy" and "y"; see `_flat`."""
    inputs = ["dy", "y"] if backward else ["x"]
    step = _backward if backward else _forward
    full = f"{name}_{'backward' if backward else 'forward'}"
    return _flat(full, inputs, lambda *v: step(name, *v), dtype, vectors_of(len(inputs), dtype))


def dropout(dtype="f32"):
    """y = x * parameter where the mask (bytes) is not 0, and 0 elsewhere, whatever x is there."""

    def compute(x, mask, out):
        return [f"{out} = choose(float32({x} * parameter), float32(0.0), {mask})"]

    return _flat("dropout", ["x"], compute, dtype, vectors_of(1, dtype), masked=True)


def add(dtype="f32"):
    """y = a + parameter * b."""

    def compute(a, b, out):
        return [f"{out} = float32({a} + float32(parameter * {b}))"]

    return _flat("add", ["a", "b"], compute, dtype, vectors_of(2, dtype))
