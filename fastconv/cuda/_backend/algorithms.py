"""The device's tables of algorithms.

`run` gets the `Call`, the problem and the `Array`s in five axes; `scratch` gets None for the kernels. The
last row of every table, "simple", accepts everything; faster ones are put in front of it.
"""

from ..._algorithms import Algorithm, Plan, Tables

__all__ = ["TABLES", "Algorithm", "Plan", "algorithms", "plan"]

TABLES = Tables(lambda: None)


def algorithms(direction):
    """Names of the algorithms of an operation, fastest first."""
    return TABLES.algorithms(direction)


def plan(direction, problem, algorithm="auto"):
    """The Plan of a call; raises like the call itself for a named algorithm."""
    return TABLES.plan(direction, problem, algorithm)
