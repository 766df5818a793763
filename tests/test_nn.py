"""fastconv.nn: every layer's two ways against torch, functions and differences.

Layers add nothing to the numbers of the functions they call, so integer inputs are compared exactly with
torch; the accuracy of the functions is the business of test_conformance.
"""

import numpy as np
import pytest
from nn_samples import fill_with_integers, real, whole

import fastconv as fc
from fastconv import nn

# ---- every layer: (class name, arguments, keywords, input shape) -------------------------------------------


# Sums of products of integers, maxima and averages of 2, 4 or 8 elements: exact, hence equal to torch bit for
# bit.
EXACT = [
    ("Conv1d", (3, 4, 3), dict(stride=2, padding=1), (2, 3, 9)),
    ("Conv1d", (4, 4, 2), dict(dilation=2, groups=2, bias=False), (2, 4, 9)),
    ("Conv2d", (3, 4, 3), dict(), (2, 3, 7, 6)),
    ("Conv2d", (4, 6, (3, 2), (2, 1), (1, 2), 1, 2, False), dict(), (2, 4, 7, 6)),
    ("Conv2d", (2, 3, 3), dict(padding="same", padding_mode="zeros"), (2, 2, 5, 5)),
    ("Conv2d", (2, 3, 3), dict(padding=1, padding_mode="reflect"), (2, 2, 5, 5)),
    ("Conv2d", (2, 3, 3), dict(padding=2, padding_mode="circular", bias=False), (2, 2, 5, 5)),
    ("Conv2d", (2, 3, (3, 1)), dict(padding=(1, 0), padding_mode="replicate"), (2, 2, 5, 5)),
    ("Conv2d", (2, 3, 3), dict(padding=1), (2, 5, 5)),
    ("Conv3d", (2, 3, 2), dict(padding=1), (2, 2, 3, 4, 5)),
    ("ConvTranspose1d", (3, 4, 3), dict(stride=2, output_padding=1), (2, 3, 5)),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2, False), dict(), (2, 4, 5, 4)),
    ("ConvTranspose2d", (3, 2, (2, 3)), dict(dilation=2), (2, 3, 4, 4)),
    ("ConvTranspose3d", (2, 3, 2), dict(stride=2), (1, 2, 3, 2, 2)),
    ("Linear", (5, 4), dict(), (3, 5)),
    ("Linear", (5, 4, False), dict(), (2, 3, 5)),
    ("Flatten", (), dict(), (2, 3, 4, 5)),
    ("Flatten", (2, 3), dict(), (2, 3, 4, 5, 6)),
    ("MaxPool1d", (2,), dict(), (2, 3, 7)),
    ("MaxPool2d", (3, 2, 1), dict(), (2, 3, 7, 8)),
    ("MaxPool2d", (2,), dict(ceil_mode=True, dilation=2, stride=1), (2, 3, 7, 8)),
    ("MaxPool3d", (2,), dict(), (2, 3, 4, 5, 6)),
    ("AvgPool1d", (2, 1), dict(), (2, 3, 7)),
    ("AvgPool2d", (2,), dict(padding=1), (2, 3, 6, 7)),
    ("AvgPool2d", ((1, 4), 2), dict(ceil_mode=True, divisor_override=2), (2, 3, 6, 7)),
    ("AvgPool3d", (2,), dict(), (2, 3, 4, 5, 6)),
    ("AdaptiveAvgPool1d", (4,), dict(), (2, 3, 8)),
    ("AdaptiveAvgPool2d", ((4, None),), dict(), (2, 3, 8, 2)),
    ("AdaptiveAvgPool3d", (1,), dict(), (2, 3, 2, 2, 2)),
    ("AdaptiveMaxPool1d", (3,), dict(), (2, 3, 8)),
    ("AdaptiveMaxPool2d", ((3, 2),), dict(), (2, 3, 8, 5)),
    ("AdaptiveMaxPool3d", (2,), dict(), (2, 3, 4, 3, 3)),
    ("ReLU", (True,), dict(), (2, 3, 4)),
    ("LeakyReLU", (0.25,), dict(), (2, 3, 4)),
]

# The others: checked by differences, and against the functions they stand for.
REAL = [
    ("ELU", (0.5,), dict(), (2, 3, 4), lambda x: fc.elu(x, 0.5)),
    ("Sigmoid", (), dict(), (2, 3, 4), fc.sigmoid),
    ("Tanh", (), dict(), (2, 3, 4), fc.tanh),
    ("Softmax", (1,), dict(), (2, 3, 4), lambda x: fc.softmax(x, 1)),
    ("LogSoftmax", (), dict(), (2, 3, 4), fc.log_softmax),
    ("Maxout", (2,), dict(), (2, 6, 4), lambda x: fc.maxout(x, 2)[0]),
    (
        "LocalResponseNorm",
        (3,),
        dict(alpha=0.5, k=2.0),
        (2, 5, 3, 3),
        lambda x: fc.local_response_norm(x, 3, 0.5, 0.75, 2.0),
    ),
]


