"""Whole networks as problems: LeNet-5, and stacks of the layers in `layers`, forward and a step of training.

A stack is its convolutions in order, each with ReLU; where the next one takes a smaller image than the last
one made, a maximum pool stands between. A linear layer to ten classes ends it.
"""

import re

import numpy as np

import fastconv

from .layers import GROUPS
from .problems import Problem, parse

CLASSES = 10
LENET, BOTTLENECK = "lenet5", "resnet_block"

# name -> labels of its convolutions in order
STACKS = {
    "alexnet": "alex1 alex2_valid alex3_valid alex4_valid alex5_valid",
    "zfnet": "zf1 zf2 zf3 zf4 zf5",
    "vgg16": "vgg1_1 vgg1_2 vgg2_1 vgg2_2 vgg3_1 vgg3_2 vgg3_2 vgg4_1 vgg4_2 vgg4_2 vgg5 vgg5 vgg5",
    BOTTLENECK: "res_1x1b res2_3x3 res_1x1a",  # with batch norm, and the input added at the end
}
NAMES = (LENET, *STACKS)
LISTED = {LENET: 64, "alexnet": 8, "zfnet": 8, "vgg16": 4, BOTTLENECK: 8}  # samples, as in `layers`


class Network(Problem):
    """A whole network on a batch of N images.

    directions: "forward" (prediction) and "step": prediction, loss, all gradients and an update of all
    weights, which is what an epoch repeats.
    """

    family = "network"
    directions = ("forward", "step")

    def __init__(self, op, N, dtype, label="", group="given"):
        super().__init__(f"{op}:n{N}_f{8 * np.dtype(dtype).itemsize}", op, dtype, label, group)
        self.N = N
        self.layers = _layers(op, N)
        self.x_shape = (N, 1, 32, 32) if op == LENET else (N, *self.layers[0].x_shape[1:])

    def _arrays(self, draw):
        return {"x": draw(*self.x_shape), "target": draw.rng.integers(0, CLASSES, self.N)}

    def model(self, dtype=None):
        """The network with the same weights whenever it is made."""
        dtype, rng = self.dtype if dtype is None else dtype, np.random.default_rng(0)
        if self.op == LENET:
            return _cast(fastconv.models.lenet5(dtype=self.dtype, rng=rng), dtype)
        return _cast(_stacked(self.op, self.layers, self.dtype, rng), dtype)

    def flops(self, direction):
        """Of the convolutions and linear layers as plain sums; a step costs three times the prediction."""
        total = sum(layer.flops("forward") for layer in self.layers)
        return total if direction == "forward" else 3 * total

    def traffic(self, direction):
        """Of the layers in `flops`, each alone: what a network must move that keeps nothing in a cache."""
        if direction == "forward":
            return sum(layer.traffic("forward") for layer in self.layers)
        return sum(layer.traffic(d) for layer in self.layers for d in layer.directions)

    def length(self, direction):
        """Of all its sums together: errors of a layer go through the next ones."""
        if direction == "forward":
            return sum(layer.length("forward") for layer in self.layers)
        return sum(max(layer.length(d) for d in layer.directions) for layer in self.layers)

    def jumps(self, direction):
        return direction == "step"

    @property
    def depth(self):
        return len(self.layers)


def _layers(op, N):
    """The convolutions and linear layers of a network as problems of N samples."""
    if op == LENET:
        dense = [f"linear:{N}x{a}x{b}_f32" for a, b in ((400, 120), (120, 84), (84, CLASSES))]
        return [*_convolutions(("lenet1", "lenet2"), N), *map(parse, dense)]
    return _convolutions(STACKS[op].split(), N)


def _convolutions(labels, N):
    """Listed layers with a batch of N."""
    listed = {label: name for group in GROUPS.values() for label, name in group.items()}
    return [parse(re.sub(r":n\d+", f":n{N}", listed[label])) for label in labels]


def _stacked(op, layers, dtype, rng):
    nn, made, size = fastconv.nn, [], layers[0].x_shape[2]
    for number, layer in enumerate(layers):
        p = layer.problem
        if number and size != p.size[1]:
            made.append(_pool(size, p.size[1]))
        how = {"stride": p.stride[1:], "padding": p.pad_low[1:], "bias": p.bias}
        made.append(nn.Conv2d(p.C, p.K, p.kernel[1:], **how, dtype=dtype, rng=rng))
        if op == BOTTLENECK:
            made.append(nn.BatchNorm2d(p.K, dtype=dtype))
        if op != BOTTLENECK or layer is not layers[-1]:
            made.append(nn.ReLU())
        size, channels = p.out[1], p.K
    if op == BOTTLENECK:
        made = [nn.Residual(nn.Sequential(*made)), nn.ReLU()]
    made += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES, dtype=dtype, rng=rng)]
    return nn.Sequential(*made)


def _pool(size, wanted):
    """The maximum pool that leads from one size to the next: 2x2, or 3x3 at every other place."""
    for kernel, padding in ((2, 0), (3, 0), (3, 1)):
        if (size + 2 * padding - kernel) // 2 + 1 == wanted and (size % 2 == 0 or kernel == 3):
            return fastconv.nn.MaxPool2d(kernel, 2, padding)
    raise ValueError(f"bench: no pool leads from {size} to {wanted} pixels")


def _cast(model, dtype):
    """The model in another dtype, with the same values."""
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(dtype)
    for module in dict(model.named_modules()).values():
        for name in module._buffer_names:
            value = getattr(module, name)
            if value is not None and value.dtype.kind == "f":
                setattr(module, name, value.astype(dtype))
    return model


# -- what is timed, and what it should give ------------------------------------------------------------------

RATE = 1e-6  # of learning: weights hardly move, so that every step of a measurement costs the same


def call(problem, direction, x, target, move=lambda model: model):
    """The call to be timed; `move` brings the model where the arrays are."""
    model = move(problem.model())
    if direction == "forward":
        return lambda: model(x)
    nn, optimizer = fastconv.nn, fastconv.optim.SGD(model.parameters(), RATE)
    criterion = nn.CrossEntropyLoss()

    def step():
        optimizer.zero_grad()
        logits, backward = model.forward(x)
        loss, dlogits = criterion(logits, target)
        backward(dlogits)
        optimizer.step()
        return loss, logits, *(parameter.grad for parameter in model.parameters())

    return step


def expected(problem, direction):
    """The results in float64: by the compiled kernels, since nothing else would end in time.

    Each of them is compared with the naive reference by `fastconv check`.
    """
    arrays = problem.arrays()
    wide = Network(problem.op, problem.N, np.float64)
    wide.model = lambda: problem.model(np.float64)
    found = call(wide, direction, arrays["x"].astype(np.float64), arrays["target"])()
    return [np.asarray(a) for a in (found if isinstance(found, tuple) else (found,))]
