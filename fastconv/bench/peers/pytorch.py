"""PyTorch on the CPU: with NCHW tensors, as fastconv has arrays, and with the channels_last layout.

Gradients of one input are asked of the operators that autograd itself calls, so that nothing but the kernel
is timed; losses run through autograd, which is how their gradient is had.
"""

from .. import networks
from ..problems import RESPONSE_NORM
from . import torch_networks
from .base import Implementation, Refused, symmetric


class Torch(Implementation):
    name, title = "torch", "PyTorch NCHW"
    packages = ("torch",)
    last = False  # tensors in channels_last

    def setup(self, threads):
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch, self.F, self.aten = torch, torch.nn.functional, torch.ops.aten

    def tensor(self, array):
        return None if array is None else self.torch.from_numpy(array)

    def prepare(self, problem, direction, arrays):
        return super().prepare(problem, direction, {name: self.tensor(a) for name, a in arrays.items()})

    def results(self, result):
        result = result if isinstance(result, (tuple, list)) else [result]
        return [r.detach().contiguous().numpy() for r in result if r is not None]

    def conv(self, problem, direction, x, weight, bias, dy):
        options = problem.options
        if options.get("padding_mode", "zeros") != "zeros":
            raise Refused("pads with zeros only, without a padded copy")
        stride, dilation, groups = options["stride"], options["dilation"], options["groups"]
        padding, extra = symmetric(options["padding"]), options.get("output_padding", (0,) * problem.ndim)
        if direction == "forward":
            function = getattr(self.F, problem.op)
            if problem.transposed:
                return lambda: function(x, weight, bias, stride, padding, extra, groups, dilation)
            if problem.problem.activation is None:
                return lambda: function(x, weight, bias, stride, padding, dilation, groups)
            activation = getattr(self.F, problem.problem.activation)
            return lambda: activation(function(x, weight, bias, stride, padding, dilation, groups))
        if not problem.problem.batched:
            x, dy = x[None], dy[None]
        mask = [True, False, False] if direction == "backward_input" else [False, True, True]
        shape = ([dy.shape[1]], stride, padding, dilation, problem.transposed, extra, groups, mask)
        return lambda: self.aten.convolution_backward(dy, x, weight, *shape)

    def pool(self, problem, direction, x, dy):
        o, ndim = problem.options, problem.ndim
        if problem.problem.adaptive:
            function = getattr(self.F, problem.op)
            if direction == "forward":
                return lambda: function(x, o["output_size"])
            if problem.op != "adaptive_avg_pool2d":
                return None
            return lambda: self.aten._adaptive_avg_pool2d_backward(dy, x)
        padding, function = symmetric(o["padding"]), getattr(self.F, problem.op)
        window = (o["kernel_size"], o["stride"], padding)
        if any(p > k // 2 for p, k in zip(padding, o["kernel_size"])):
            raise Refused("pads at most half the window")
        if "max" in problem.op:
            if direction == "forward":
                return lambda: function(x, *window, o["dilation"], o["ceil_mode"])
            if ndim != 2:
                return None
            options = (*window, o["dilation"], o["ceil_mode"])
            indices = self.aten.max_pool2d_with_indices(x, *options)[1]
            return lambda: self.aten.max_pool2d_with_indices_backward(dy, x, *options, indices)
        if set(o["dilation"]) != {1}:
            raise Refused("averages without dilation only")
        if direction == "forward":
            if ndim == 1:
                if o["divisor_override"]:
                    raise Refused("no divisor in one dimension")
                return lambda: function(x, *window, o["ceil_mode"], o["count_include_pad"])
            how = (o["ceil_mode"], o["count_include_pad"], o["divisor_override"])
            return lambda: function(x, *window, *how)
        if ndim != 2:
            return None
        options = (*window, o["ceil_mode"], o["count_include_pad"], o["divisor_override"])
        return lambda: self.aten.avg_pool2d_backward(dy, x, *options)

    def linear(self, problem, direction, x, weight, bias, dy):
        if direction == "forward":
            return lambda: self.F.linear(x, weight, bias)
        return lambda: (dy @ weight, dy.t() @ x, dy.sum(0))

    def activation(self, problem, direction, x, dy):
        op, aten = problem.op, self.aten
        if "softmax" in op:
            forward = getattr(self.torch, op)
            if direction == "forward":
                return lambda: forward(x, -1)
            y, backward = forward(x, -1), getattr(aten, f"_{op}_backward_data")
            return lambda: backward(dy, y, -1, x.dtype)
        forward = getattr(self.F, op)
        if direction == "forward":
            return lambda: forward(x)
        y = forward(x)
        return {
            "relu": lambda: aten.threshold_backward(dy, y, 0),
            "leaky_relu": lambda: aten.leaky_relu_backward(dy, y, 0.01, True),
            "elu": lambda: aten.elu_backward(dy, 1.0, 1, 1, True, y),
            "sigmoid": lambda: aten.sigmoid_backward(dy, y),
            "tanh": lambda: aten.tanh_backward(dy, y),
        }[op]

    def loss(self, problem, direction, x, target):
        function = {
            "softmax_cross_entropy": self.F.cross_entropy,
            "sigmoid_cross_entropy": self.F.binary_cross_entropy_with_logits,
            "squared_error": self.F.mse_loss,
        }.get(problem.op)
        if function is None:  # multi_margin_loss divides by the number of classes
            return None
        x.requires_grad_()

        def call():
            with self.torch.enable_grad():
                value = function(x, target)
                return value, self.torch.autograd.grad(value, x)[0]

        return call

    def norm(self, problem, direction, x, dy, weight=None, bias=None):
        if problem.op == "local_response_norm":
            if direction == "forward":
                return lambda: self.F.local_response_norm(x, **RESPONSE_NORM)
            x.requires_grad_()
            with self.torch.enable_grad():
                y = self.F.local_response_norm(x, **RESPONSE_NORM)
            return lambda: self.torch.autograd.grad(y, x, dy, retain_graph=True)[0]
        mean, var = self.torch.zeros_like(weight), self.torch.ones_like(weight)
        if direction == "forward":
            return lambda: self.F.batch_norm(x, mean, var, weight, bias, training=True)
        _, saved, inverse = self.aten.native_batch_norm(x, weight, bias, mean, var, True, 0.1, 1e-5)
        return lambda: self.aten.native_batch_norm_backward(
            dy, x, weight, mean, var, saved, inverse, True, 1e-5, [True, True, True]
        )

    def network(self, problem, direction, x, target):
        return torch_networks.call(self.torch, problem, direction, x, target, networks.RATE, self.last)


class TorchChannelsLast(Torch):
    """The same with tensors in NHWC memory, which it prefers; they come that way, at no cost."""

    name, title = "torch_channels_last", "PyTorch channels_last"
    last = True

    def tensor(self, array):
        tensor = super().tensor(array)
        formats = {4: self.torch.channels_last, 5: self.torch.channels_last_3d}
        if tensor is None or tensor.ndim not in formats:
            return tensor
        return tensor.contiguous(memory_format=formats[tensor.ndim])

    def prepare(self, problem, direction, arrays):
        images_only(problem, arrays)
        return super().prepare(problem, direction, arrays)


def images_only(problem, arrays):
    """Refuses what has no channels to be last."""
    if problem.family not in ("conv", "pool", "norm", "network") or arrays["x"].ndim not in (4, 5):
        raise Refused("images and volumes only")
