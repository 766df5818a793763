"""The public functions computed by PyTorch, gradients by autograd: an independent witness for the reference.

Same names, arguments and results as `fastconv`, on NumPy arrays, in the dtype of the inputs. What PyTorch has
no option for (asymmetric padding, dilated averages, ONNX's padding beyond half the window) is built from its
parts: padding, unfolding, sums. Import it after ``pytest.importorskip("torch")``.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

torch.set_num_threads(1)  # the arrays are small: its threads would only wait for each other


def _tensor(array, grad=False):
    if array is None:
        return None
    array = np.asarray(array)
    tensor = torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    return tensor.requires_grad_(grad)


def _numpy(tensor):
    return None if tensor is None else tensor.detach().contiguous().numpy()


def _gradients(y, dy, *tensors):
    y.backward(_tensor(dy))
    return tuple(_numpy(t.grad if t.grad is not None else torch.zeros_like(t)) for t in tensors)


def _axes(value, n):
    """One value per axis from an int, a 1-tuple or a tuple."""
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return value * n if len(value) == 1 else value


def _pads(padding, size, kernel, stride, dilation):
    """(low, high) per axis, words by ONNX's rules."""
    n = len(size)
    reach = [d * (k - 1) for k, d in zip(kernel, dilation)]
    if padding == "valid":
        return [(0, 0)] * n
    if padding == "full":
        return [(r, r) for r in reach]
    if isinstance(padding, str):
        pads = []
        for s, r, st in zip(size, reach, stride):
            total = max((math.ceil(s / st) - 1) * st + r + 1 - s, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if padding == "same" else (large, small))
        return pads
    return [p if isinstance(p, tuple) else (p, p) for p in _axes(padding, n)]


def _padded(x, pads, mode="constant", value=0.0):
    flat = [side for pad in reversed(pads) for side in pad]
    if not any(flat):
        return x
    return F.pad(x, flat, mode=mode, value=value) if mode == "constant" else F.pad(x, flat, mode=mode)


# ---- convolution ----------------------------------------------------------------------------------------

ACTIVATIONS = {None: lambda y: y, "relu": F.relu, "leaky_relu": F.leaky_relu, "sigmoid": torch.sigmoid,
               "tanh": torch.tanh}  # fmt: skip


def _conv(n, x, weight, bias, stride, padding, dilation, groups, padding_mode):
    batched = x if x.ndim == n + 2 else x[None]
    kernel, stride, dilation = weight.shape[2:], _axes(stride, n), _axes(dilation, n)
    pads = _pads(padding, batched.shape[2:], kernel, stride, dilation)
    mode = "constant" if padding_mode == "zeros" else padding_mode
    batched = _padded(batched, pads, mode)
    y = getattr(F, f"conv{n}d")(batched, weight, bias, stride=stride, dilation=dilation, groups=groups)
    return y if x.ndim == n + 2 else y[0]


def _conv_forward(n):
    def conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
             activation=None):  # fmt: skip
        x, weight, bias = _tensor(x), _tensor(weight), _tensor(bias)
        y = _conv(n, x, weight, bias, stride, padding, dilation, groups, padding_mode)
        return _numpy(ACTIVATIONS[activation](y))

    return conv


def _conv_backward(n):
    def backward(dy, x, weight, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                 output_mask=(True, True, True)):  # fmt: skip
        x, weight = _tensor(x, True), _tensor(weight, True)
        bias = torch.zeros(weight.shape[0], dtype=weight.dtype, requires_grad=True)
        y = _conv(n, x, weight, bias, stride, padding, dilation, groups, padding_mode)
        given = _gradients(y, dy, x, weight, bias)
        return tuple(g if wanted else None for g, wanted in zip(given, output_mask))

    return backward


