"""What every layer is: initial values, registration and state, sharing, threads, containers, faults."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
from nn_samples import fill_with_integers, real, whole

import fastconv as fc
from fastconv import nn

# ---- initial values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer, bound",
    [
        (nn.Conv2d(8, 64, 3, rng=0), 1 / np.sqrt(8 * 9)),
        (nn.Conv1d(8, 64, 9, groups=4, rng=0), 1 / np.sqrt(2 * 9)),
        (nn.ConvTranspose2d(64, 8, 3, rng=0), 1 / np.sqrt(8 * 9)),
        (nn.Linear(50, 40, rng=0), 1 / np.sqrt(50)),
    ],
)
def test_initial_values_are_pytorchs(layer, bound):
    """Uniform in +-bound: PyTorch's kaiming_uniform(a=sqrt(5)), and the bias from the fan directly."""
    weight = layer.weight.data
    # Of n uniform values all stay more than a share s inside the bound with probability (1 - s)^n.
    share = 20 / weight.size
    assert bound * (1 - share) <= np.abs(weight).max() <= bound
    assert np.abs(layer.bias.data).max() <= bound
    # The mean of n has the standard deviation bound / sqrt(3 n).
    assert abs(weight.mean()) <= 5 * bound / np.sqrt(3 * weight.size)
    assert not np.array_equal(weight.ravel()[:8], layer.bias.data[:8])


def test_seeds_and_dtypes():
    a, b, c = nn.Linear(4, 3, rng=5), nn.Linear(4, 3, rng=5), nn.Linear(4, 3, rng=6)
    assert np.array_equal(a.weight.data, b.weight.data) and not np.array_equal(a.weight.data, c.weight.data)
    assert not np.array_equal(nn.Linear(4, 3).weight.data, nn.Linear(4, 3).weight.data)
    assert a.weight.dtype == np.float32 and nn.Linear(4, 3, dtype="float64").bias.dtype == np.float64
    with pytest.raises(TypeError, match="Linear: dtype is float16 .need float32 or float64"):
        nn.Linear(4, 3, dtype=np.float16)


@pytest.mark.parametrize(
    "function, std",
    [
        (nn.init.kaiming_normal, np.sqrt(2 / 36)),
        (nn.init.xavier_normal, np.sqrt(2 / (36 + 576))),
        (nn.init.xavier_uniform, np.sqrt(2 / (36 + 576))),
        (nn.init.kaiming_uniform, np.sqrt(1 / 36 / 3)),
        (lambda shape, **o: nn.init.kaiming_normal(shape, mode="fan_out", **o), np.sqrt(2 / 576)),
    ],
)
def test_init_schemes(function, std):
    weight = function((64, 4, 3, 3), rng=0, dtype=np.float64)
    # The variance of n values is off by sqrt(2 / n) of itself (normal; less for uniform).
    assert abs(weight.var() / std**2 - 1) <= 5 * np.sqrt(2 / weight.size)
    assert abs(weight.mean()) <= 5 * std / np.sqrt(weight.size)


# ---- registration and state --------------------------------------------------------------------------------


class Block(nn.Module):
    """Somebody's own layer: attributes, a list, a buffer."""

    def __init__(self, rng=None):
        self.scale = nn.Parameter(np.ones(3, np.float32))
        self.stem = nn.Sequential(nn.Conv2d(1, 3, 3, rng=rng), nn.BatchNorm2d(3))
        self.heads = [nn.Linear(4, 2, rng=rng), nn.Linear(4, 2, bias=False, rng=rng)]
        self.register_buffer("seen", np.zeros(2, np.float32))
        self.note = "not a parameter"

    def predict(self, x):
        return self.stem(x)

    def forward(self, x):
        return self.stem.forward(x)


NAMES = [
    "scale",
    "stem.0.weight",
    "stem.0.bias",
    "stem.1.weight",
    "stem.1.bias",
    "heads.0.weight",
    "heads.0.bias",
    "heads.1.weight",
]


