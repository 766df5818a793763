"""The compiled backend's tables of algorithms. `run(kernels, problem)` gets the active kernel module and makes the call, a function of the arrays."""

from .._algorithms import Algorithm, Plan, Tables
from . import isa

__all__ = ["TABLES", "Algorithm", "Plan", "algorithms", "choose", "plan"]

TABLES = Tables(lambda: isa.active())


def algorithms(direction):
    """Names of the algorithms of an operation, in the order of their table."""
    return TABLES.algorithms(direction)


def choose(direction, problem, algorithm, precision):
    """The `Algorithm` that computes `direction` (a key of TABLES) for this problem."""
    return TABLES.choose(direction, problem, algorithm, precision)


def plan(direction, problem, algorithm="auto"):
    """The Plan of a call; raises like the call itself for a named algorithm."""
    return TABLES.plan(direction, problem, algorithm)