def _transpose(n, x, weight, bias, stride, padding, output_padding, groups, dilation):
    stride, dilation = _axes(stride, n), _axes(dilation, n)
    batched = x if x.ndim == n + 2 else x[None]
    y = getattr(F, f"conv_transpose{n}d")(
        batched,
        weight,
        bias,
        stride=stride,
        output_padding=_axes(output_padding, n),
        groups=groups,
        dilation=dilation,
    )
    for axis, (low, high) in enumerate(_pads(padding, y.shape[2:], weight.shape[2:], stride, dilation)):
        y = y.narrow(2 + axis, low, y.shape[2 + axis] - low - high)
    return y if x.ndim == n + 2 else y[0]


def _transpose_forward(n):
    def conv_transpose(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
        x, weight, bias = _tensor(x), _tensor(weight), _tensor(bias)
        return _numpy(_transpose(n, x, weight, bias, stride, padding, output_padding, groups, dilation))

    return conv_transpose


def _transpose_backward(n):
    def backward(dy, x, weight, stride=1, padding=0, groups=1, dilation=1):
        x, weight = _tensor(x, True), _tensor(weight, True)
        bias = torch.zeros(weight.shape[1] * groups, dtype=weight.dtype, requires_grad=True)
        smallest = _transpose(n, x, weight, bias, stride, padding, 0, groups, dilation)
        output_padding = tuple(np.subtract(np.shape(dy), smallest.shape)[-n:].tolist())
        y = _transpose(n, x, weight, bias, stride, padding, output_padding, groups, dilation)
        return _gradients(y, dy, x, weight, bias)

    return backward


def _unfolded(x, kernel_size, dilation, padding, stride):
    n = x.ndim - 2
    kernel = _axes(kernel_size, n)
    windows, _ = _windows(x, n, kernel, stride, padding, dilation, False, 0.0)
    out = windows.shape[2 : 2 + n]
    return windows.permute(0, 1, -1, *range(2, 2 + n)).reshape(
        x.shape[0], x.shape[1] * math.prod(kernel), math.prod(out)
    )


def im2col(x, kernel_size, dilation=1, padding=0, stride=1):
    x = _tensor(x)
    if x.ndim == 4 and not any(isinstance(p, tuple) for p in _axes(padding, 2)):
        return _numpy(F.unfold(x, kernel_size, dilation=dilation, padding=padding, stride=stride))
    return _numpy(_unfolded(x, kernel_size, dilation, padding, stride))


def col2im(cols, output_size, kernel_size, dilation=1, padding=0, stride=1):
    cols = _tensor(cols)
    if len(output_size) == 2 and not any(isinstance(p, tuple) for p in _axes(padding, 2)):
        return _numpy(
            F.fold(cols, output_size, kernel_size, dilation=dilation, padding=padding, stride=stride)
        )
    channels = cols.shape[1] // math.prod(_axes(kernel_size, len(output_size)))
    x = torch.zeros((cols.shape[0], channels, *output_size), dtype=cols.dtype, requires_grad=True)
    _unfolded(x, kernel_size, dilation, padding, stride).backward(cols)
    return _numpy(x.grad)


# ---- pooling --------------------------------------------------------------------------------------------


def _windows(x, n, kernel, stride, padding, dilation, ceil_mode, value):
    """x (N, C, *spatial) as (N, C, *out, taps), value in the padding; and the pads without ceil_mode's."""
    kernel, stride, dilation = _axes(kernel, n), _axes(stride, n), _axes(dilation, n)
    pads = _pads(padding, x.shape[2:], kernel, stride, dilation)
    counts, longer = [], []
    for size, (low, high), k, st, d in zip(x.shape[2:], pads, kernel, stride, dilation):
        room = size + low + high - d * (k - 1) - 1
        count = room // st + 1
        if ceil_mode:  # no window starts in the high padding
            count = min(-(-room // st) + 1, -(-(size + low) // st))
        counts.append(count)
        longer.append((low, high + max(0, (count - 1) * st - room)))
    x = _padded(x, longer, value=value)
    for axis, (count, k, st, d) in enumerate(zip(counts, kernel, stride, dilation)):
        x = x.unfold(2 + axis, d * (k - 1) + 1, st).narrow(2 + axis, 0, count)[..., ::d]
    return x.flatten(-n), pads


def _torch_can(n, kernel, padding, dilation=1):
    """Whether PyTorch's own pooling takes this padding: symmetric, at most half the window; no dilation."""
    kernel, padding = _axes(kernel, n), _axes(padding, n)
    return _axes(dilation, n) == (1,) * n and all(
        not isinstance(p, tuple) and 2 * p <= k for p, k in zip(padding, kernel)
    )


def _max(n, x, kernel_size, stride, padding, dilation, ceil_mode):
    stride = kernel_size if stride is None else stride
    if _torch_can(n, kernel_size, padding):
        return getattr(F, f"max_pool{n}d")(
            x, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode, return_indices=True
        )
    plane = torch.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:])
    values, _ = _windows(x, n, kernel_size, stride, padding, dilation, ceil_mode, -torch.inf)
    positions, _ = _windows(plane, n, kernel_size, stride, padding, dilation, ceil_mode, -1)
    y, first = values.max(dim=-1)
    indices = torch.gather(positions.expand(values.shape), -1, first[..., None])[..., 0]
    return y, torch.where(y == -torch.inf, -1, indices)


def _max_pool(n):
    def max_pool(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        x = _tensor(x)
        batched = x if x.ndim == n + 2 else x[None]
        y, indices = _max(n, batched, kernel_size, stride, padding, dilation, ceil_mode)
        y, indices = (a if x.ndim == n + 2 else a[0] for a in (y, indices))
        return (_numpy(y), _numpy(indices)) if return_indices else _numpy(y)

    return max_pool


def _max_pool_backward(n):
    def backward(dy, indices, input_shape):
        dy, indices = _tensor(dy).flatten(-n), _tensor(indices).flatten(-n)
        lead = dy.shape[:-1]
        plane = math.prod(input_shape[-n:])
        dx = torch.zeros((*lead, plane + 1), dtype=dy.dtype)  # one more, for the index -1
        dx = dx.scatter_add(-1, indices % dx.shape[-1], dy)
        return _numpy(dx[..., :-1].reshape(input_shape))

    return backward


def _avg(n, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation):
    stride = kernel_size if stride is None else stride
    if _torch_can(n, kernel_size, padding, dilation) and (n > 1 or divisor_override is None):
        more = {} if n == 1 else {"divisor_override": divisor_override}
        return getattr(F, f"avg_pool{n}d")(
            x, kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad, **more
        )
    options = (kernel_size, stride, padding, dilation, ceil_mode, 0.0)
    values, pads = _windows(x, n, *options)
    one = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
    if count_include_pad:
        one, options = _padded(one, pads, value=1.0), (kernel_size, stride, 0, dilation, ceil_mode, 0.0)
    counts, _ = _windows(one, n, *options)
    out = tuple(slice(0, size) for size in values.shape[2:-1])
    count = counts.sum(-1)[(..., *out)].clamp(min=1)
    return values.sum(-1) / (count if divisor_override is None else divisor_override)


def _avg_pool(n):
    def avg_pool(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
                 divisor_override=None, *, dilation=1):  # fmt: skip
        x = _tensor(x)
        batched = x if x.ndim == n + 2 else x[None]
        y = _avg(
            n, batched, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation
        )
        return _numpy(y if x.ndim == n + 2 else y[0])

    return avg_pool


def _avg_pool_backward(n):
    def backward(dy, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False,
                 count_include_pad=True, divisor_override=None, *, dilation=1):  # fmt: skip
        dy = _tensor(dy)
        x = torch.zeros(input_shape, dtype=dy.dtype, requires_grad=True)
        batched = x if x.ndim == n + 2 else x[None]
        y = _avg(
            n, batched, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation
        )
        return _gradients(y, dy.reshape(y.shape), x)[0]

    return backward


def _adaptive_size(x, output_size, n):
    return tuple(s if o is None else o for s, o in zip(x.shape[-n:], _axes(output_size, n)))


def _adaptive_avg(n):
    def adaptive_avg_pool(x, output_size):
        x = _tensor(x)
        return _numpy(getattr(F, f"adaptive_avg_pool{n}d")(x, _adaptive_size(x, output_size, n)))

    return adaptive_avg_pool


def _adaptive_avg_backward(n):
    def backward(dy, input_shape):
        x = torch.zeros(input_shape, dtype=_tensor(dy).dtype, requires_grad=True)
        return _gradients(getattr(F, f"adaptive_avg_pool{n}d")(x, np.shape(dy)[-n:]), dy, x)[0]

    return backward


def _adaptive_max(n):
    def adaptive_max_pool(x, output_size, return_indices=False):
        x = _tensor(x)
        pool = getattr(F, f"adaptive_max_pool{n}d")
        y, indices = pool(x, _adaptive_size(x, output_size, n), return_indices=True)
        return (_numpy(y), _numpy(indices)) if return_indices else _numpy(y)

    return adaptive_max_pool


for _n in (1, 2, 3):
    globals().update({
        f"conv{_n}d": _conv_forward(_n),
        f"conv{_n}d_backward": _conv_backward(_n),
        f"conv_transpose{_n}d": _transpose_forward(_n),
        f"conv_transpose{_n}d_backward": _transpose_backward(_n),
        f"max_pool{_n}d": _max_pool(_n),
        f"max_pool{_n}d_backward": _max_pool_backward(_n),
        f"avg_pool{_n}d": _avg_pool(_n),
        f"avg_pool{_n}d_backward": _avg_pool_backward(_n),
        f"adaptive_avg_pool{_n}d": _adaptive_avg(_n),
        f"adaptive_avg_pool{_n}d_backward": _adaptive_avg_backward(_n),
        f"adaptive_max_pool{_n}d": _adaptive_max(_n),
        f"adaptive_max_pool{_n}d_backward": _max_pool_backward(_n),
    })  # fmt: skip


# ---- elementwise ----------------------------------------------------------------------------------------

# f(x, options), and x as a function of y: autograd differentiates at x, our backward passes are given y.
_FUNCTIONS = {
    "relu": (lambda x: F.relu(x), lambda y: y),
    "leaky_relu": (lambda x, negative_slope=0.01: F.leaky_relu(x, negative_slope),
                   lambda y, negative_slope=0.01: torch.where(y > 0, y, y / (negative_slope or 1.0))),
    "elu": (lambda x, alpha=1.0: F.elu(x, alpha),
            lambda y, alpha=1.0: torch.where(y > 0, y, torch.log1p(y / alpha) if alpha else y)),
    "sigmoid": (torch.sigmoid, torch.logit),
    "tanh": (torch.tanh, torch.atanh),
    "softmax": (lambda x, axis=-1: F.softmax(x, axis), lambda y, axis=-1: torch.log(y)),
    "log_softmax": (lambda x, axis=-1: F.log_softmax(x, axis), lambda y, axis=-1: y),
}  # fmt: skip


def _elementwise(name):
    def function(x, **options):
        return _numpy(_FUNCTIONS[name][0](_tensor(x), **options))

    def backward(dy, y, **options):
        forward, inverse = _FUNCTIONS[name]
        x = inverse(_tensor(y), **options).detach().requires_grad_()
        return _gradients(forward(x, **options), dy, x)[0]

    return {name: function, f"{name}_backward": backward}


for _name in _FUNCTIONS:
    globals().update(_elementwise(_name))


def maxout(x, pieces, axis=1):
    y, indices = _tensor(x).unflatten(axis, (-1, pieces)).max(dim=axis + 1)
    return _numpy(y), _numpy(indices)


def maxout_backward(dy, indices, pieces, axis=1):
    dy, indices = _tensor(dy).unsqueeze(axis + 1), _tensor(indices).unsqueeze(axis + 1)
    shape = list(dy.shape)
    shape[axis + 1] = pieces
    dx = torch.zeros(shape, dtype=dy.dtype).scatter(axis + 1, indices, dy)
    return _numpy(dx.flatten(axis, axis + 1))


# ---- losses ---------------------------------------------------------------------------------------------


def _loss(x, compute):
    x = _tensor(x, True)
    loss = compute(x)
    loss.sum().backward()
    loss = _numpy(loss)
    return (loss if loss.ndim else loss[()]), _numpy(x.grad)


def _target(target):
    target = _tensor(target)
    return target if target.dtype.is_floating_point else target.long()


def softmax_cross_entropy(
    logits, target, *, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    return _loss(logits, lambda x: F.cross_entropy(
        x, _target(target), _tensor(weight), ignore_index=ignore_index, reduction=reduction,
        label_smoothing=label_smoothing))  # fmt: skip


def nll(log_probs, target, *, weight=None, ignore_index=-100, reduction="mean"):
    return _loss(log_probs, lambda x: F.nll_loss(
        x, _target(target), _tensor(weight), ignore_index=ignore_index, reduction=reduction))  # fmt: skip


def sigmoid_cross_entropy(logits, target, *, weight=None, pos_weight=None, reduction="mean"):
    return _loss(logits, lambda x: F.binary_cross_entropy_with_logits(
        x, _tensor(target), _tensor(weight), reduction=reduction, pos_weight=_tensor(pos_weight)
    ))  # fmt: skip


def squared_error(prediction, target, *, reduction="mean"):
    return _loss(prediction, lambda x: F.mse_loss(x, _tensor(target), reduction=reduction))


def hinge(scores, target, *, margin=1.0, reduction="mean"):
    def compute(x):  # torch's own multi_margin_loss divides by the number of classes, inexactly
        classes = _target(target)[:, None]
        own = F.one_hot(classes[:, 0], x.shape[1]).bool()
        losses = F.relu(x - x.gather(1, classes) + margin).masked_fill(own, 0).sum(1)
        return losses if reduction == "none" else getattr(losses, reduction)()

    return _loss(scores, compute)


# ---- dense, normalisation -------------------------------------------------------------------------------


def linear(x, weight, bias=None):
    return _numpy(F.linear(_tensor(x), _tensor(weight), _tensor(bias)))


def linear_backward(dy, x, weight):
    x, weight = _tensor(x, True), _tensor(weight, True)
    bias = torch.zeros(weight.shape[0], dtype=weight.dtype, requires_grad=True)
    return _gradients(F.linear(x, weight, bias), dy, x, weight, bias)


def batch_norm(x, weight, bias, running_mean, running_var, training=False, momentum=0.1, eps=1e-5):
    mean, var = _tensor(running_mean), _tensor(running_var)
    y = F.batch_norm(_tensor(x), mean, var, _tensor(weight), _tensor(bias), training, momentum, eps)
    running_mean[...], running_var[...] = _numpy(mean), _numpy(var)
    return _numpy(y)


def batch_norm_backward(dy, x, weight, running_mean=None, running_var=None, training=True, eps=1e-5):
    x = _tensor(x, True)
    ones = np.ones(x.shape[1], _numpy(x).dtype)
    weight, bias = _tensor(ones if weight is None else weight, True), _tensor(0 * ones, True)
    y = F.batch_norm(x, _tensor(running_mean), _tensor(running_var), weight, bias, training, 0.1, eps)
    return _gradients(y, dy, x, weight, bias)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    return _numpy(F.local_response_norm(_tensor(x), size, alpha, beta, k))


def local_response_norm_backward(dy, x, size, alpha, beta, k):
    x = _tensor(x, True)
    return _gradients(F.local_response_norm(x, size, alpha, beta, k), dy, x)[0]
