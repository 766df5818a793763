"""The compiled backend's tables of algorithms; `run` and `scratch` get the active kernel module."""

from .._algorithms import Algorithm, Plan, Tables
from . import isa

__all__ = ["TABLES", "Algorithm", "Plan", "algorithms", "choose", "plan"]

TABLES = Tables(lambda: isa.active())


def algorithms(direction):
    """Names of the algorithms of an operation, fastest first."""
    return TABLES.algorithms(direction)


def choose(direction, problem, algorithm):
    """The `Algorithm` that computes `direction` (a key of TABLES) for this problem."""
    return TABLES.choose(direction, problem, algorithm)


def plan(direction, problem, algorithm="auto"):
    """The Plan of a call; raises like the call itself for a named algorithm."""
    return TABLES.plan(direction, problem, algorithm)