def test_registration():
    block = Block()
    assert [name for name, _ in block.named_parameters()] == NAMES
    assert all(a is b for a, (_, b) in zip(block.parameters(), block.named_parameters(), strict=True))
    assert set(block.state_dict()) == {
        *NAMES,
        "seen",
        "stem.1.running_mean",
        "stem.1.running_var",
        "stem.1.num_batches_tracked",
    }
    assert [name for name, _ in block.named_modules()] == [
        "",
        "stem",
        "stem.0",
        "stem.1",
        "heads.0",
        "heads.1",
    ]
    block.extra = nn.ReLU()
    block.scale = None  # taken out
    assert "scale" not in dict(block.named_parameters())
    with pytest.raises(TypeError, match="Linear.weight is a Parameter, got ndarray .assign to .weight.data"):
        block.heads[0].weight = np.zeros((2, 4))


def test_state_dict_copies():
    block = Block()
    state = block.state_dict()
    block.scale.data += 1
    assert np.array_equal(state["scale"], np.ones(3))
    block.load_state_dict(state)
    state["scale"] += 5
    assert np.array_equal(block.scale.data, np.ones(3))


def test_load_state_dict_round_trip():
    one, two = Block(rng=1), Block(rng=2)
    assert two.load_state_dict(one.state_dict()) == ([], [])
    assert all(np.array_equal(a.data, b.data) for a, b in zip(one.parameters(), two.parameters()))
    assert two.load_state_dict({"scale": np.full(3, 2.0), "other": 0}, strict=False) == (
        [name for name in one.state_dict() if name != "scale"],
        ["other"],
    )
    assert two.scale.data.dtype == np.float32 and two.scale.data[0] == 2


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("heads.0.bias"), "missing heads.0.bias"),
        (lambda s: s.update({"stem.2.weight": np.ones(1)}), "unexpected stem.2.weight"),
        (lambda s: s.update({"scale": np.ones((3, 1))}), r"scale has shape \(3, 1\), the module \(3,\)"),
        (
            lambda s: s.update({"scale": np.ones(3, complex)}),
            "scale has dtype complex128, the module float32",
        ),
        (lambda s: s.update({"scale": np.array(["a", "b", "c"])}), "scale has dtype <U1"),
        (
            lambda s: s.update({"stem.1.num_batches_tracked": np.array(0.5)}),
            "num_batches_tracked has dtype float64",
        ),
    ],
)
def test_nothing_is_half_loaded(change, message):
    block = Block(rng=1)
    state, before = Block(rng=2).state_dict(), block.state_dict()
    change(state)
    with pytest.raises(ValueError, match=f"Block.load_state_dict: .*{message}"):
        block.load_state_dict(state)
    assert all(np.array_equal(array, before[name]) for name, array in block.state_dict().items())


def test_all_faults_are_named_at_once():
    state = Block().state_dict()
    del state["scale"], state["seen"]
    state["heads.0.bias"] = np.ones(7)
    with pytest.raises(ValueError, match="missing scale, seen; heads.0.bias has shape"):
        Block().load_state_dict(state)


def test_shared_weights():
    layer = fill_with_integers(nn.Linear(3, 3))
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(twice.parameters()) == 2
    assert set(twice.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}  # as PyTorch saves it
    x = whole((2, 3))
    y, backward = twice.forward(x)
    backward(np.ones_like(y))
    hidden, first = layer.forward(x)
    _, second = layer.forward(fc.relu(hidden))
    expected = layer.weight.grad
    layer.zero_grad()
    first(fc.relu_backward(second(np.ones_like(y)), fc.relu(hidden)))
    assert np.array_equal(layer.weight.grad, expected)
    state = twice.state_dict()
    state["2.weight"] = state["2.weight"] + 1
    with pytest.raises(
        ValueError, match="2.weight and 0.weight are one shared parameter but have different values"
    ):
        twice.load_state_dict(state)


def test_backward_twice_adds_twice():
    layer = fill_with_integers(nn.Conv2d(1, 2, 2))
    y, backward = layer.forward(whole((1, 1, 4, 4)))
    assert layer.weight.grad is None
    backward(np.ones_like(y))
    once = layer.weight.grad
    backward(np.ones_like(y))
    assert np.array_equal(layer.weight.grad, 2 * once)  # and `once` was not written
    layer.zero_grad()
    assert layer.weight.grad is None and layer.bias.grad is None


