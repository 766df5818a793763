"""The device's backend: the functions of `fastconv._reference` and `fastconv._cpu`, on arrays of a device.

Rooms hold what decides (which algorithm, what to allocate) and what prepares (views, copies of what must be
contiguous); kernels are in `fastconv.cuda.simple` and beside it. All of a call's work is queued on the
caller's current stream, and nothing waits for it, except where targets or indices are checked (see
`fastconv.cuda.deferred_checks`). Losses are arrays without axes on the device, since a Python number would
make the host wait.
"""

from .._replay import replayed
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
from .loss import (
    hinge,
    nll,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)
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

# What a function launches is fixed by the layouts of its arrays and by its other arguments, but for a mask,
# which depends on the state of its generator.
globals().update(
    {name: replayed(globals()[name]) for name in __all__ if name not in ("algorithms", "dropout_mask", "plan")}
)
