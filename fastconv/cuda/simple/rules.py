"""Elementwise rules as kernels: one thread per element computes the new values of some arrays.

A rule is an ordinary function of numbers (see `fastconv._arithmetic.apply`); a kernel around it is written
here for every number of arrays, since kernels have no variable number of arguments.
"""

import functools
import math
import sys
import types

from numba import cuda

from .launch import device, kernel


@functools.lru_cache(maxsize=64)
def _kernel(rule, changed, arrays, numbers):
    """kernel(a0, a1, ..., s0, s1, ...): (a0[i], ...) = rule(a0[i], a1[i], ..., s0, s1, ...)."""
    names = [f"a{i}" for i in range(arrays)]
    scalars = [f"s{i}" for i in range(numbers)]
    given = ", ".join([*(f"{name}[i]" for name in names), *scalars])
    lines = [
        f"def {rule.__name__}({', '.join(names + scalars)}):",
        "    for i in range(cuda.grid(1), a0.size, cuda.gridsize(1)):",
        f"        values = rule({given})",
        *(f"        {name}[i] = values[{i}]" for i, name in enumerate(names[:changed])),
    ]
    inner = types.FunctionType(rule.__code__, {"sqrt": math.sqrt}, rule.__name__)
    scope = {"cuda": cuda, "rule": device(inner)}
    exec("\n".join(lines), scope)
    code = rule.__code__  # what it names besides its arguments is `sqrt` alone
    parts = code.co_code, code.co_consts, code.co_names, code.co_varnames, sys.version_info[:3]
    return kernel(scope[rule.__name__], ("\n".join(lines), parts))


def apply(call, rule, changed, arrays, numbers):
    """See `fastconv._arithmetic.apply`; arrays are contiguous, those to be changed first."""
    flat = [array.flat() for array in arrays]
    _kernel(rule, changed, len(flat), len(numbers)).launch(call, flat[0].size, *flat, *numbers)
