"""Algorithms as a table: fastest first, refusal is a value.

An algorithm looks at the problem of one sample (never at N, the thread count or strides, which must not change a bit of the result) and accepts it or
says why not. ``"auto"`` takes the first that accepts; a named one runs or raises `UnsupportedError` with its reason.
"""

from functools import lru_cache
from typing import Callable, NamedTuple

from .. import _config
from .._errors import UnsupportedError
from . import isa


class Plan(NamedTuple):
    """What a call would run: the algorithm, why others were refused, direct flops, scratch memory in bytes."""

    algorithm: str
    refused: dict
    flops: int
    scratch_bytes: int


class Algorithm(NamedTuple):
    """One way to compute a direction.

    accepts(problem) -> None or a reason; run(...) computes; scratch(problem, threads) -> bytes; automatic: None, or why "auto" does not choose it.
    """

    name: str
    accepts: Callable
    run: Callable
    scratch: Callable
    automatic: str | None = None


TABLES = {}  # direction without its rank, such as "conv_backward_input" -> algorithms, fastest first


def direction_of(op):
    """"conv2d_backward_input" -> "conv_backward_input"; None for operations that have no table."""
    for rank in ("1d", "2d", "3d"):
        name = op.replace(rank, "", 1)
        if name != op and name in TABLES:
            return name
    return None


def algorithms(direction):
    """Names of the algorithms of an operation, fastest first."""
    name = direction_of(direction)
    return tuple(a.name for a in TABLES[name]) if name else ("direct",)


@lru_cache(maxsize=4096)
def _choose(direction, problem, algorithm):
    """(Algorithm, refused) or raises."""
    table = TABLES[direction]
    refused = {}
    for candidate in table:
        reason = candidate.accepts(problem)
        if algorithm == "auto":
            reason = reason or candidate.automatic
            if reason is None:
                refused.update((a.name, a.accepts(problem) or a.automatic) for a in table if a.accepts(problem) or a.automatic)
                return candidate, refused
            refused[candidate.name] = reason
        elif candidate.name == algorithm:
            if reason is not None:
                raise UnsupportedError(f"{problem.op}: algorithm {algorithm!r} {reason}")
            return candidate, refused
    names = ", ".join(repr(a.name) for a in table)
    raise ValueError(f"{problem.op}: algorithm {algorithm!r} is unknown (need 'auto' or one of {names})")


def choose(direction, problem, algorithm):
    """The `Algorithm` that computes `direction` (a key of TABLES) for this problem."""
    return _choose(direction, problem, algorithm)[0]


def plan(direction, problem, algorithm="auto"):
    """The Plan of a call; raises like the call itself for a named algorithm."""
    name = direction_of(direction)
    if name is None:
        if algorithm not in ("auto", "direct"):
            raise ValueError(f"{direction}: algorithm {algorithm!r} is unknown (need 'auto' or 'direct')")
        return Plan("direct", {}, getattr(problem, "flops", 0), 0)
    chosen, refused = _choose(name, problem, algorithm)
    scratch = chosen.scratch(isa.active(), problem, _config.get_num_threads())
    return Plan(chosen.name, dict(refused), problem.flops, scratch)