def test_accumulate_checks_the_shape():
    with pytest.raises(ValueError, match=r"gradient has shape \(2,\), the parameter \(3,\)"):
        nn.Parameter(np.zeros(3)).accumulate(np.zeros(2))


def test_threads_share_a_layer():
    """Many threads run forward and backward at once: integer gradients add up exactly, whatever the order."""
    model = fill_with_integers(
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 2))
    )
    model[1].weight.data[:] = 0  # what comes out of the norm is its integer bias
    inputs = [whole((2, 2, 4, 4), seed) for seed in range(16)]

    def work(part):
        for x in part:
            y, backward = model.forward(x)
            backward(np.ones_like(y))

    work(inputs)
    expected, batches = (
        [parameter.grad for parameter in model.parameters()],
        int(model[1].num_batches_tracked),
    )
    model.zero_grad()
    threads = [threading.Thread(target=work, args=(inputs[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gradients = dict(zip([name for name, _ in model.named_parameters()], zip(model.parameters(), expected)))
    for name in ("3.weight", "3.bias", "1.bias"):
        assert np.array_equal(gradients[name][0].grad, gradients[name][1]), name
    assert model[1].num_batches_tracked == 2 * batches == 32


def test_memory_goes_with_the_closure():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2))
    x = whole((1, 1, 6, 6))
    alive = weakref.ref(x)
    gc.collect()
    gc.disable()  # by reference counts alone: no cycles
    try:
        y, backward = model.forward(x)
        del x
        assert alive() is not None  # needed for the gradient of the weight
        backward(np.ones_like(y))
        del backward
        assert alive() is None
        x = whole((1, 1, 6, 6))
        alive = weakref.ref(x)
        y = model(x)
        del x
        assert alive() is None  # a prediction keeps nothing
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "layer",
    [
        nn.ReLU(),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Softmax(),
        nn.Dropout(0.5),
        nn.Maxout(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_closures_keep_no_input_they_do_not_need(layer):
    x = real((2, 2, 4, 4), dtype=np.float32)
    alive = weakref.ref(x)
    y, backward = layer.forward(x)
    del x
    assert alive() is None
    assert backward(np.ones_like(y)).shape == (2, 2, 4, 4)


def test_copies_and_pickles():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=0), nn.BatchNorm2d(2), nn.Dropout(0.5, rng=1))
    x = real((2, 1, 5, 5), dtype=np.float32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(twin(x), model(x)) and twin[0].weight is not model[0].weight
        y, backward = twin.forward(x)
        backward(y)
        assert twin[0].weight.grad is not None and model[0].weight.grad is None


# ---- containers --------------------------------------------------------------------------------------------


def test_sequential_names_and_slices():
    a, b, c = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    assert [name for name, _ in nn.Sequential(a, b, c).named_parameters()] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    named = nn.Sequential(first=a, act=b, last=c)
    assert [name for name, _ in named.named_parameters()][0] == "first.weight" and named.last is c
    assert list(nn.Sequential({"first": a, "last": c}).state_dict()) == [
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
    ]
    assert len(named) == 3 and named[-1] is c and list(named) == [a, b, c]
    assert list(named[1:].named_children()) == [("act", b), ("last", c)]
    assert nn.Sequential(a).append(b)[1] is b
    x = whole((2, 2))
    y, backward = nn.Sequential().forward(x)
    assert y is x and backward(x) is x


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: nn.Sequential(np.tanh), TypeError, "layer '0' is ufunc .need an nn.Module"),
        (lambda: nn.Sequential(forward=nn.ReLU()), ValueError, "'forward' cannot be a layer's name"),
        (lambda: nn.Sequential({"a.b": nn.ReLU()}), ValueError, "'a.b' cannot be a layer's name"),
        (lambda: nn.Sequential(nn.ReLU(), act=nn.ReLU()), TypeError, "got unnamed and named layers"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "Conv2d: in_channels=3, out_channels=4, groups=2"),
        (lambda: nn.Conv2d(0, 4, 3), ValueError, "Conv2d: in_channels is 0 .need >= 1"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ValueError, r"Conv2d: kernel_size is \(3, 3, 3\)"),
        (lambda: nn.Conv2d(3, 4, 2.5), TypeError, "Conv2d: kernel_size is 2.5 .need an int or a tuple of 2"),
        (lambda: nn.Linear("3", 4), TypeError, "Linear: in_features is '3' .need an int"),
        (
            lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"),
            ValueError,
            "padding_mode is 'reflect' .need 'zeros'",
        ),
        (lambda: nn.MSELoss(reduction="average"), ValueError, "MSELoss: reduction is 'average'"),
        (lambda: nn.Module()(1), NotImplementedError, "Module does not define predict"),
        (lambda: nn.Module().forward(1), NotImplementedError, "Module does not define forward"),
        (lambda: nn.Flatten(3)(np.zeros((2, 3))), ValueError, "Flatten: axes 3 to -1 of an array with 2"),
        (
            lambda: nn.Residual(nn.Linear(3, 1))(whole((2, 3))),
            ValueError,
            r"main gives shape \(2, 1\), the shortcut \(2, 3\)",
        ),
        (
            lambda: nn.Parallel(nn.MaxPool2d(2), nn.ReLU())(whole((2, 3, 4, 4))),
            ValueError,
            "the branches give shapes",
        ),
        (lambda: nn.Parallel().forward(whole((2, 3))), ValueError, "need at least one"),
        (lambda: nn.init.fans((3,)), ValueError, "has 1 axes .need at least 2"),
    ],
)
def test_faults(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_to():
    model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.BatchNorm1d(3))
    before = model.state_dict()
    assert model.to("cpu") is model
    if not fc.cuda.is_available():
        with pytest.raises(fc.DeviceError):
            model.to("cuda")
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())
    with pytest.raises(ValueError, match="to: device is 'tpu' .need 'cpu' or 'cuda'"):
        model.to("tpu")


