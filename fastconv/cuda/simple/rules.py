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


@functools.lru_cache(maxsize=256)
def _kernel(rule, changed, arrays, numbers, decayed, rounded):
    """kernel(a0, a1, ..., s0, s1, ...): (a0[i], ...) = rule(a0[i], a1[i], ..., s0, s1, ...).

    decayed: a0 times a number, which comes last, is added to what follows the arrays that are changed, the
    gradient. rounded: one more array follows, `short`, which keeps a0 rounded; where it holds anything else,
    somebody has changed it, and it takes the place of a0.
    """
    names = [f"a{i}" for i in range(arrays - rounded)]
    scalars = [f"s{i}" for i in range(numbers)]
    values = ["data", *(f"{name}[i]" for name in names[1:])]
    if decayed:
        values[changed] += " + decay * data"
    parameters = names + ["short"] * rounded + scalars + ["decay"] * decayed
    body = ["data = a0[i]"]
    if rounded:
        body += ["old = short[i]", "short[i] = data", "if short[i] != old:", "    data = old"]
    body += [f"values = rule({', '.join(values + scalars)})"]
    body += [f"{name}[i] = values[{i}]" for i, name in enumerate(names[:changed])]
    if rounded:
        body += ["short[i] = values[0]"]
    text = "\n".join([
        f"def {rule.__name__}({', '.join(parameters)}):",
        "    for i in range(cuda.grid(1), a0.size, cuda.gridsize(1)):",
        *("        " + line for line in body),
    ])  # fmt: skip
    inner = types.FunctionType(rule.__code__, {"sqrt": math.sqrt}, rule.__name__)
    scope = {"cuda": cuda, "rule": device(inner)}
    exec(text, scope)
    scope[rule.__name__].text = text  # which variants for arrays of 16 bits are made of
    code = rule.__code__  # what it names besides its arguments is `sqrt` alone
    parts = code.co_code, code.co_consts, code.co_names, code.co_varnames, sys.version_info[:3]
    return kernel(scope[rule.__name__], (text, parts))


def apply(call, rule, changed, arrays, numbers, decay, rounded):
    """See `fastconv._arithmetic.apply`; contiguous, those to be changed first, the rounded one last."""
    flat = [array.flat() for array in arrays]
    made = _kernel(rule, changed, len(flat), len(numbers), decay != 0, rounded)
    made.launch(call, flat[0].size, *flat, *numbers, *([decay] if decay else []))
