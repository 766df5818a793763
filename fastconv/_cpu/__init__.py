"""The compiled backend: the backend functions of all its rooms under one roof.

Rooms hold what decides (which algorithm, how much to allocate); the work is in the kernel module of the active
instruction-set level, see `isa`.
"""

from .algorithms import algorithms, plan
from .conv import (
    col2im,
    conv_backward_input,
    conv_backward_weight,
    conv_backward_weight_bias,
    conv_forward,
    im2col,
)
from .dense import linear, linear_backward
from .elementwise import (
    activation,
    activation_backward,
    dropout,
    dropout_backward,
    dropout_mask,
    maxout,
    maxout_backward,
    softmax,
    softmax_backward,
)
from .loss import hinge, nll, sigmoid_cross_entropy, softmax_cross_entropy, squared_error
from .norm import (
    batch_norm,
    batch_norm_backward,
    channel_sum,
    local_response_norm,
    local_response_norm_backward,
)
from .pool import avg_pool, avg_pool_backward, max_pool, max_pool_backward

__all__ = [
    "activation",
    "activation_backward",
    "algorithms",
    "avg_pool",
    "avg_pool_backward",
    "batch_norm",
    "batch_norm_backward",
    "channel_sum",
    "col2im",
    "conv_backward_input",
    "conv_backward_weight",
    "conv_backward_weight_bias",
    "conv_forward",
    "dropout",
    "dropout_backward",
    "dropout_mask",
    "hinge",
    "im2col",
    "linear",
    "linear_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "max_pool",
    "max_pool_backward",
    "maxout",
    "maxout_backward",
    "nll",
    "plan",
    "sigmoid_cross_entropy",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "squared_error",
]