def test_repr():
    model = nn.Sequential(
        conv=nn.Conv2d(1, 6, 5, padding="same", bias=False),
        pool=nn.MaxPool2d(2),
        block=nn.Residual(nn.ReLU()),
        norm=nn.BatchNorm2d(6),
        drop=nn.Dropout(0.5),
    )
    assert (
        repr(model)
        == """\
Sequential(
  (conv): Conv2d(1, 6, kernel_size=(5, 5), stride=1, padding='same', bias=False)
  (pool): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, return_indices=False, ceil_mode=False)
  (block): Residual(
    (main): ReLU()
  )
  (norm): BatchNorm2d(6, eps=1e-05, momentum=0.1)
  (drop): Dropout(p=0.5)
)"""
    )
    assert repr(nn.ConvTranspose1d(2, 4, 3, output_padding=1, stride=2, groups=2)) == (
        "ConvTranspose1d(2, 4, kernel_size=(3,), stride=2, output_padding=1, groups=2)"
    )
    assert repr(nn.CrossEntropyLoss(label_smoothing=0.1)) == (
        "CrossEntropyLoss(weight=None, ignore_index=-100, reduction='mean', label_smoothing=0.1)"
    )
    assert repr(nn.Linear(2, 3).weight) == "Parameter(shape=(3, 2), dtype=float32)"


def test_a_layer_of_ones_own():
    """The contract for subclasses: forward, predict, a Parameter."""

    class Scale(nn.Module):
        def __init__(self, channels):
            self.weight = nn.Parameter(np.full(channels, 2.0))

        def predict(self, x):
            return x * self.weight.data

        def forward(self, x):
            def backward(dy):
                self.weight.accumulate((dy * x).sum(axis=0))
                return dy * self.weight.data

            return self.predict(x), backward

    model = nn.Sequential(nn.Linear(3, 4, rng=0, dtype=np.float64), Scale(4), nn.Tanh())
    assert fc.check_gradient(model.forward, real((5, 3))).ok
    assert "1.weight" in model.state_dict()
