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

    accepts(problem) -> None, or why it cannot compute it; suits(problem, precision) -> None, or why "auto" would rather not, although it could;
    run(kernels, problem, *arrays) computes; scratch(kernels, problem, threads) -> bytes.
    """

    name: str
    accepts: Callable
    suits: Callable
    run: Callable
    scratch: Callable


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
def _choose(direction, problem, algorithm, precision):
    """(Algorithm, refused) or raises. `refused` says of every other algorithm why "auto" would not choose it."""
    table = TABLES[direction]
    reasons = {a.name: a.accepts(problem) for a in table}
    if algorithm == "auto":
        reasons = {a.name: reasons[a.name] or a.suits(problem, precision) for a in table}
        chosen = next(a for a in table if reasons[a.name] is None)
    else:
        chosen = next((a for a in table if a.name == algorithm), None)
        if chosen is None:
            raise ValueError(f"{problem.op}: algorithm {algorithm!r} is unknown (need 'auto' or one of {', '.join(map(repr, reasons))})")
        if reasons[algorithm] is not None:
            raise UnsupportedError(f"{problem.op}: algorithm {algorithm!r} {reasons[algorithm]}")
    return chosen, {name: reason for name, reason in reasons.items() if reason is not None}


def choose(direction, problem, algorithm):
    """The `Algorithm` that computes `direction` (a key of TABLES) for this problem."""
    return _choose(direction, problem, algorithm, _config.get_precision())[0]


def plan(direction, problem, algorithm="auto"):
    """The Plan of a call; raises like the call itself for a named algorithm."""
    name = direction_of(direction)
    if name is None:
        if algorithm not in ("auto", "direct"):
            raise ValueError(f"{direction}: algorithm {algorithm!r} is unknown (need 'auto' or 'direct')")
        return Plan("direct", {}, getattr(problem, "flops", 0), 0)
    chosen, refused = _choose(name, problem, algorithm, _config.get_precision())
    scratch = chosen.scratch(isa.active(), problem, _config.get_num_threads())
    return Plan(chosen.name, dict(refused), problem.flops, scratch)
