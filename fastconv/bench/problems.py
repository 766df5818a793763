"""Problems: one operation at one size, with its arrays, cost and one-line name. Nothing is timed here.

`parse` reads a one-line name, `select` turns words (groups, labels, one-line names) into problems.
Convolution and pooling are named as everywhere in fastconv (``conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32``);
the other operations by the shape they work on (``relu:8x64x56x56_f32``), a linear layer as samples x inputs
x outputs.
"""

import difflib
import math
import re
import zlib

import numpy as np

from .._problem import ConvProblem, PoolProblem
from .layers import CONVOLUTIONS, CORE, GROUPS, OTHERS

LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "squared_error", "hinge")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softmax", "log_softmax")
NORMS = ("batch_norm", "local_response_norm")
RESPONSE_NORM = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}  # AlexNet's


class Problem:
    """One operation at one size.

    name: the one line that says it all; label, group: where it comes from ("" and "given" for one's own).
    op: the public function, or the network; family: "conv", "pool", "activation", "loss", "norm", "linear" or
        (see networks.py) "network"; dtype.
    directions: what there is to time: "forward"; "backward_input" and "backward_weight" (with the bias) of
        convolutions; "backward" of other operations (all gradients); "loss" (value and gradient, as one
        call), "step" (one of training a network).
    """

    family = ""
    directions = ("forward", "backward")
    depth = 1  # layers that an error goes through

    def __init__(self, name, op, dtype, label="", group="given"):
        self.name, self.op, self.dtype = name, op, np.dtype(dtype)
        self.label, self.group = label, group

    def __repr__(self):
        return f"<{self.label or self.name}>"

    def arrays(self):
        """The inputs by name (x, weight, bias, dy, target), as it needs them; the same in every process."""
        draw = _Draw(self.name, self.dtype)
        return self._arrays(draw)

    def flops(self, direction):
        """Multiplications and additions of the direct sum; 0 where the operation is bound by memory."""
        return 0

    def facts(self, direction):
        """What a report says of a direction, whoever computes it."""
        return {
            "problem": self.name,
            "label": self.label,
            "group": self.group,
            "family": self.family,
            "dtype": self.dtype.name,
            "direction": direction,
            "flops": self.flops(direction),
            "bytes": self.traffic(direction),
        }

    def traffic(self, direction):
        """Bytes that must move at least: every input read once, every result written once."""
        raise NotImplementedError

    def length(self, direction):
        """How many terms a result sums: what its rounding error is measured by."""
        return 1

    def jumps(self, direction):
        """Whether rounding of something in between (a maximum) may change single results altogether."""
        return False


class _Draw:
    """Normal random numbers of one dtype, seeded by a problem's name."""

    def __init__(self, name, dtype):
        self.rng, self.dtype = np.random.default_rng(zlib.crc32(name.encode())), dtype

    def __call__(self, *shape, scale=1.0):
        return self.rng.standard_normal(shape, self.dtype) * self.dtype.type(scale)


class Convolution(Problem):
    """conv{n}d or conv_transpose{n}d.

    problem: the ConvProblem, for a transposed convolution that of the ordinary one it is the adjoint of;
    x_shape, y_shape, weight_shape: as the user sees them; options: keyword arguments of the public function.
    """

    family = "conv"
    directions = ("forward", "backward_input", "backward_weight")

    def __init__(self, problem, options, label="", group="given"):
        super().__init__(problem.name, problem.op, problem.dtype, label, group)
        self.problem, self.options, self.ndim = problem, options, problem.ndim
        self.transposed = problem.op.startswith("conv_transpose")
        shapes = (problem.x_shape, problem.y_shape)
        self.x_shape, self.y_shape = shapes[::-1] if self.transposed else shapes
        self.weight_shape = problem.weight_shape

    def _arrays(self, draw):
        fan_in = self.length("forward")
        channels = self.y_shape[-self.ndim - 1]
        return {
            "x": draw(*self.x_shape),
            "weight": draw(*self.weight_shape, scale=fan_in**-0.5),
            "bias": draw(channels) if self.problem.bias else None,
            "dy": draw(*self.y_shape),
        }

    def flops(self, direction):
        return self.problem.flops

    def traffic(self, direction):
        shapes = (self.x_shape, self.y_shape, self.weight_shape)
        return sum(math.prod(shape) for shape in shapes) * self.dtype.itemsize

    def length(self, direction):
        p = self.problem
        if direction == "backward_weight":
            return p.N * math.prod(p.out)
        across = p.K if (direction == "forward") == self.transposed else p.C
        return across // p.groups * p.taps


