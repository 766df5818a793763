"""Pooling layers. Arguments and their order are PyTorch's; what they do is said in `fastconv.max_pool2d`."""

from .. import functional as F
from .module import Module


class _Pool(Module):
    """Shared: the rank, and the options as text."""

    ndim = None

    def _function(self, name):
        return getattr(F, f"{name}{self.ndim}d")

    def _backward(self, name):
        return getattr(F, f"{name}{self.ndim}d_backward")

    def extra_repr(self):
        return ", ".join(f"{name}={value!r}" for name, value in vars(self).items())


class _MaxPool(_Pool):
    """Maximum over windows of `x (N, C, *spatial)`; `stride=None` means `kernel_size`.

    With `return_indices=True` the result is `(y, indices)`, in `forward` too: `(y, indices), backward`.
    """

    def __init__(
        self, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False
    ):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def _pool(self, x, return_indices):
        return self._function("max_pool")(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, return_indices
        )

    def predict(self, x):
        return self._pool(x, self.return_indices)

    def forward(self, x):
        y, indices = self._pool(x, True)
        shape = x.shape

        def backward(dy):
            return self._backward("max_pool")(dy, indices, shape)

        return ((y, indices) if self.return_indices else y), backward


class _AvgPool(_Pool):
    """Average over windows of `x (N, C, *spatial)`; `stride=None` means `kernel_size`."""

    def __init__(
        self,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    ):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def _options(self):
        windows = self.kernel_size, self.stride, self.padding, self.ceil_mode
        return *windows, self.count_include_pad, self.divisor_override

    def predict(self, x):
        return self._function("avg_pool")(x, *self._options())

    def forward(self, x):
        shape, options = x.shape, self._options()

        def backward(dy):
            return self._backward("avg_pool")(dy, shape, *options)

        return self.predict(x), backward


class _AdaptiveAvgPool(_Pool):
    """Average over windows that give `output_size`: an int or one per axis; None keeps an axis."""

    def __init__(self, output_size):
        self.output_size = output_size

    def predict(self, x):
        return self._function("adaptive_avg_pool")(x, self.output_size)

    def forward(self, x):
        shape = x.shape

        def backward(dy):
            return self._backward("adaptive_avg_pool")(dy, shape)

        return self.predict(x), backward


class _AdaptiveMaxPool(_Pool):
    """Maximum over windows that give `output_size`: an int or one per axis; None keeps an axis.

    With `return_indices=True` the result is `(y, indices)`, in `forward` too: `(y, indices), backward`.
    """

    def __init__(self, output_size, return_indices=False):
        self.output_size, self.return_indices = output_size, return_indices

    def predict(self, x):
        return self._function("adaptive_max_pool")(x, self.output_size, self.return_indices)

    def forward(self, x):
        y, indices = self._function("adaptive_max_pool")(x, self.output_size, True)
        shape = x.shape

        def backward(dy):
            return self._backward("adaptive_max_pool")(dy, indices, shape)

        return ((y, indices) if self.return_indices else y), backward


def _ranks(base):
    """The 1-d, 2-d and 3-d class of `base`, public names."""
    own = {"__doc__": base.__doc__, "__module__": __name__}
    return [type(f"{base.__name__[1:]}{ndim}d", (base,), {**own, "ndim": ndim}) for ndim in (1, 2, 3)]


MaxPool1d, MaxPool2d, MaxPool3d = _ranks(_MaxPool)
AvgPool1d, AvgPool2d, AvgPool3d = _ranks(_AvgPool)
AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d = _ranks(_AdaptiveAvgPool)
AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d = _ranks(_AdaptiveMaxPool)
