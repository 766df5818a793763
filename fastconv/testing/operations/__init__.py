"""What a case is, a class for every family of operations.

A case is one call of an operation and of its backward pass. It knows how to draw its inputs, how to run
itself on a namespace of the public functions, how far each result may be off, and, where backward is the
adjoint of a linear forward, which sums must agree exactly. The list of cases is next door.
"""

from .case import Case, hidden, widened
from .convolution import Columns, Convolution, Transposed
from .dense import BatchNorm, Linear, LocalResponseNorm
from .elementwise import Activation, Dropout, Maxout, Softmax
from .loss import Loss
from .pooling import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool

__all__ = [
    "Activation",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "Case",
    "Columns",
    "Convolution",
    "Dropout",
    "Linear",
    "LocalResponseNorm",
    "Loss",
    "MaxPool",
    "Maxout",
    "Softmax",
    "Transposed",
    "hidden",
    "widened",
]
