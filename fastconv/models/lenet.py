"""LeNet-5."""

import numpy as np

from .. import nn

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
_POOLS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def lenet5(
    num_classes=10,
    in_channels=1,
    input_size=32,
    *,
    activation="relu",
    pool="max",
    dropout=0.0,
    dtype=np.float32,
    rng=None,
):
    """LeNet-5: 5x5 convolutions with 6 and 16 filters, each pooled by 2, layers of 120, 84, `num_classes`.

    With 32x32 images of one channel the weights number 150, 2400, 48000, 10080 and 840, without biases.
    Smaller images are padded or enlarged to `input_size` first (`fastconv.data.resize`). The original used
    tanh and averages; ReLU and maxima are today's habit and learn faster. `dropout` acts behind the layers of
    120 and 84.

    Takes `(N, in_channels, input_size, input_size)`, returns logits `(N, num_classes)`.
    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition" (1998).
    """
    if activation not in _ACTIVATIONS or pool not in _POOLS:
        raise ValueError(
            f"lenet5: activation is {activation!r}, pool {pool!r} "
            f"(need one of {', '.join(_ACTIVATIONS)}; one of {', '.join(_POOLS)})"
        )
    side = ((input_size - 4) // 2 - 4) // 2
    if side < 1:
        raise ValueError(f"lenet5: input_size is {input_size} (need >= 16)")
    act, pooling = _ACTIVATIONS[activation], _POOLS[pool]
    rng = np.random.default_rng(rng)
    made = dict(dtype=dtype, rng=rng)
    return nn.Sequential(
        dict(
            conv1=nn.Conv2d(in_channels, 6, 5, **made),
            act1=act(),
            pool1=pooling(2),
            conv2=nn.Conv2d(6, 16, 5, **made),
            act2=act(),
            pool2=pooling(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * side * side, 120, **made),
            act3=act(),
            dropout1=nn.Dropout(dropout, rng=rng),
            fc2=nn.Linear(120, 84, **made),
            act4=act(),
            dropout2=nn.Dropout(dropout, rng=rng),
            fc3=nn.Linear(84, num_classes, **made),
        )
    )
