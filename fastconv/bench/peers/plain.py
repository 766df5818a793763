"""What one writes without a library for it: NumPy (im2col and a matrix product) and SciPy."""

import numpy as np

from .base import Implementation, Refused, elementwise

PAD = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
COLUMNS_MOST = 2 << 30  # bytes of patches, which im2col holds for the whole batch


def padded(problem, x):
    """x with the padding of the problem written out."""
    mode = PAD[problem.options.get("padding_mode", "zeros")]
    return np.pad(x, (*((0, 0),) * (x.ndim - problem.ndim), *problem.options["padding"]), mode)


def activated(problem, y):
    name = problem.problem.activation
    if name == "relu":
        return np.maximum(y, 0)
    if name == "leaky_relu":
        return np.where(y > 0, y, y * y.dtype.type(0.01))
    if name == "sigmoid":
        return 1 / (1 + np.exp(-y))
    return np.tanh(y) if name == "tanh" else y


def batched_only(problem):
    if problem.transposed or not problem.problem.batched:
        raise Refused("ordinary convolution of a batch only")


class NumPy(Implementation):
    """Patches by `sliding_window_view`, copied into a matrix, times the weights: the textbook's im2col."""

    name, title = "numpy", "NumPy im2col + matmul"
    packages = ("numpy",)

    def results(self, result):
        return [np.asarray(r) for r in (result if isinstance(result, tuple) else [result])]

    def conv(self, problem, direction, x, weight, bias, dy):
        batched_only(problem)
        p, options, ndim = problem.problem, problem.options, problem.ndim
        if p.N * p.C * p.taps * int(np.prod(p.out)) * x.itemsize > COLUMNS_MOST:
            raise Refused("the matrix of patches would not fit 2 GB")
        kernel, out = weight.shape[2:], problem.y_shape[2:]
        reach = tuple(d * (k - 1) + 1 for d, k in zip(options["dilation"], kernel))
        every = tuple(slice(None, None, step) for step in (*options["stride"], *options["dilation"]))
        axes = tuple(range(2, 2 + ndim))
        order = (0, 1, *(2 + ndim + i for i in range(ndim)), *axes)
        w = weight.reshape(p.groups, p.K // p.groups, -1)

        def columns():
            windows = np.lib.stride_tricks.sliding_window_view(padded(problem, x), reach, axes)
            patches = windows[(slice(None), slice(None), *every)].transpose(order)
            return patches.reshape(p.N, p.groups, w.shape[2], -1)

        def forward():
            y = (w @ columns()).reshape(problem.y_shape)
            if bias is not None:
                y += bias.reshape(-1, *(1,) * ndim)
            return activated(problem, y)

        rows = dy.reshape(p.N, p.groups, p.K // p.groups, -1)

        def backward_weight():
            dw = (rows @ columns().swapaxes(2, 3)).sum(0)
            return dw.reshape(weight.shape), dy.sum((0, *axes))

        def backward_input():
            cols = (w.swapaxes(1, 2) @ rows).reshape(p.N, p.C, *kernel, *out)
            sizes, pads = x.shape[2:], options["padding"]
            extent = (size + low + high for size, (low, high) in zip(sizes, pads))
            dx = np.zeros((p.N, p.C, *extent), x.dtype)
            for tap in np.ndindex(*kernel):
                first = (t * d for t, d in zip(tap, options["dilation"]))
                at = (slice(f, f + o * st - st + 1, st) for f, o, st in zip(first, out, options["stride"]))
                dx[(..., *at)] += cols[(slice(None), slice(None), *tap)]
            return dx[(..., *(slice(low, low + size) for size, (low, _) in zip(sizes, pads)))]

        if direction == "backward_input" and options.get("padding_mode", "zeros") != "zeros":
            raise Refused("this gradient pads with zeros only")
        calls = {"forward": forward, "backward_input": backward_input, "backward_weight": backward_weight}
        return calls[direction]

    def pool(self, problem, direction, x, dy):
        o, p = problem.options, problem.problem
        if p.adaptive or direction != "forward" or o["ceil_mode"] or set(o["dilation"]) != {1}:
            return None
        if "avg" in problem.op and (o["divisor_override"] or any(map(sum, o["padding"]))):
            raise Refused("averages without padding and divisor only")
        axes = tuple(range(x.ndim - problem.ndim, x.ndim))
        every = (..., *(slice(None, None, step) for step in o["stride"]), *(slice(None),) * problem.ndim)
        fill, reduce = (-np.inf, np.max) if "max" in problem.op else (0, np.mean)
        widths = (*((0, 0),) * (x.ndim - problem.ndim), *o["padding"])
        last = tuple(range(-problem.ndim, 0))

        def call():
            padded = np.pad(x, widths, constant_values=fill)
            windows = np.lib.stride_tricks.sliding_window_view(padded, o["kernel_size"], axes)
            return reduce(windows[every], axis=last)

        return call

    def linear(self, problem, direction, x, weight, bias, dy):
        if direction == "forward":
            return lambda: x @ weight.T + bias
        return lambda: (dy @ weight, dy.T @ x, dy.sum(0))

    def activation(self, problem, direction, x, dy):
        def softmax():
            e = np.exp(x - x.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True)

        if problem.op != "softmax":
            return elementwise(np, problem, direction, x, dy)
        if direction == "forward":
            return softmax
        y = softmax()
        return lambda: y * (dy - (dy * y).sum(axis=-1, keepdims=True))

    def loss(self, problem, direction, x, target):
        if problem.op != "softmax_cross_entropy":
            return None

        def call():
            z = x - x.max(axis=1, keepdims=True)
            e = np.exp(z)
            total, rows = e.sum(axis=1), np.arange(len(x))
            dx = e / total[:, None]
            dx[rows, target] -= 1
            return (np.log(total) - z[rows, target]).mean(), dx / len(x)

        return call


class SciPy(Implementation):
    """scipy.signal.correlate for every pair of sample and filter: direct or by FFT, as it chooses."""

    name, title = "scipy", "SciPy correlate"
    packages = ("scipy",)
    most_flops = 1e9

    def setup(self, threads):
        from scipy import signal

        self.signal = signal

    def results(self, result):
        return [result]

    def conv(self, problem, direction, x, weight, bias, dy):
        batched_only(problem)
        if direction != "forward":
            return None
        options, p = problem.options, problem.problem
        if p.groups > 1 or set(options["dilation"]) != {1}:
            raise Refused("without groups and dilation only")
        if p.N * p.K > 4096:
            raise Refused("would take long (more than 4096 pairs of sample and filter)")
        every = tuple(slice(None, None, step) for step in options["stride"])

        def call():
            y, whole = np.empty(problem.y_shape, x.dtype), padded(problem, x)
            for n in range(p.N):
                for k in range(p.K):
                    y[n, k] = self.signal.correlate(whole[n], weight[k], "valid")[0][every]
            if bias is not None:
                y += bias.reshape(-1, *(1,) * problem.ndim)
            return activated(problem, y)

        return call
