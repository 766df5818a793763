"""BatchNorm1d/2d/3d, LocalResponseNorm, Dropout."""

import numpy as np

from .. import functional as F
from .conv import _count, _real
from .module import Lock, Module, Parameter


class _BatchNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, per channel (axis 1).

    `forward` normalises by the batch and moves `running_mean` and `running_var` by `momentum` (None: the
    plain average over all batches so far); a prediction normalises by them. With `track_running_stats=False`
    both use the batch. `affine=False` leaves weight and bias out. Names, shapes and starting values are
    PyTorch's.
    Source: Ioffe and Szegedy, "Batch normalization" (2015).
    """

    ranks = None
    keeps_float32 = True

    def __init__(
        self,
        num_features,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        track_running_stats=True,
        *,
        dtype=np.float32,
        rng=None,
    ):
        name = type(self).__name__
        self.num_features, dtype = _count(num_features, f"{name}: num_features"), _real(dtype, name)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        self.register_buffer("running_mean", np.zeros(num_features, dtype) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(num_features, dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None)
        self._lock = Lock()  # the running statistics are changed by one thread at a time

    def _affine(self):
        return (self.weight.data, self.bias.data) if self.affine else (None, None)

    def _check(self, x):
        if x.ndim not in self.ranks:
            raise ValueError(
                f"{type(self).__name__}: x has {x.ndim} axes (need {' or '.join(map(str, self.ranks))})"
            )

    def predict(self, x):
        self._check(x)
        training = not self.track_running_stats
        return F.batch_norm(
            x, *self._affine(), self.running_mean, self.running_var, training=training, eps=self.eps
        )

    def forward(self, x):
        self._check(x)
        weight, bias = self.weight, self.bias
        scale, shift = self._affine()
        if self.track_running_stats:
            with self._lock:
                batches = int(self.num_batches_tracked) + 1
                momentum = 1 / batches if self.momentum is None else self.momentum
                running = self.running_mean, self.running_var
                y = F.batch_norm(x, scale, shift, *running, training=True, momentum=momentum, eps=self.eps)
                self.num_batches_tracked = np.array(batches, np.int64)
        else:
            y = F.batch_norm(x, scale, shift, None, None, training=True, eps=self.eps)

        def backward(dy):
            dx, dweight, dbias = F.batch_norm_backward(dy, x, scale, training=True, eps=self.eps)
            if weight is not None:
                weight.accumulate(dweight)
                bias.accumulate(dbias)
            return dx

        return y, backward

    def extra_repr(self):
        text = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
        off = [name for name in ("affine", "track_running_stats") if not getattr(self, name)]
        return ", ".join([text, *(f"{name}=False" for name in off)])


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    ranks = (5,)


class LocalResponseNorm(Module):
    """y = x / (k + alpha / size * sum of x^2 over `size` neighbouring channels)^beta.

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification" (2012), in PyTorch's form.
    """

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def _options(self):
        return self.size, self.alpha, self.beta, self.k

    def predict(self, x):
        return F.local_response_norm(x, *self._options())

    def forward(self, x):
        options = self._options()

        def backward(dy):
            return F.local_response_norm_backward(dy, x, *options)

        return self.predict(x), backward

    def extra_repr(self):
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class Dropout(Module):
    """In training, zero each element with probability `p` and scale the others by 1/(1-p); else nothing.

    `rng`, a `Generator` or a seed, makes training reproducible; its state belongs to the checkpoints of
    `fastconv.train`. Source: Srivastava et al., "Dropout" (2014).
    """

    def __init__(self, p=0.5, inplace=False, *, rng=None):
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is {p} (need 0 <= p <= 1)")
        self.p, self.rng = p, np.random.default_rng(rng)

    def predict(self, x):
        return x

    def forward(self, x):
        p = self.p
        if p == 0:
            return x, lambda dy: dy
        y, mask = F.dropout(x, p, rng=self.rng)

        def backward(dy):
            return F.dropout_backward(dy, mask, p)

        return y, backward

    def extra_repr(self):
        return f"p={self.p}"