class Pool(Problem):
    """max_pool{n}d, avg_pool{n}d or an adaptive pool."""

    family = "pool"

    def __init__(self, problem, options, label="", group="given"):
        super().__init__(problem.name, problem.op, problem.dtype, label, group)
        self.problem, self.options, self.ndim = problem, options, problem.ndim

    def _arrays(self, draw):
        return {"x": draw(*self.problem.x_shape), "dy": draw(*self.problem.y_shape)}

    def traffic(self, direction):
        x, y = math.prod(self.problem.x_shape), math.prod(self.problem.y_shape)
        indices = 8 * y if "max" in self.op and direction == "backward" else 0
        return (x + y) * self.dtype.itemsize + indices

    def length(self, direction):
        return math.prod(self.problem.kernel)


class Linear(Problem):
    """linear: N samples of `inputs` features to `outputs` features."""

    family = "linear"

    def __init__(self, shape, dtype, label="", group="given"):
        super().__init__(_plain_name("linear", shape, dtype), "linear", dtype, label, group)
        self.N, self.inputs, self.outputs = self.shape = shape

    def _arrays(self, draw):
        return {
            "x": draw(self.N, self.inputs),
            "weight": draw(self.outputs, self.inputs, scale=self.inputs**-0.5),
            "bias": draw(self.outputs),
            "dy": draw(self.N, self.outputs),
        }

    def flops(self, direction):
        return (2 if direction == "forward" else 4) * math.prod(self.shape)

    def traffic(self, direction):
        x, y, weight = self.N * self.inputs, self.N * self.outputs, self.inputs * self.outputs
        return (x + y + weight if direction == "forward" else 2 * x + y + 2 * weight) * self.dtype.itemsize

    def length(self, direction):
        return self.inputs if direction == "forward" else max(self.outputs, self.N)


class Plain(Problem):
    """An operation that a shape describes: activations, losses, norms."""

    def __init__(self, op, shape, dtype, label="", group="given"):
        super().__init__(_plain_name(op, shape, dtype), op, dtype, label, group)
        self.shape = shape
        self.family = "loss" if op in LOSSES else "norm" if op in NORMS else "activation"
        self.directions = ("loss",) if op in LOSSES else ("forward", "backward")

    def _arrays(self, draw):
        x = draw(*self.shape)
        if self.family == "loss":
            return {"x": x, "target": self._target(draw)}
        if self.op == "batch_norm":
            return {
                "x": x,
                "weight": draw(self.shape[1]),
                "bias": draw(self.shape[1]),
                "dy": draw(*self.shape),
            }
        return {"x": x, "dy": draw(*self.shape)}

    def _target(self, draw):
        if self.op in ("softmax_cross_entropy", "hinge"):
            return draw.rng.integers(0, self.shape[1], self.shape[0])
        if self.op == "sigmoid_cross_entropy":
            return draw.rng.integers(0, 2, self.shape).astype(self.dtype)
        return draw(*self.shape)

    def traffic(self, direction):
        arrays = {
            "forward": 2,
            "backward": 3,
            "loss": 2 + (self.op in ("sigmoid_cross_entropy", "squared_error")),
        }
        return arrays[direction] * math.prod(self.shape) * self.dtype.itemsize

    def length(self, direction):
        if self.op == "batch_norm":
            return math.prod(self.shape) // self.shape[1]
        if self.op == "local_response_norm":
            return RESPONSE_NORM["size"]
        if self.op in ("squared_error", "sigmoid_cross_entropy"):
            return math.prod(self.shape)
        return self.shape[-1] if "softmax" in self.op or self.op == "hinge" else 1


def _plain_name(op, shape, dtype):
    return f"{op}:{'x'.join(map(str, shape))}_f{8 * np.dtype(dtype).itemsize}"


# -- from words to problems ----------------------------------------------------------------------------------

