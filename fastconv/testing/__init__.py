"""Testing tools: cases, exact inputs, the bound, adjoint and gradient checks.

Shared by the project's tests, its benchmarks and ``fastconv check``; of use to anyone who adds a backend or
an algorithm. Needs NumPy only.
"""

from .arrays import LAYOUTS, exact_inputs, lay_out, poisoned, real_inputs, special_inputs
from .bounds import FUNCTION_ULPS, bound
from .cases import EDGES, LAYERS, cases, pairwise, short_tiles
from .checks import (
    DTYPES,
    Guarded,
    Row,
    check,
    check_adjoint,
    check_backend,
    compare,
    expectation,
    gradients,
    measure,
    same_bits,
    worst,
)
from .memory import GUARDS, guarded, guarded_empty
from .operations import Case, widened

__all__ = [
    "DTYPES",
    "EDGES",
    "FUNCTION_ULPS",
    "GUARDS",
    "LAYERS",
    "LAYOUTS",
    "Case",
    "Guarded",
    "Row",
    "bound",
    "cases",
    "check",
    "check_adjoint",
    "check_backend",
    "compare",
    "exact_inputs",
    "expectation",
    "gradients",
    "guarded",
    "guarded_empty",
    "lay_out",
    "measure",
    "pairwise",
    "poisoned",
    "real_inputs",
    "same_bits",
    "short_tiles",
    "special_inputs",
    "widened",
    "worst",
]
