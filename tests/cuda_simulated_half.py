"""float16 and bfloat16 in numba's simulator, against the reference on the same numbers.

Run by `test_cuda_simulator` like `cuda_simulated.py`, whose cases these are. Everything is computed in
float32 and rounded once, and so is the bound. bfloat16 lives in stand-ins for torch's tensors, since neither
NumPy nor numba have it.
"""

import numpy as np
import pytest
from cuda_device import check_short, strided
from cuda_simulated import CASES, CONVOLUTIONS
from cuda_simulated_host import Tensor, W, X, torch  # noqa: F401  torch is a fixture
from emulator.operations import from_bits, to_bits

import fastconv as fc
from fastconv import _arithmetic, nn, optim, testing, train
from fastconv._arguments import BFLOAT16
from fastconv.cuda import _arrays, _device_array
from fastconv.cuda._backend import half
from fastconv.testing import bounds
from fastconv.testing.operations import widened

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's of NaN and infinities

HALVES = ("float16", "bfloat16")


class Short(Tensor):
    """A torch tensor of bfloat16, whose array interface torch did not describe for a long time."""

    __module__ = "torch"

    def __init__(self, bits):
        super().__init__(bits)
        self.dtype = "torch.bfloat16"

    @property
    def __cuda_array_interface__(self):
        raise KeyError("torch.bfloat16")

    def reshape(self, *shape):
        return Short(self.array.reshape(*shape))


@pytest.fixture(autouse=True)
def tensors(torch):  # noqa: F811
    made = torch.empty
    torch.bfloat16, torch.float16 = "bfloat16", "float16"
    torch.uint8 = torch.int16 = torch.int32 = None  # no result is of these

    def empty(shape, dtype, device):
        return Short(np.empty(shape, np.uint16)) if dtype == "bfloat16" else made(shape, dtype, device)

    torch.empty = empty


def shortened(array, dtype):
    """The nearest numbers of 16 bits, as float32."""
    return (
        array.astype(np.float16).astype(np.float32)
        if dtype == "float16"
        else from_bits(to_bits(array, "bf16"), "bf16")
    )


def sent(array, dtype):
    """An array of numbers of 16 bits on the device, in its layout; other dtypes than float32 as they are."""
    if dtype == "float16":
        return strided(array.astype(np.float16) if array.dtype == np.float32 else array)
    if array.dtype != np.float32:
        return Tensor(np.ascontiguousarray(array))
    bits = np.empty_like(array, np.uint16)  # keeps the order of the axes
    bits[...] = to_bits(array, "bf16").reshape(array.shape)
    return Short(bits)


def fetched(array):
    """A result as float32, or as it is."""
    if isinstance(array, Short):
        return from_bits(array.array, "bf16")
    host = array.array if isinstance(array, Tensor) else fc.cuda.to_host(array)
    assert host.dtype != np.float32, "a result was not rounded to 16 bits"
    return host.astype(np.float32) if host.dtype == np.float16 else host


class Halves:
    """`fc.cuda` on 16 bits, for NumPy arrays of float32 that hold such numbers and get them back."""

    def __init__(self, dtype):
        self.dtype = dtype

    def __getattr__(self, name):
        function = getattr(fc.cuda, name)
        if name == "algorithms":
            return function

        def there_and_back(*args, **kwargs):
            there = {}

            def send(value):
                if isinstance(value, (np.ndarray, np.generic)):
                    return there.setdefault(id(value), (sent(np.asarray(value), self.dtype), value))[0]
                return value

            result = function(*map(send, args), **{k: send(v) for k, v in kwargs.items()})
            if name == "batch_norm" and kwargs.get("training"):
                for device, host in there.values():
                    host[...] = fetched(device).reshape(host.shape)
            if isinstance(result, tuple):
                return tuple(None if r is None else fetched(r) for r in result)
            return fetched(result)

        return there_and_back


def given(case, dtype, kind):
    """The inputs of a case, rounded to 16 bits, as float32."""
    return {
        name: shortened(a, dtype) if a is not None and a.dtype.char == "f" else a
        for name, a in case.inputs(np.dtype(np.float32), kind).items()
    }


