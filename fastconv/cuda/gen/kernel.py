"""What a generator returns: the text of one kernel and all that is needed to compile, launch and emulate it;
and the pieces of text that several generators share.

Rules for the text (the compiler and the emulator both rely on them): every integer result is wrapped in
``uint32(...)`` or ``uint64(...)``, both sides of ``//`` and ``%`` are uint32, loops and branches depend on
values that all threads of a warpgroup share (else the operation takes a predicate), memory is addressed by
byte.
"""

import hashlib
import math
from typing import NamedTuple

MAXIMUM = 2**31 - 1  # elements of an array that a kernel addresses with 32-bit indices
BYTES = {"f32": 4, "tf32": 4, "f16": 2, "bf16": 2}
AXES = "dhw"


class Kernel(NamedTuple):
    """One generated kernel.

    name: of the function in `source`, unique for the parameters it was generated from; source: Python text;
    parameters: one letter each, M tensor map (128 bytes by value), P address, I uint32, F float32;
    operations: (alias, family, arguments...) that the text calls besides the fixed ones; threads a block;
    shared: bytes of dynamic shared memory; arch: least compute capability times ten (80, 90); blocks: that
    shall fit an SM at least, which caps the registers.
    """

    name: str
    source: str
    parameters: str
    operations: tuple
    threads: int
    shared: int
    arch: int
    blocks: int = 1

    @property
    def digest(self):
        """Of everything that decides the machine code, apart from the tools."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()


def indent(lines, by):
    """Lines joined and moved right by `by` levels, to be put where a template has a bare field."""
    pad = "    " * by
    return "\n".join(pad + line for line in lines)


def ceil_div(a, b):
    return -(-a // b)


def product(values):
    return math.prod(values)


def decode(name, axes=AXES):
    """Lines that split the position `pixel` into image {name}n and indices {name}d, {name}h and {name}w."""
    lines = [f"{name}n = uint32(pixel)"]
    for a in reversed(axes):
        lines += [f"{name}{a} = uint32({name}n % count_{a})", f"{name}n = uint32({name}n // count_{a})"]
    return lines


def from_group(*pointers, size, bias=False):
    """Lines that move pointers of `size`-byte elements, and the bias of K channels, to those of `group`."""
    lines = [f"{p} = {p} + uint64(uint32(group * {p}_group)) * {size}" for p in pointers]
    return lines + ([f"bias = bias + uint64(uint32(group * K)) * {size}"] if bias else [])


def pipeline(load, multiply, stage, stages):
    """Lines of a loop over `steps` k-tiles of `stage` bytes from `base` on: k-tile k is fetched while
    k - stages + 1 is computed and those between are on their way.

    load and multiply: lines that fetch k-tile `k` to address `tile`, or compute the one at `tile`; wait() and
    wait_all() leave stages - 2 and no groups of copies unfinished. One copy of the fetching serves the first
    k-tiles too: beyond the sum it writes zeros, which is cheaper than a text of twice the length (numba's
    time grows with the square of it).
    """
    lag = stages - 1
    return [
        "st = uint32(0)",
        "old = uint32(1)",
        f"for now in range(uint32(steps + {lag})):",
        "    k = uint32(now)",
        "    wait()",
        "    cuda.syncthreads()",
        f"    tile = uint32(base + st * {stage})",
        *("    " + line for line in load),
        "    copy_commit()",
        f"    if k >= {lag}:",
        f"        tile = uint32(base + old * {stage})",
        *("        " + line for line in multiply),
        "    st = uint32(st + 1)",
        f"    if st == {stages}:",
        "        st = uint32(0)",
        "    old = uint32(old + 1)",
        f"    if old == {stages}:",
        "        old = uint32(0)",
        "wait_all()",
    ]


def activated(name, value):
    """Text of activation(value) for a float32 expression; NaN goes through."""
    if name is None:
        return value
    return {
        "relu": f"maximum({value}, float32(0.0))",
        "leaky_relu": f"maximum({value}, float32({value} * float32(0.01)))",
        "sigmoid": f"float32(float32(1.0) / float32(float32(1.0) + math.exp(float32(-({value})))))",
        "tanh": f"math.tanh({value})",
    }[name]