_CONV = re.compile(
    r"(?P<op>conv(?P<transpose>_transpose)?(?P<ndim>[123])d):(?:n(?P<n>\d+))?c(?P<c>\d+)(?P<size>(?:[dhw]\d+)+)"
    r"k(?P<k>\d+)(?P<kernel>(?:[trs]\d+)+)_st(?P<stride>[\dx]+)p(?P<padding>[\dx-]+)(?:op(?P<spare>[\dx]+))?"
    r"d(?P<dilation>[\dx]+)g(?P<groups>\d+)_f(?P<bits>32|64)(?:_(?P<mode>reflect|replicate|circular))?"
    r"(?P<bias>_bias)?(?:_(?P<activation>relu|leaky_relu|sigmoid|tanh))?"
)
_POOL = re.compile(
    r"(?P<op>(?:max|avg)_pool(?P<ndim>[123])d):(?:n(?P<n>\d+))?c(?P<c>\d+)(?P<size>(?:[dhw]\d+)+)"
    r"(?P<kernel>(?:[trs]\d+)+)_st(?P<stride>[\dx]+)p(?P<padding>[\dx-]+)d(?P<dilation>[\dx]+)"
    r"(?P<ceil>_o[\dx]+)?_f(?P<bits>32|64)(?P<nopad>_nopad)?(?:_div(?P<divisor>-?\d+))?"
)
_ADAPTIVE = re.compile(
    r"(?P<op>adaptive_(?:max|avg)_pool(?P<ndim>[123])d):(?:n(?P<n>\d+))?c(?P<c>\d+)(?P<size>(?:[dhw]\d+)+)"
    r"_o(?P<out>[\dx]+)_f(?P<bits>32|64)"
)
_NETWORK = re.compile(r"(?P<op>[a-z]\w*):n(?P<n>[1-9]\d*)_f(?P<bits>32|64)")
_PLAIN = re.compile(r"(?P<op>[a-z_]+):(?P<shape>\d+(?:x\d+)*)_f(?P<bits>32|64)")


def parse(name, label="", group="given"):
    """The Problem of a one-line name; ValueError if it is none, or if its sizes do not fit together."""
    kinds = (_CONV, _conv), (_POOL, _pool), (_ADAPTIVE, _adaptive), (_PLAIN, _plain), (_NETWORK, _network)
    for pattern, make in kinds:
        match = pattern.fullmatch(name)
        if match:
            problem = make(match, label, group)
            if problem.name != name:
                raise ValueError(f"bench: {name!r} is written {problem.name!r}")
            return problem
    raise ValueError(
        f"bench: {name!r} is not a one-line name, such as 'conv2d:n8c64h56w56k64r3s3_st1p1d1g1_f32',"
        " 'max_pool2d:n8c64h56w56r2s2_st2p0d1_f32', 'relu:8x64x56x56_f32', 'linear:64x400x120_f32' or"
        " 'lenet5:n64_f32'"
    )


def _numbers(text):
    return tuple(map(int, re.findall(r"\d+", text)))


def _each(text, ndim):
    """One value per axis from "2" or "2x1"."""
    values = _numbers(text)
    return values * ndim if len(values) == 1 else values


def _pairs(text, ndim):
    """One (low, high) per axis from "1", "1x2", "1-0" or "1-0x2"."""
    sides = [axis.split("-") for axis in text.split("x")]
    pairs = tuple((int(side[0]), int(side[-1])) for side in sides)
    return pairs * ndim if len(pairs) == 1 else pairs