TURNS = [(case, case.kinds[turn // 2 % len(case.kinds)], HALVES[turn % 2]) for turn, case in enumerate(CASES)]


@pytest.mark.parametrize(
    "case, kind, dtype", TURNS, ids=lambda v: v.name() if isinstance(v, testing.Case) else ""
)
def test_case(case, kind, dtype, tally):
    inputs = given(case, dtype, kind)
    wide = widened(inputs)
    expected = case.run(fc.reference, wide)
    limits = case.bounds(wide, expected, np.dtype(np.float32), kind)
    results = case.run(Halves(dtype), inputs, "auto")
    assert limits.keys() <= results.keys()
    for name, error in limits.items():
        floats = np.asarray(results[name]).dtype.kind == "f"
        limit = bounds.rounded(expected[name], error, dtype) if floats else error
        testing.compare(results[name], expected[name], limit, f"{case.name()} {dtype} {kind}: {name}")
    tally["simulator"] += 1


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("case", CONVOLUTIONS[::9], ids=lambda case: case.name())
def test_the_textbook_form(case, dtype):
    inputs = given(case, dtype, "exact")
    expected, found = case.run(fc.reference, widened(inputs)), case.run(Halves(dtype), inputs, "im2col")
    for name, value in expected.items():
        tanh = bounds.function(value, np.float32) if case.options.get("activation") else 0.0
        testing.compare(found[name], value, bounds.rounded(value, tanh, dtype), name)


# -- conversion ----------------------------------------------------------------------------------------------


EDGES = np.array(
    [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.4e38, 3.39e38, np.inf, -np.inf, np.nan,
     1e-40, 65504, 65519.9, 65520, 2**-24, 2**-25, 1.5 * 2**-24, -7.25],
    np.float32,
)  # fmt: skip


def test_bfloat16_is_rounded_to_nearest_even():
    bits = np.concatenate([EDGES.view(np.uint32), [0x7F800001, 0xFFFFFFFF, 0x007FFFFF, 0x80000001]]).astype(
        np.uint32
    )
    bits = np.concatenate([bits, np.random.default_rng(0).integers(0, 2**32, 200, np.uint32)])
    wide = bits.view(np.float32)
    call = _arrays.Call("narrow", fc.cuda.to_device(wide), Short(np.zeros(wide.shape, np.uint16)))
    half.narrowed(call, *call.arrays)
    found = call.arrays[1].owner.array
    expected = to_bits(wide, "bf16")
    nan = np.isnan(wide)
    assert (found[~nan] == expected[~nan]).all()
    assert np.isnan(from_bits(found[nan], "bf16")).all() and (found[nan] >> 15 == bits[nan] >> 31).all()
    back = half.widened(_arrays.Call("widen", Short(found)), _arrays.describe("widen", Short(found)))
    testing.same_bits(back.memory(), from_bits(found, "bf16"))


def test_float16_is_rounded_to_nearest_even():
    call = _arrays.Call("narrow", fc.cuda.to_device(EDGES), fc.cuda.to_device(EDGES.astype(np.float16) * 0))
    half.narrowed(call, *call.arrays)
    testing.same_bits(fc.cuda.to_host(call.arrays[1].owner), EDGES.astype(np.float16))


# -- what surrounds it ---------------------------------------------------------------------------------------


def on_device(dtype, array):
    return sent(np.asarray(array, np.float32), dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_problems_and_plans(dtype):
    x, w = on_device(dtype, X), on_device(dtype, W)
    plan = fc.plan("conv2d", x, w)
    word = {"float16": "f16", "bfloat16": "bf16"}[dtype]
    assert plan.algorithm == "simple" and plan.scratch_bytes == 4 * (X.size + W.size + 2 * 3 * 3 * 4)
    assert plan.refused["wgmma"] == plan.refused["mma"] == "needs a GPU"
    problem = fc._problem.ConvProblem.of(x, w, ndim=2, op="conv2d")
    assert problem.name == f"conv2d:n2c4h5w6k3r3s3_st1p0d1g1_{word}" and problem.dtype.name == dtype
    pool = fc._problem.PoolProblem.of(x, 2, ndim=2, op="max_pool2d")
    assert pool.name == f"max_pool2d:n2c4h5w6r2s2_st2p0d1_{word}"
    assert fc._problem.ConvProblem.of(x, w, ndim=2, op="conv2d") is problem


@pytest.mark.parametrize("dtype", HALVES)
def test_errors(dtype):
    x, w, single = on_device(dtype, X), on_device(dtype, W), fc.cuda.to_device(W)
    both = "all arrays must share one dtype, float16, bfloat16, float32 or float64; nothing is promoted"
    with pytest.raises(TypeError, match=f"conv2d: weight has dtype float32, x has {dtype} .{both}"):
        fc.conv2d(x, single)
    with pytest.raises(TypeError, match=f"linear: .*{both}"):
        fc.linear(on_device(dtype, X[0, 0]), fc.cuda.to_device(X[0, 0]))
    with pytest.raises(
        TypeError, match="relu: x has dtype int32, accepted: float16, bfloat16, float32 or float64"
    ):
        fc.relu(fc.cuda.to_device(X.astype(np.int32)))
    with pytest.raises(TypeError, match="conv2d: x has dtype int32, accepted: float16, bfloat16, float32 or"):
        fc.conv2d(fc.cuda.to_device(X.astype(np.int32)), w)
    with pytest.raises(TypeError, match="nll: target has dtype .*float16, accepted: an integer dtype"):
        fc.nll(on_device(dtype, X[0, 0]), on_device(dtype, X[0, 0, 0]))
    with pytest.raises(TypeError, match="max_pool2d_backward: indices has dtype .*float16, accepted: int64"):
        fc.max_pool2d_backward(x, x, X.shape)
    with pytest.raises(fc.UnsupportedError, match="conv2d: .*algorithm 'ffma'"):
        fc.conv2d(x, w, algorithm="ffma")
    with pytest.raises(TypeError, match="conv2d: out has dtype"):
        fc.conv2d(x, w, out=fc.cuda.to_device(np.zeros((2, 3, 3, 4), np.float32)))


def test_mixed_with_the_host():
    short, there = [a.astype(np.float16) for a in (X, W)], [on_device("float16", a) for a in (X, W)]
    for x, w in ((short[0], there[1]), (there[0], short[1])):
        with pytest.raises(fc.DeviceError, match="conv2d: 1 of 2 arrays live on a GPU"):
            fc.conv2d(x, w)
    with pytest.raises(TypeError, match=r"conv2d: x has dtype float16, accepted: float32 or float64 \(conv"):
        fc.conv2d(short[0], fc.cuda.to_device(W))


def test_the_host_takes_none():
    for namespace in (fc, fc.reference):
        with pytest.raises(
            TypeError, match=r"conv2d: x has dtype float16, accepted: float32 or float64 \(conv"
        ):
            namespace.conv2d(X.astype(np.float16), W.astype(np.float16))
    for call in (lambda x: fc.max_pool2d(x, 2), fc.relu, fc.softmax, lambda x: fc.im2col(x, 2)):
        with pytest.raises(TypeError, match=r"x has dtype float16, accepted: float32 or float64 \(conv"):
            call(X.astype(np.float16))


@pytest.mark.parametrize("dtype", HALVES)
def test_out(dtype):
    x, w, y = on_device(dtype, X), on_device(dtype, W), on_device(dtype, np.full((2, 3, 3, 4), np.nan))
    assert fc.conv2d(x, w, out=y) is y
    testing.same_bits(fetched(y), fetched(fc.conv2d(x, w)))
    with pytest.raises(ValueError, match="out shares memory with x"):
        fc.conv2d(x, on_device(dtype, np.ones((4, 4, 1, 1))), out=x)


def test_results_are_of_the_callers_kind(torch):  # noqa: F811
    y = fc.conv2d(*(Tensor(a.astype(np.float16)) for a in (X, W)))
    assert type(y) is Tensor and y.dtype == "torch.float16"
    assert type(fc.conv2d(Short(to_bits(X, "bf16")), Short(to_bits(W, "bf16")))) is Short

    class Described:
        shape, dtype, ndim = (2,), "bfloat16", 1

        def __init__(self):
            self.memory = np.zeros(2, np.uint16)
            pointer = (self.memory.ctypes.data, False)
            self.__cuda_array_interface__ = {"shape": (2,), "typestr": "<V2", "data": pointer, "version": 3}

    assert _arrays.describe("op", Described()).dtype is BFLOAT16
    own = fc.relu(Described())  # its library can make no arrays
    assert type(own) is _device_array.DeviceArray and own.dtype is BFLOAT16
    assert own.__cuda_array_interface__["typestr"] == "<V2"
    with pytest.raises(TypeError, match="to_host: a has dtype bfloat16, which NumPy lacks"):
        fc.cuda.to_host(Short(np.zeros(3, np.uint16)))


@pytest.mark.parametrize("dtype", HALVES)
def test_layers_move_arrays_without_computing(dtype):
    x = on_device(dtype, X)
    expected = shortened(X, dtype)
    testing.same_bits(fetched(_arithmetic.concatenate([x, x], 1)), np.concatenate([expected, expected], 1))
    parts = _arithmetic.split(x, [1, 3], 1)
    testing.same_bits(fetched(parts[1]), np.ascontiguousarray(expected[:, 1:]))
    testing.same_bits(fetched(_arithmetic.copy(x)), expected)
    assert _arithmetic.dtype(x).name == dtype and _arithmetic.kind(x) == "f"
    total = _arithmetic.add(x, x, 0.5)
    testing.compare(fetched(total), expected * 1.5, bounds.rounded(expected * 1.5, 0.0, dtype))
    testing.same_bits(
        fetched(_arithmetic.full_like(x, 1.1)), np.full(X.shape, shortened(np.float32(1.1), dtype))
    )
    with pytest.raises(
        fc.UnsupportedError, match="rule: a parameter has 16 bits, accepted: float32 or float64"
    ):

        def rule(a, b):
            return (a + b,)

        _arithmetic.apply(rule, [x], [x])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("case", [c for c in CASES if c not in CONVOLUTIONS][::29], ids=lambda c: c.name())
def test_arrays_of_our_own(case, dtype):
    """As hardware runs all cases (`test_cuda_gpu`): arrays that `to_device` converts, in place of torch's."""
    check_short(case, dtype, case.kinds[0])


# -- layers and training -------------------------------------------------------------------------------------


def widened_there(array):
    """The numbers of an array of numba's kind as float32."""
    return _arithmetic.to_host(array)


@pytest.mark.parametrize("dtype", HALVES)
def test_arrays_are_converted_on_the_device(dtype):
    there = fc.cuda.to_device(X + np.float32(0.1), dtype)
    assert _arithmetic.dtype(there).name == dtype
    testing.same_bits(widened_there(there), shortened(X + np.float32(0.1), dtype))
    testing.same_bits(fc.cuda.to_host(fc.cuda.to_device(there, "float32")), widened_there(there))
    assert fc.cuda.to_device(there, dtype) is there
    y = fc.cuda.relu(there)  # results are of the same kind and dtype
    assert _arithmetic.dtype(y).name == dtype
    with pytest.raises(TypeError, match="cast: int64 to float16, accepted: float16, bfloat16, float32, fl"):
        fc.cuda.to_device(np.arange(3), "float16")
    with pytest.raises(TypeError, match="cast: float32 to int8"):
        fc.cuda.to_device(X, "int8")


OPTIMISERS = [
    ("SGD", dict(lr=0.1)), ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    ("Adagrad", dict(weight_decay=0.1)), ("Adadelta", {}), ("Adam", dict(weight_decay=0.5)),
    ("RMSprop", dict(centered=True, momentum=0.5)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind, options", OPTIMISERS)
def test_masters_are_those_of_float32(kind, options, dtype):
    """Steps from the same start with the same gradients give the same float32 numbers, rounded into data."""
    rng = np.random.default_rng(0)
    start = shortened(rng.standard_normal((3, 5)).astype(np.float32), dtype)
    short = nn.Parameter(fc.cuda.to_device(start, dtype))
    single = nn.Parameter(fc.cuda.to_device(start))
    ours, theirs = (getattr(optim, kind)([p], **options) for p in (short, single))
    for _ in range(3):
        gradient = rng.standard_normal((3, 5)).astype(np.float32)
        short.grad = fc.cuda.to_device(gradient, dtype)
        single.grad = fc.cuda.to_device(short.grad, "float32")
        ours.step(), theirs.step()
    expected = fc.cuda.to_host(single.data)
    testing.same_bits(ours.state_dict()["state"]["0.master"], expected)
    testing.same_bits(widened_there(short.data), shortened(expected, dtype))
    again = getattr(optim, kind)([short], **options)
    again.load_state_dict(ours.state_dict())
    for name, array in ours.state_dict()["state"].items():
        testing.same_bits(again.state_dict()["state"][name], array)
    with pytest.raises(ValueError, match="'0.master' is no array of"):
        theirs.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("dtype", HALVES)
def test_small_steps_add_up_and_changed_parameters_count(dtype):
    parameter = nn.Parameter(fc.cuda.to_device(np.ones(9, np.float32), dtype))
    optimizer = optim.SGD([parameter], lr=2.0**-13)
    parameter.grad = fc.cuda.to_device(np.ones(9, np.float32), dtype)
    for _ in range(64):  # each less than half of what lies between two numbers of either dtype
        optimizer.step()
    assert (widened_there(parameter.data) == 1 - 2.0**-7).all()
    changed = np.ones(9, np.float32)
    changed[3] = 2
    parameter.data = fc.cuda.to_device(changed, dtype)
    optimizer.step()
    # where the data are what the master would be rounded to, nothing has changed
    expected = np.float32(changed - 2.0**-13)
    testing.same_bits(optimizer.state_dict()["state"]["0.master"], expected)


def network(dtype):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Flatten(),
        nn.Dropout(0.1, rng=2), nn.Linear(4, 2, rng=3),
    )  # fmt: skip
    return model.to("cuda", dtype)


def digits():
    x, y = fc.data.digits()
    return np.ascontiguousarray(x[:24, :, 1::2, 1::2], np.float32), (y[:24] % 2).astype(np.int64)


@pytest.mark.parametrize("dtype", HALVES)
def test_training(dtype, tmp_path):
    x, y = digits()
    data = fc.cuda.to_device(x, dtype), fc.cuda.to_device(y)
    settings = dict(batch_size=8, seed=0, progress=False)
    model = network(dtype)
    history = train.fit(
        model, data, epochs=3, optimizer=optim.Adam(model.parameters(), lr=0.1), **settings,
        checkpoint=tmp_path / "whole.npz",
    )  # fmt: skip
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    after = train.evaluate(model, data)
    assert after.loss < history[0]["loss"] and after.accuracy > 0.5 and after.outputs.dtype == np.float32
    names = {name: _arithmetic.dtype(array).name for name, array in model._state().items()}
    assert names["0.weight"] == names["6.bias"] == dtype
    assert {names[f"1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")} == {"float32"}
    # an interrupted run ends with the bits of a whole one, masters included
    part = network(dtype)
    for epochs in (1, 3):
        optimizer = optim.Adam(part.parameters(), lr=0.1)
        train.fit(
            part, data, epochs=epochs, optimizer=optimizer, **settings,
            checkpoint=tmp_path / "part.npz", resume=epochs == 3,
        )  # fmt: skip
    whole = model.state_dict()
    for name, array in part.state_dict().items():
        testing.same_bits(array, whole[name], name)


@pytest.mark.parametrize("dtype", HALVES)
def test_layers_there_and_back(dtype):
    model = network(dtype)
    state = model.state_dict()
    assert {a.dtype.name for a in state.values()} == {"float32", "int64"}
    other = network(dtype)
    for parameter in other.parameters():
        parameter.data = _arithmetic.full_like(parameter.data, 0.0)
    other.load_state_dict(state)
    assert _arithmetic.dtype(other._state()["0.weight"]).name == dtype
    for name, array in other.state_dict().items():
        testing.same_bits(array, state[name], name)
    model.to("cpu")
    x, _ = digits()
    short = widened_there(other(fc.cuda.to_device(x, dtype)))
    assert model._state()["0.weight"].dtype == np.float32
    # one rounding of values near 1 for each of five layers
    testing.compare(short, model(shortened(x, dtype)).astype(np.float64), 5 * 2 * bounds.unit(dtype))
    assert _arithmetic.dtype(other.to("cuda", "float32")._state()["0.weight"]) == np.float32


def test_words_of_to():
    for device, dtype in (("cpu", "float16"), ("cuda", "int8"), ("cpu", "half")):
        with pytest.raises(ValueError, match=f"to: dtype is '{dtype}' on '{device}' .need 'float32' or "):
            nn.Linear(2, 2).to(device, dtype)
    assert nn.Linear(2, 2).to("cpu", "float64").weight.dtype == np.float64


@pytest.mark.parametrize("dtype", HALVES)
def test_statistics_in_float32(dtype):
    rng = np.random.default_rng(0)
    x = shortened(rng.standard_normal((4, 3, 5)).astype(np.float32) + 4, dtype)
    kept = [rng.random(3).astype(np.float32) + np.float32(0.5) for _ in range(4)]
    there = fc.cuda.to_device(x, dtype), *map(fc.cuda.to_device, kept)
    wide = [a.astype(np.float64) for a in (x, *kept)]
    y = fc.cuda.batch_norm(*there, training=True)
    options = True, 0.1, 1e-5
    limits = bounds.batch_norm(*wide, *options, np.float32)
    expected = fc.reference.batch_norm(*wide, training=True)  # moves the statistics in `wide`
    testing.compare(widened_there(y), expected, bounds.rounded(expected, limits[0], dtype))
    for array, right, limit in zip(there[3:], wide[3:], limits[1:]):
        testing.compare(fc.cuda.to_host(array), right, limit)
    dx, dweight, dbias = fc.cuda.batch_norm_backward(there[0], there[0], there[1])
    assert [_arithmetic.dtype(a).name for a in (dx, dweight, dbias)] == [dtype, "float32", "float32"]
    with pytest.raises(TypeError, match="batch_norm: weight has dtype .*, x has float32"):
        fc.cuda.batch_norm(fc.cuda.to_device(x), fc.cuda.to_device(kept[0], dtype), None, *there[3:])