def case_id(case):
    return f"{case[0]}{case[1]}{case[2] or ''}".replace(" ", "")


@pytest.mark.parametrize("case", EXACT, ids=case_id)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_torch(case, dtype):
    torch = pytest.importorskip("torch")
    name, arguments, options, shape = case
    make = getattr(nn, name)
    weighted = "dtype" in make.__init__.__kwdefaults__ if make.__init__.__kwdefaults__ else False
    ours = fill_with_integers(make(*arguments, **options, **({"dtype": dtype} if weighted else {})))
    theirs = getattr(torch.nn, name)(*arguments, **options).to(
        torch.float64 if dtype == np.float64 else torch.float32
    )
    theirs.load_state_dict(
        {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    )  # names and shapes

    x = whole(shape, 1, dtype)
    y, backward = ours.forward(x)
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx.clone())  # which ReLU(inplace=True) may write, as ours never does
    assert y.dtype == dtype and np.array_equal(y, ty.detach().numpy())
    assert np.array_equal(ours(x), y)
    dy = whole(y.shape, 2, dtype)
    dx = backward(dy)
    ty.backward(torch.tensor(dy))
    assert dx.dtype == dtype and np.array_equal(dx, tx.grad.numpy())
    for (key, parameter), (other, expected) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert key == other and np.array_equal(parameter.grad, expected.grad.numpy())


@pytest.mark.parametrize("case", REAL, ids=case_id)
def test_equals_function(case):
    name, arguments, options, shape, function = case
    layer, x = getattr(nn, name)(*arguments, **options), real(shape)
    assert np.array_equal(layer(x), function(x)) and np.array_equal(layer.forward(x)[0], layer(x))


def gradient_cases():
    for name, arguments, options, shape, *_ in EXACT + REAL:
        weighted = name.startswith("Conv") or name == "Linear"
        yield pytest.param(
            getattr(nn, name)(*arguments, **options, **(dict(dtype=np.float64, rng=0) if weighted else {})),
            shape,
            id=case_id((name, arguments, options)),
        )
    made = dict(dtype=np.float64)
    yield pytest.param(nn.BatchNorm1d(4, **made), (6, 4), id="BatchNorm1d")
    yield pytest.param(nn.BatchNorm2d(3, momentum=None, affine=False, **made), (4, 3, 3, 2), id="BatchNorm2d")
    yield pytest.param(
        nn.BatchNorm3d(2, track_running_stats=False, **made), (3, 2, 2, 2, 2), id="BatchNorm3d"
    )
    yield pytest.param(
        nn.Sequential(nn.Linear(4, 5, rng=1, **made), nn.Tanh(), nn.Linear(5, 3, rng=2, **made)),
        (2, 4),
        id="Sequential",
    )
    block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, rng=1, **made), nn.Tanh())
    yield pytest.param(nn.Residual(block), (2, 3, 4, 4), id="Residual")
    yield pytest.param(
        nn.Residual(block, nn.Conv2d(3, 3, 1, rng=2, **made)), (2, 3, 4, 4), id="Residual-shortcut"
    )
    yield pytest.param(
        nn.Parallel(nn.Conv2d(3, 2, 1, rng=1, **made), block, nn.Tanh()), (2, 3, 4, 4), id="Parallel"
    )


@pytest.mark.parametrize("layer, shape", list(gradient_cases()))
def test_gradients(layer, shape):
    """The gradient of x and of every parameter against central differences."""
    x = real(shape)
    report = fc.check_gradient(layer.forward, x)
    assert report.ok, report
    for name, parameter in layer.named_parameters():

        def of_parameter(value):
            parameter.data = value
            y, backward = layer.forward(x)

            def gradient(dy):
                layer.zero_grad()
                backward(dy)
                return parameter.grad

            return y, gradient

        report = fc.check_gradient(of_parameter, parameter.data)
        assert report.ok, (name, report)


def test_max_pool_indices():
    x = whole((2, 3, 6, 6))
    y, indices = nn.MaxPool2d(2, return_indices=True)(x)
    (again, same), backward = nn.MaxPool2d(2, return_indices=True).forward(x)
    assert np.array_equal(y, again) and np.array_equal(indices, same) and indices.dtype == np.int64
    assert np.array_equal(backward(y), fc.max_pool2d_backward(y, indices, x.shape))