def hidden(shape, dtype):
    """An array of any shape that takes no memory, for the parser of problems to look at."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _batch(match):
    return () if match["n"] is None else (int(match["n"]),)


def _conv(match, label, group):
    ndim, dtype = int(match["ndim"]), f"f{int(match['bits']) // 8}"
    c, k, groups = map(int, match.group("c", "k", "groups"))
    rows, columns = (c, k // max(groups, 1)) if match["transpose"] else (k, c // max(groups, 1))
    x = hidden((*_batch(match), c, *_numbers(match["size"])), dtype)
    weight = hidden((rows, columns, *_numbers(match["kernel"])), dtype)
    bias = hidden((k,), dtype) if match["bias"] else None
    options = {
        "stride": _each(match["stride"], ndim),
        "padding": _pairs(match["padding"], ndim),
        "dilation": _each(match["dilation"], ndim),
        "groups": groups,
    }
    if match["transpose"]:
        if match["spare"]:
            options["output_padding"] = _each(match["spare"], ndim)
        problem = ConvProblem.of_transpose(x, weight, bias, **options, ndim=ndim, op=match["op"])
    else:
        if match["mode"]:
            options["padding_mode"] = match["mode"]
        problem = ConvProblem.of(
            x, weight, bias, **options, activation=match["activation"], ndim=ndim, op=match["op"]
        )
    return Convolution(problem, options, label, group)


def _pool(match, label, group):
    ndim = int(match["ndim"])
    x = hidden((*_batch(match), int(match["c"]), *_numbers(match["size"])), f"f{int(match['bits']) // 8}")
    options = {
        "kernel_size": _numbers(match["kernel"]),
        "stride": _each(match["stride"], ndim),
        "padding": _pairs(match["padding"], ndim),
        "dilation": _each(match["dilation"], ndim),
        "ceil_mode": match["ceil"] is not None,
    }
    if match["op"].startswith("avg"):
        options["count_include_pad"] = match["nopad"] is None
        options["divisor_override"] = match["divisor"] and int(match["divisor"])
    return Pool(PoolProblem.of(x, **options, ndim=ndim, op=match["op"]), options, label, group)


def _adaptive(match, label, group):
    x = hidden((*_batch(match), int(match["c"]), *_numbers(match["size"])), f"f{int(match['bits']) // 8}")
    options = {"output_size": _numbers(match["out"])}
    problem = PoolProblem.of_adaptive(x, **options, ndim=int(match["ndim"]), op=match["op"])
    return Pool(problem, options, label, group)


def _plain(match, label, group):
    op, shape, dtype = match["op"], _numbers(match["shape"]), f"f{int(match['bits']) // 8}"
    if op == "linear" and len(shape) == 3:
        return Linear(shape, dtype, label, group)
    if op in ACTIVATIONS or (op in LOSSES and len(shape) == 2) or (op in NORMS and len(shape) > 2):
        return Plain(op, shape, dtype, label, group)
    known = ", ".join(sorted((*ACTIVATIONS, *LOSSES, *NORMS, "linear")))
    raise ValueError(
        f"bench: {match[0]!r} names no operation and shape that can be measured (need one of {known})"
    )


def _network(match, label, group):
    from . import networks  # made of problems itself

    if match["op"] not in networks.NAMES:
        known = ", ".join(networks.NAMES)
        raise ValueError(f"bench: {match['op']!r} in {match[0]!r} is no network (need one of {known})")
    return networks.Network(match["op"], int(match["n"]), f"f{int(match['bits']) // 8}", label, group)


def whole_networks():
    """The networks that are listed: label -> one-line name. "all" does without them: they have no peers."""
    from .networks import LISTED

    return {f"net_{op}": f"{op}:n{N}_f32" for op, N in LISTED.items()}


def groups():
    """Group name -> labels: the lists in `layers`, "core", "convolutions" and "others", made of them, and
    "networks", which are whole ones."""
    made = {name: tuple(labels) for name, labels in GROUPS.items()}
    return {
        **made,
        "core": tuple(CORE),
        "convolutions": tuple(label for g in CONVOLUTIONS for label in GROUPS[g]),
        "others": tuple(label for g in OTHERS for label in GROUPS[g]),
        "networks": tuple(whole_networks()),
    }


def select(words):
    """Problems named by words, in their order and each once: groups, labels, one-line names, or "all"."""
    labels = {label: (name, group) for group, entries in GROUPS.items() for label, name in entries.items()}
    every = list(labels)
    labels |= {label: (name, "networks") for label, name in whole_networks().items()}
    named, chosen = groups(), {}
    for word in words:
        if ":" in word:
            found = [parse(word)]
        elif word == "all" or word in named:
            found = [parse(*_labelled(labels, label)) for label in (every if word == "all" else named[word])]
        elif word in labels:
            found = [parse(*_labelled(labels, word))]
        else:
            near = difflib.get_close_matches(word, [*named, *labels], 3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ValueError(
                f"bench: {word!r} is no group, label or one-line name (groups: {', '.join(named)}){hint}"
            )
        for problem in found:
            chosen.setdefault(problem.name, problem)
    return list(chosen.values())


def _labelled(labels, label):
    name, group = labels[label]
    return name, label, group
