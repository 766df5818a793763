"""fastconv.optim against the formulas worked by hand, and against torch.optim where torch is installed."""

import numpy as np
import pytest

from fastconv import optim
from fastconv.nn import Parameter

# Every optimiser with every option that changes its path. All take a list of parameters first.
CASES = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, weight_decay=0.01)),
    ("SGD", dict(lr=0.1, momentum=0.9)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    ("Adagrad", dict()),
    ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.01, initial_accumulator_value=0.1, eps=1e-8)),
    ("Adadelta", dict()),
    ("Adadelta", dict(lr=0.5, rho=0.8, eps=1e-4, weight_decay=0.01)),
    ("RMSprop", dict()),
    ("RMSprop", dict(lr=0.1, alpha=0.9, eps=1e-6, weight_decay=0.01, momentum=0.9)),
    ("RMSprop", dict(alpha=0.9, centered=True)),
    ("RMSprop", dict(alpha=0.9, centered=True, momentum=0.5)),
    ("Adam", dict()),
    ("Adam", dict(lr=0.1, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.01)),
]
IDS = [f"{kind}-{'-'.join(options) or 'defaults'}" for kind, options in CASES]
STEPS = 20


def parameters(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.standard_normal(shape).astype(dtype)) for shape in ((3, 4), (5,))]


def gradients(step, dtype=np.float64):
    rng = np.random.default_rng(1000 + step)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((3, 4), (5,))]


def run(optimizer, first, last, dtype=np.float64):
    for step in range(first, last):
        for parameter, gradient in zip(optimizer.params, gradients(step, dtype)):
            parameter.grad = gradient
        optimizer.step()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind, options", CASES, ids=IDS)
def test_equals_torch(kind, options, dtype):
    torch = pytest.importorskip("torch")
    ours = parameters(dtype)
    theirs = [torch.nn.Parameter(torch.tensor(parameter.data.copy())) for parameter in ours]
    optimizer, reference = (
        getattr(optim, kind)(ours, **options),
        getattr(torch.optim, kind)(theirs, **options),
    )
    travelled = [np.abs(parameter.data) for parameter in ours]
    for step in range(STEPS):
        before = [parameter.data.copy() for parameter in ours]
        for mine, other, gradient in zip(ours, theirs, gradients(step, dtype)):
            mine.grad, other.grad = gradient, torch.tensor(gradient)
        optimizer.step()
        reference.step()
        travelled = [way + np.abs(mine.data - old) for way, mine, old in zip(travelled, ours, before)]
    for mine, other, way in zip(ours, theirs, travelled):
        assert mine.data.dtype == dtype and not np.array_equal(
            mine.data, parameters(dtype)[ours.index(mine)].data
        )
        # A step takes fewer than 16 rounded operations, and each is off by eps/2 of what it handles, at most
        # the way travelled so far. Averages of squares only shrink older errors; the gradients do not depend
        # on the data.
        assert np.all(np.abs(mine.data - other.detach().numpy()) <= 16 * STEPS * np.finfo(dtype).eps * way)


def test_defaults_are_torchs():
    torch = pytest.importorskip("torch")
    for kind in {kind for kind, _ in CASES}:
        lr = {"lr": 0.1} if kind == "SGD" else {}
        theirs = getattr(torch.optim, kind)([torch.zeros(1)], **lr).defaults
        ours = getattr(optim, kind)(parameters(), **lr).state_dict()["options"]
        assert ours == {name: theirs[name] for name in ours}


def one(value, *gradients, optimizer, **options):
    """Where a single number goes under the given gradients."""
    parameter = Parameter(np.array([value]))
    update = optimizer([parameter], **options)
    for gradient in gradients:
        parameter.grad = np.array([gradient])
        update.step()
    return parameter.data[0]


def test_sgd_by_hand():
    # Dyadic numbers: every sum is exact.
    assert one(1.0, 2.0, optimizer=optim.SGD, lr=0.25) == 1 - 0.25 * 2
    assert one(1.0, 2.0, optimizer=optim.SGD, lr=0.25, weight_decay=0.5) == 1 - 0.25 * (2 + 0.5 * 1)
    # v = 2, then 0.5 * 2 + 4 = 5.
    assert one(1.0, 2.0, 4.0, optimizer=optim.SGD, lr=0.25, momentum=0.5) == 1 - 0.25 * 2 - 0.25 * 5
    # The step looks ahead: 2 + 0.5 * 2 = 3, then 4 + 0.5 * 5 = 6.5.
    assert one(1.0, 2.0, 4.0, optimizer=optim.SGD, lr=0.25, momentum=0.5, nesterov=True) == 1 - 0.25 * (
        3 + 6.5
    )