# ---- batch norm and dropout: two ways that differ ----------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_norm_equals_torch(momentum):
    torch = pytest.importorskip("torch")
    from fastconv.testing import bounds

    ours, theirs = nn.BatchNorm2d(3, momentum=momentum), torch.nn.BatchNorm2d(3, momentum=momentum)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    state = {"weight": real(3, 1, np.float32), "bias": real(3, 2, np.float32)}
    ours.load_state_dict(state, strict=False)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=False)
    mean, var = np.zeros(3), np.ones(3)
    mean_error, var_error = np.zeros(3), np.zeros(3)
    for batch in range(3):
        x = real((4, 3, 5, 5), batch, np.float32) + 2
        share = 1 / (batch + 1) if momentum is None else momentum
        y_error, more_mean, more_var = bounds.batch_norm(
            x.astype(float), state["weight"], state["bias"], mean, var, True, share, 1e-5, np.float32
        )
        mean = (1 - share) * mean + share * x.mean(axis=(0, 2, 3), dtype=float)
        var = (1 - share) * var + share * x.var(axis=(0, 2, 3), dtype=float, ddof=1)
        mean_error, var_error = mean_error + more_mean, var_error + more_var
        y, ty = ours.forward(x)[0], theirs(torch.tensor(x)).detach().numpy()
        assert np.all(np.abs(y - ty) <= 2 * y_error)  # each side is within the bound of the exact value
    assert np.all(np.abs(ours.running_mean - mean) <= mean_error)
    assert np.all(np.abs(ours.running_var - var) <= var_error)
    assert ours.num_batches_tracked == theirs.num_batches_tracked.item() == 3

    before = ours.state_dict()
    y = ours(x)
    assert all(
        np.array_equal(before[name], array) for name, array in ours.state_dict().items()
    )  # a prediction keeps nothing
    y_error = bounds.batch_norm(
        x.astype(float),
        state["weight"],
        state["bias"],
        mean.reshape(1, 3, 1, 1),
        var.reshape(1, 3, 1, 1),
        False,
        0.1,
        1e-5,
        np.float32,
    )[0]
    theirs.load_state_dict({name: torch.tensor(array) for name, array in before.items()})
    assert np.all(np.abs(y - theirs.eval()(torch.tensor(x)).detach().numpy()) <= 2 * y_error)


def test_batch_norm_options():
    plain = nn.BatchNorm1d(3, affine=False, track_running_stats=False)
    assert plain.state_dict() == {} and plain.parameters() == []
    x = real((5, 3), dtype=np.float32)
    assert np.array_equal(plain(x), plain.forward(x)[0])  # the batch's own statistics, both ways
    with pytest.raises(ValueError, match="BatchNorm1d: x has 4 axes .need 2 or 3"):
        plain(real((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="BatchNorm2d: x has 2 axes .need 4"):
        nn.BatchNorm2d(3).forward(x)


def test_dropout():
    x = np.ones((50, 40), np.float32)
    layer, twin = nn.Dropout(0.25, rng=7), nn.Dropout(0.25, rng=np.random.default_rng(7))
    assert np.array_equal(layer(x), x)
    y, backward = layer.forward(x)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)} and np.array_equal(y, twin.forward(x)[0])
    assert np.array_equal(backward(x), y)  # the same mask and scale
    assert not np.array_equal(layer.forward(x)[0], y)  # the next call draws anew
    assert np.array_equal(nn.Dropout(0.0).forward(x)[0], x)
    assert not nn.Dropout(1.0).forward(x)[0].any()
    with pytest.raises(ValueError, match="Dropout: p is 1.5"):
        nn.Dropout(1.5)


# ---- losses ------------------------------------------------------------------------------------------------


LABELS = np.array([0, 2, 1, 2])
LOSSES = [
    (nn.CrossEntropyLoss(), LABELS, lambda x, t: fc.softmax_cross_entropy(x, t)),
    (
        nn.CrossEntropyLoss(np.array([1.0, 2.0, 0.5]), label_smoothing=0.1, reduction="sum"),
        LABELS,
        lambda x, t: fc.softmax_cross_entropy(
            x, t, weight=np.array([1.0, 2.0, 0.5]), label_smoothing=0.1, reduction="sum"
        ),
    ),
    (nn.NLLLoss(ignore_index=1), LABELS, lambda x, t: fc.nll(x, t, ignore_index=1)),
    (
        nn.BCEWithLogitsLoss(pos_weight=np.array([1.0, 2.0, 3.0])),
        (real((4, 3), 5) > 0).astype(float),
        lambda x, t: fc.sigmoid_cross_entropy(x, t, pos_weight=np.array([1.0, 2.0, 3.0])),
    ),
    (nn.MSELoss(), real((4, 3), 5), fc.squared_error),
    (nn.HingeLoss(margin=0.5), LABELS, lambda x, t: fc.hinge(x, t, margin=0.5)),
]


@pytest.mark.parametrize("criterion, target, function", LOSSES, ids=lambda value: type(value).__name__)
def test_losses(criterion, target, function):
    x = real((4, 3))
    loss, dinput = criterion(x, target)
    expected, gradient = function(x, target)
    assert np.array_equal(loss, expected) and np.array_equal(dinput, gradient)
    report = fc.check_gradient(lambda x: criterion(x, target), x)
    assert report.ok, report
