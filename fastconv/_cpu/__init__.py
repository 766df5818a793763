"""The compiled backend: the backend functions of all its rooms under one roof.

Rooms hold what decides (which algorithm, how much to allocate); the work is in the kernel module of the active
instruction-set level, see `isa`.
"""

from .algorithms import algorithms, plan
from .conv import (
    col2im,
    conv_backward_input,
    conv_backward_weight,
    conv_forward,
    im2col,
)
from .dense import linear, linear_backward

__all__ = [
    "algorithms",
    "col2im",
    "conv_backward_input",
    "conv_backward_weight",
    "conv_forward",
    "im2col",
    "linear",
    "linear_backward",
    "plan",
]
