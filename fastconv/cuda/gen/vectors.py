"""Text that moves vectors of up to 16 bytes between global memory and float32 variables, for every dtype.

All memory-bound kernels are generated from this: numbers are float32 between a load and a store, whatever
they are in memory, and are rounded once, to nearest, when they are stored.
"""

from typing import NamedTuple

from .kernel import BYTES

MOST = 16  # bytes of one access


class Vectors(NamedTuple):
    """`width` neighbouring elements of a dtype ("f32", "f16", "bf16"), read or written by one access."""

    dtype: str
    width: int

    @property
    def bytes(self):
        return self.width * BYTES[self.dtype]

    @property
    def operations(self):
        """What the lines call besides the fixed operations."""
        d = self.dtype
        if self.width == 1:
            return ((f"load_{d}", "load", d), (f"store_{d}", "store", d))
        return () if d == "f32" else ((f"pack_{d}", "pack", d), (f"unpack_{d}", "unpack", d))

    def load(self, name, address, predicate):
        """Lines: {name}0, {name}1, ... are the elements at the address, 0.0 where the predicate is 0."""
        if self.width == 1:
            return [f"{name}0 = load_{self.dtype}({address}, {predicate})"]
        lines = [f"{name}_q = load{8 * self.bytes}({address}, {predicate})"]
        words = [f"{name}_q"] if self.bytes == 4 else [f"{name}_q[{i}]" for i in range(self.bytes // 4)]
        for i, word in enumerate(words):
            if self.dtype == "f32":
                lines += [f"{name}{i} = value({word})"]
            else:
                lines += [f"{name}_u = unpack_{self.dtype}({word})"]
                lines += [f"{name}{2 * i} = {name}_u[0]", f"{name}{2 * i + 1} = {name}_u[1]"]
        return lines

    def store(self, name, address, predicate):
        """Lines that store {name}0, {name}1, ... where the predicate is 1."""
        if self.width == 1:
            return [f"store_{self.dtype}({address}, {name}0, {predicate})"]
        if self.dtype == "f32":
            words = [f"bits({name}{i})" for i in range(self.width)]
        else:
            pairs = range(0, self.width, 2)
            words = [f"pack_{self.dtype}({name}{i}, {name}{i + 1})" for i in pairs]
        return [f"store{8 * self.bytes}({address}, {', '.join(words)}, {predicate})"]


def widest(dtype, length, most=MOST):
    """The widest vectors of which a run of `length` elements is made up, and which then all are aligned."""
    width = most // BYTES[dtype]
    while length % width:
        width //= 2
    return Vectors(dtype, width)


def operations(*vectors):
    """The operations of several, each once."""
    return tuple(dict.fromkeys(o for v in vectors for o in v.operations))


def suffix(dtype):
    """What a kernel's name says of its dtype: nothing of float32."""
    return "" if dtype == "f32" else f"_{dtype}"
