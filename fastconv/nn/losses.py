"""Losses as objects that hold their options: `loss, dinput = criterion(input, target)`.

Options are those of `torch.nn`, by keyword but for `weight`. `dinput` is the gradient of the loss with
respect to the input, ready for `backward(dinput)`. The equations are in `fastconv.softmax_cross_entropy` and
its sisters.
"""

from .. import functional as F


class _Loss:
    """Calls `function(input, target, **options)`."""

    function = None

    def __init__(self, **options):
        if options["reduction"] not in ("mean", "sum", "none"):
            raise ValueError(
                f"{type(self).__name__}: reduction is {options['reduction']!r} (need 'mean', 'sum' or 'none')"
            )
        self.options = options

    def __call__(self, input, target):
        return getattr(F, self.function)(input, target, **self.options)

    def __repr__(self):
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({options})"


class CrossEntropyLoss(_Loss):
    """-log softmax(input)[target] over classes on axis 1; target holds class indices or probabilities."""

    function = "softmax_cross_entropy"

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(
            weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )


class NLLLoss(_Loss):
    """-input[target] where input holds log-probabilities over classes on axis 1."""

    function = "nll"

    def __init__(self, weight=None, *, ignore_index=-100, reduction="mean"):
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)


class BCEWithLogitsLoss(_Loss):
    """-(target log s + (1 - target) log(1 - s)) with s = sigmoid(input), element by element."""

    function = "sigmoid_cross_entropy"

    def __init__(self, weight=None, *, reduction="mean", pos_weight=None):
        super().__init__(weight=weight, pos_weight=pos_weight, reduction=reduction)


class MSELoss(_Loss):
    """(input - target)^2, element by element."""

    function = "squared_error"

    def __init__(self, *, reduction="mean"):
        super().__init__(reduction=reduction)


class HingeLoss(_Loss):
    """Per sample, the sum over the wrong classes j of max(0, input_j - input_target + margin)."""

    function = "hinge"

    def __init__(self, *, margin=1.0, reduction="mean"):
        super().__init__(margin=margin, reduction=reduction)
