"""Algorithms as a table, refusal as a value. Every compiled backend has such tables.

An algorithm looks at the problem of one sample (never at N, the thread count or strides, which must not
change a bit of the result) and accepts it or says why not. ``"auto"`` takes the first that suits; a named
one runs or raises `UnsupportedError` with its reason.
"""

from functools import lru_cache
from typing import Callable, NamedTuple

from . import _config
from ._errors import UnsupportedError


class Plan(NamedTuple):
    """What a call would run: the algorithm, why others were refused, direct flops, scratch bytes."""

    algorithm: str
    refused: dict
    flops: int
    scratch_bytes: int


class Algorithm(NamedTuple):
    """One way to compute a direction.

    accepts(problem) -> None, or why it cannot compute it; suits(problem, precision) -> None, or why "auto"
    would rather not, although it could; run computes, in the way that the backend says;
    scratch(kernels, problem, threads) -> bytes. What `kernels` is, the backend says.
    """

    name: str
    accepts: Callable
    suits: Callable
    run: Callable
    scratch: Callable


class Tables:
    """The tables of a backend: direction without its rank, such as "conv_backward_input" -> its algorithms.

    kernels() gives what `scratch` gets to see, beside the problem and the number of threads.
    """

    def __init__(self, kernels):
        self._kernels, self._tables = kernels, {}

    def __setitem__(self, direction, algorithms):
        self._tables[direction] = tuple(algorithms)
        self._choose.cache_clear()

    def __getitem__(self, direction):
        return self._tables[direction]

    def direction_of(self, op):
        """ "conv2d_backward_input" -> "conv_backward_input"; None for operations that have no table."""
        for rank in ("1d", "2d", "3d"):
            name = op.replace(rank, "", 1)
            if name != op and name in self._tables:
                return name
        return None

    def algorithms(self, direction):
        """Names of the algorithms of an operation, in the order of their table."""
        name = self.direction_of(direction)
        return tuple(a.name for a in self._tables[name]) if name else ("direct",)

    @lru_cache(maxsize=4096)
    def _choose(self, direction, problem, algorithm, precision):
        """(Algorithm, refused) or raises. `refused` says of every other why "auto" would not choose it."""
        table = self._tables[direction]
        reasons = {a.name: a.accepts(problem) for a in table}
        if algorithm == "auto":
            reasons = {a.name: reasons[a.name] or a.suits(problem, precision) for a in table}
            chosen = next(a for a in table if reasons[a.name] is None)
        else:
            chosen = next((a for a in table if a.name == algorithm), None)
            if chosen is None:
                known = ", ".join(map(repr, reasons))
                raise ValueError(
                    f"{problem.op}: algorithm {algorithm!r} is unknown (need 'auto' or one of {known})"
                )
            if reasons[algorithm] is not None:
                raise UnsupportedError(f"{problem.op}: algorithm {algorithm!r} {reasons[algorithm]}")
        return chosen, {name: reason for name, reason in reasons.items() if reason is not None}

    def choose(self, direction, problem, algorithm, precision=None):
        """The `Algorithm` that computes `direction` (a key of the tables) for this problem."""
        return self._choose(direction, problem, algorithm, precision or _config.get_precision())[0]

    def plan(self, direction, problem, algorithm="auto"):
        """The Plan of a call; raises like the call itself for a named algorithm."""
        name = self.direction_of(direction)
        if name is None:
            if algorithm not in ("auto", "direct"):
                raise ValueError(f"{direction}: algorithm {algorithm!r} is unknown (need 'auto' or 'direct')")
            return Plan("direct", {}, getattr(problem, "flops", 0), 0)
        chosen, refused = self._choose(name, problem, algorithm, _config.get_precision())
        scratch = chosen.scratch(self._kernels(), problem, _config.get_num_threads())
        return Plan(chosen.name, dict(refused), problem.flops, scratch)
