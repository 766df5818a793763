"""What an implementation is: something that turns a problem and its arrays into a call to time."""

import importlib.util
from importlib import metadata

from ..problems import Problem


class Refused(Exception):
    """An implementation does not compute a problem in a direction; the message says why."""


class Implementation:
    """One way to compute problems. A subclass says what it needs and prepares calls.

    name: a word for command lines and files; title: for readers; packages: what must be installed, the
    first of which gives the version; most_flops: more arithmetic is refused, since it would take minutes;
    capped: whether its instruction set can be capped (`worker.CAPS`).
    """

    name = title = ""
    packages = ()
    most_flops = None
    capped = True

    def missing(self):
        """Why this cannot run here, or None. Imports nothing."""
        absent = [package for package in self.packages if importlib.util.find_spec(package) is None]
        return f"{' and '.join(absent)} not installed" if absent else None

    def versions(self):
        return {package: metadata.version(package) for package in self.packages}

    def setup(self, threads):
        """Called once in the process that will compute, before anything else; imports and sets threads."""

    def prepare(self, problem: Problem, direction, arrays):
        """The call to be timed: a function without arguments that computes from `arrays`; raises `Refused`.

        Whatever a user does once (layout of inputs, building a graph, compiling) happens here. The call
        returns fresh results each time, complete in memory.
        """
        if self.most_flops is not None and problem.flops(direction) > self.most_flops:
            raise Refused(f"would take long (more than {self.most_flops / 1e6:.0f} million operations)")
        method = getattr(self, problem.family, None)
        if method is None:
            raise Refused(f"no {problem.op} here")
        call = method(problem, direction, **arrays)
        if call is None:
            raise Refused(f"no {direction} of {problem.op} here")
        return call

    def results(self, result):
        """What a call returned, as a list of NumPy arrays in the order of `expected`."""
        raise NotImplementedError

    def facts(self, problem, direction):
        """What is known about a call besides its time: {"algorithm": ..., "scratch_bytes": ...}."""
        return {}


def symmetric(padding):
    """One padding per axis from (low, high) pairs; refuses unequal sides."""
    if any(low != high for low, high in padding):
        raise Refused("pads both sides alike only")
    return tuple(low for low, _ in padding)


def elementwise(xp, problem, direction, x, dy):
    """The call of an activation in a library with NumPy's names, or None for one that is not written here."""
    forward = {
        "relu": lambda: xp.maximum(x, 0),
        "sigmoid": lambda: 1 / (1 + xp.exp(-x)),
        "tanh": lambda: xp.tanh(x),
    }.get(problem.op)
    if direction == "forward" or forward is None:
        return forward
    y = forward()
    return {
        "relu": lambda: dy * (y > 0),
        "sigmoid": lambda: dy * y * (1 - y),
        "tanh": lambda: dy * (1 - y * y),
    }[problem.op]
