"""What a case is, and what the families of operations share."""

import zlib

import numpy as np

from ..arrays import DRAW, lay_out


class Case:
    """One call: operation, shapes, options, layout of the inputs; `label` says where it comes from.

    functions   the public functions that `run` calls. kinds       the kinds of inputs that make sense:
    "exact" (small integers), "real", "special" (with NaN and inf).
    """

    kinds = ("exact", "real")

    def __init__(self, op, *, layout="contiguous", label="", **options):
        self.op, self.layout, self.label, self.options = op, layout, label, options

    @property
    def functions(self):
        return (self.op, f"{self.op}_backward")

    def describe(self, dtype):
        """The problem's name, or the like of it."""
        raise NotImplementedError

    def draw(self, rng, dtype, make):
        """The arrays of the call, by name; `make(rng, shape)` draws what may be integers, reals, special."""
        raise NotImplementedError

    def run(self, fc, inputs, algorithm="auto"):
        """Results by "function result", from a namespace of the public functions."""
        raise NotImplementedError

    def bounds(self, inputs, results, dtype, kind):
        """Admissible errors by "function result", from float64 inputs and expected results; 0 means equal.

        These are the bounds of direct sums.
        """
        raise NotImplementedError

    def chosen(self, fc, dtype, algorithm="auto"):
        """By "function result" what a namespace computes it with, None if the named algorithm refuses.

        Results that can be had in one way only are left out.
        """
        return {}

    def pairings(self, inputs, results):
        """Numbers that are equal because backward is the adjoint of forward; () where it is not linear."""
        return ()

    def name(self, dtype=np.float32):
        """One line: test id, row of a report."""
        parts = [
            self.describe(np.dtype(dtype)),
            "" if self.layout == "contiguous" else self.layout,
            self.label,
        ]
        return "_".join(part for part in parts if part)

    def __repr__(self):
        return f"<{self.name()}>"

    def inputs(self, dtype, kind="real"):
        """The arrays in the case's layout, their floats in dtype; the same on every call."""
        seed = zlib.crc32(f"{self.describe(np.dtype(np.float64))} {kind}".encode())
        arrays = self.draw(np.random.default_rng(seed), np.dtype(dtype), DRAW[kind])
        return {
            name: None if a is None else lay_out(a.astype(dtype) if a.dtype.kind == "f" else a, self.layout)
            for name, a in arrays.items()
        }


def widened(inputs):
    """Plain float64 copies of the floats in a case's inputs."""
    return {
        name: np.array(a, np.float64, order="C") if a is not None and a.dtype.kind == "f" else a
        for name, a in inputs.items()
    }


def dot(a, b):
    """<a, b> as a Python integer: exact for integer-valued arrays."""
    return int(
        np.vdot(np.asarray(a, np.float64).astype(np.int64), np.asarray(b, np.float64).astype(np.int64))
    )


def hidden(shape, dtype):
    """An array of any shape that takes no memory, for the parser to look at."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def known(fc, direction, algorithm):
    """Whether a direction has an algorithm of this name: not every one computes every gradient."""
    return algorithm == "auto" or algorithm in fc.algorithms(direction)


def asked_for(algorithm):
    return {} if algorithm == "auto" else {"algorithm": algorithm}


def the_reference():
    from ... import reference

    return reference


def magnitudes(inputs, *names):
    """Absolute values of float64 inputs; what is not finite has no bound, and does not spoil others'."""
    return [np.nan_to_num(np.abs(inputs[name]), nan=0.0, posinf=0.0) for name in names]


def shape_name(shape):
    return "x".join(map(str, shape)) if shape else "scalar"


def options_name(options):
    return "".join(f"_{name}{value}" for name, value in options.items())