def test_adaptive_by_hand():
    # s = 9, then 9 + 16 = 25: steps of 3/3 and 4/5.
    assert one(1.0, 3.0, 4.0, optimizer=optim.Adagrad, lr=0.5, eps=0) == 1 - 0.5 * 1 - 0.5 * 4 / 5
    # lr decays to lr / (1 + 1).
    assert one(1.0, 3.0, 4.0, optimizer=optim.Adagrad, lr=0.5, lr_decay=1, eps=0) == 1 - 0.5 - 0.25 * 4 / 5
    # s = g^2 / 4: the step is g / (|g| / 2) = 2.
    assert one(1.0, 3.0, optimizer=optim.RMSprop, lr=0.25, alpha=0.75, eps=0) == 1 - 0.25 * 2
    # s - m^2 = 4/2 - (2/2)^2 = 1: the step is the gradient.
    assert one(1.0, 2.0, optimizer=optim.RMSprop, lr=0.25, alpha=0.5, eps=0, centered=True) == 1 - 0.25 * 2
    # s = 3/4 * 4 = 3, so sqrt(0 + 1) / sqrt(3 + 1) = 1/2 of the gradient.
    assert one(1.0, 2.0, optimizer=optim.Adadelta, lr=0.5, rho=0.25, eps=1) == 1 - 0.5 * 2 * (1 / 2)
    # Without eps the first step of Adam is lr, whatever the gradient.
    assert one(1.0, 8.0, optimizer=optim.Adam, lr=0.25, betas=(0.5, 0.75), eps=0) == 1 - 0.25
    # The second: m = 8/4 + 4/2 = 4 over 3/4, v = 3 * 64 / 16 + 16 / 4 = 16 over 7/16.
    second = one(1.0, 8.0, 4.0, optimizer=optim.Adam, lr=0.25, betas=(0.5, 0.75), eps=0)
    assert abs(second - (0.75 - 0.25 * (4 / 0.75) / np.sqrt(16 / 0.4375))) <= 4 * np.finfo(float).eps


@pytest.mark.parametrize("kind, options", CASES, ids=IDS)
def test_state_round_trip_continues_bit_for_bit(kind, options):
    through = getattr(optim, kind)(parameters(), **options)
    run(through, 0, STEPS)
    first = getattr(optim, kind)(parameters(), **options)
    run(first, 0, STEPS // 2)
    state = first.state_dict()
    second = getattr(optim, kind)(
        [Parameter(p.data.copy()) for p in first.params], **({"lr": 9} if kind == "SGD" else {})
    )
    second.load_state_dict(state)
    run(first, STEPS // 2, STEPS)  # must not disturb the state that was taken
    run(second, STEPS // 2, STEPS)
    for a, b, c in zip(through.params, first.params, second.params):
        assert np.array_equal(a.data, b.data) and np.array_equal(a.data, c.data)


def test_state_that_does_not_fit_changes_nothing():
    optimizer = optim.Adam(parameters())
    run(optimizer, 0, 2)
    good = optimizer.state_dict()
    other = optim.Adam(parameters(), lr=0.5)
    mean = good["state"]["0.mean"]
    for bad, message in [
        ({**good, "kind": "SGD"}, "the state is of SGD .need Adam"),
        ({**good, "options": {"lr": 1}}, "the state has options .'lr'."),
        (
            {**good, "state": {**good["state"], "2.mean": mean}},
            "'2.mean' belongs to no parameter .there are 2",
        ),
        ({**good, "state": {**good["state"], "0.meen": mean}}, "'0.meen' is no array of Adam"),
        ({**good, "state": {**good["state"], "0.mean": mean[:2]}}, r"'0.mean' has shape \(2, 4\)"),
        ({**good, "state": {**good["state"], "0.mean": mean.astype(complex)}}, "dtype complex128"),
    ]:
        with pytest.raises(ValueError, match=f"Adam.load_state_dict: .*{message}"):
            other.load_state_dict(bad)
        assert other.lr == 0.5 and not other.state_dict()["state"]


def test_parameters_without_gradient_stay():
    optimizer = optim.Adam(parameters(), weight_decay=0.1)
    before = [parameter.data.copy() for parameter in optimizer.params]
    optimizer.params[1].grad = np.ones(5)
    optimizer.step()
    assert np.array_equal(optimizer.params[0].data, before[0])
    assert not np.array_equal(optimizer.params[1].data, before[1])
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in optimizer.params)


def test_numpy_learning_rate_keeps_float32():
    optimizer = optim.SGD(parameters(np.float32), lr=np.float64(0.1), momentum=0.9)
    plain = optim.SGD(parameters(np.float32), lr=0.1, momentum=0.9)
    run(optimizer, 0, 3, np.float32)
    run(plain, 0, 3, np.float32)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(optimizer.params, plain.params))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda p: optim.SGD(p, lr=-1), ValueError, "SGD: lr is -1 .need >= 0"),
        (lambda p: optim.SGD(p, lr=float("nan")), ValueError, "SGD: lr is nan"),
        (lambda p: optim.SGD(p, lr=1, nesterov=True), ValueError, "SGD: momentum is 0 with nesterov"),
        (lambda p: optim.Adam(p, betas=(0.9, 1.0)), ValueError, "Adam: a beta is 1.0"),
        (lambda p: optim.Adadelta(p, rho=1.5), ValueError, "Adadelta: rho is 1.5"),
        (lambda p: optim.RMSprop(p, weight_decay=-0.1), ValueError, "RMSprop: weight_decay is -0.1"),
        (lambda p: optim.Adagrad([]), ValueError, "Adagrad: params is empty"),
        (lambda p: optim.Adam(p + p[:1]), ValueError, "Adam: params holds a parameter twice"),
        (
            lambda p: optim.Adam([q.data for q in p]),
            TypeError,
            "Adam: params holds ndarray .need nn.Parameter",
        ),
    ],
)
def test_faults(make, error, message):
    with pytest.raises(error, match=message):
        make(parameters())


def test_repr():
    assert repr(optim.SGD(parameters(), 0.1)) == "SGD(lr=0.1, momentum=0, nesterov=False, weight_decay=0)"
