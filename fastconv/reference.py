"""The public operations bound to the naive backend: plain loops, float64 accumulation, readable.

They are the definition of correct. ``fc.reference.conv2d(x, w)`` takes the arguments of ``fc.conv2d(x, w)``
and raises its errors; only what computes is different.
"""

from . import functional
from ._backends import reference as _backend_of

globals().update(functional.bound(__name__, _backend_of))

__all__ = list(functional.__all__)
