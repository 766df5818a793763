"""fastconv itself, by "auto" and by each named algorithm, and its naive reference."""

import importlib

import fastconv

from ..._errors import UnsupportedError
from .. import networks
from ..problems import RESPONSE_NORM, hidden
from .base import Implementation, Refused


class Fastconv(Implementation):
    """The public functions, as users call them. `algorithm` is "auto" or a name."""

    packages = ("numpy",)
    namespace = "fastconv"

    def __init__(self, algorithm="auto"):
        self.algorithm = algorithm
        self.name = "fastconv" if algorithm == "auto" else f"fastconv:{algorithm}"
        self.title = self.name.replace(":", " ")

    def versions(self):
        return {"fastconv": fastconv.__version__, **super().versions()}

    def setup(self, threads):
        fastconv.set_num_threads(threads)

    def prepare(self, problem, direction, arrays):
        if self.algorithm != "auto" and problem.family != "conv":
            raise Refused("has one algorithm only")
        self.fc = importlib.import_module(self.namespace)
        return super().prepare(problem, direction, arrays)

    def results(self, result):
        return [r for r in result if r is not None] if isinstance(result, tuple) else [result]

    def facts(self, problem, direction):
        if problem.family != "conv":
            return {}
        plan = self._plan(problem, direction)
        return {"algorithm": plan.algorithm, "scratch_bytes": plan.scratch_bytes}

    def _plan(self, problem, direction):
        op = problem.op if direction == "forward" else f"{problem.op}_{direction}"
        how = {} if problem.transposed else {"activation": problem.problem.activation}
        arrays = (hidden(shape, problem.dtype) for shape in (problem.x_shape, problem.weight_shape))
        return fastconv.plan(op, *arrays, **problem.options, **how, algorithm=self.algorithm)

    def conv(self, problem, direction, x, weight, bias, dy):
        options = dict(problem.options)
        forward, backward = getattr(self.fc, problem.op), getattr(self.fc, f"{problem.op}_backward")
        if self.algorithm != "auto":
            if problem.transposed:
                raise Refused("transposed convolution chooses for itself")
            options["algorithm"] = self.algorithm
            try:
                self._plan(problem, direction)
            except UnsupportedError as refusal:
                raise Refused(str(refusal).partition(f"{self.algorithm!r} ")[2]) from None
        if direction == "forward":
            if not problem.transposed:
                options["activation"] = problem.problem.activation
            return lambda: forward(x, weight, bias, **options)
        options.pop("output_padding", None)
        mask = (True, False, False) if direction == "backward_input" else (False, True, True)
        return lambda: backward(dy, x, weight, **options, output_mask=mask)

    def pool(self, problem, direction, x, dy):
        options = problem.options
        forward, backward = getattr(self.fc, problem.op), getattr(self.fc, f"{problem.op}_backward")
        if direction == "forward":
            return lambda: forward(x, **options)
        if "max" in problem.op:
            indices = forward(x, **options, return_indices=True)[1]
            return lambda: backward(dy, indices, x.shape)
        if problem.problem.adaptive:
            return lambda: backward(dy, x.shape)
        return lambda: backward(dy, x.shape, **options)

    def linear(self, problem, direction, x, weight, bias, dy):
        if direction == "forward":
            return lambda: self.fc.linear(x, weight, bias)
        return lambda: self.fc.linear_backward(dy, x, weight)

    def activation(self, problem, direction, x, dy):
        forward, backward = getattr(self.fc, problem.op), getattr(self.fc, f"{problem.op}_backward")
        if direction == "forward":
            return lambda: forward(x)
        y = forward(x)
        return lambda: backward(dy, y)

    def loss(self, problem, direction, x, target):
        function = getattr(self.fc, problem.op)
        return lambda: function(x, target)

    def norm(self, problem, direction, x, dy, weight=None, bias=None):
        fc = self.fc
        if problem.op == "local_response_norm":
            if direction == "forward":
                return lambda: fc.local_response_norm(x, **RESPONSE_NORM)
            return lambda: fc.local_response_norm_backward(dy, x, **RESPONSE_NORM)
        if direction == "backward":
            return lambda: fc.batch_norm_backward(dy, x, weight)
        mean, var = 0 * weight, 0 * weight + 1
        return lambda: fc.batch_norm(x, weight, bias, mean, var, training=True)

    def network(self, problem, direction, x, target):
        return networks.call(problem, direction, x, target)


class Reference(Fastconv):
    """The naive definition: what small problems cost without compiled kernels."""

    name, title = "reference", "naive reference"
    namespace = "fastconv.reference"
    most_flops = 4e6
    algorithm = "auto"

    def __init__(self):
        pass

    def prepare(self, problem, direction, arrays):
        if problem.traffic(direction) > 4e6:
            raise Refused("would take long (more than 4 MB)")
        return super().prepare(problem, direction, arrays)

    def network(self, problem, direction, x, target):
        return None

    def facts(self, problem, direction):
        return {}
