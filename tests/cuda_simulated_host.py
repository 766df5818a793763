"""What surrounds the kernels, in numba's simulator: checks, errors, others' arrays, layers, training.

Run by `test_cuda_simulator` like `cuda_simulated.py`.
"""

import contextlib
import sys
import types

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, optim, testing, train
from fastconv.cuda import _arrays, _checks, _dlpack

to_device, to_host = fc.cuda.to_device, fc.cuda.to_host
RNG = np.random.default_rng(7)
X = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
W = RNG.standard_normal((3, 4, 3, 3)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


# -- moving arrays -------------------------------------------------------------------------------------------


def test_there_and_back():
    for array in (
        X,
        X[0],
        X[:, ::-1, ::2],
        X.transpose(0, 2, 3, 1),
        np.zeros(()),
        np.zeros((0, 3)),
        X.astype(">f4"),
    ):
        back = to_host(to_device(array))
        testing.same_bits(
            back, np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
        )
    device = to_device(X)
    assert to_device(device) is device and to_host(X) is X
    testing.same_bits(to_host(device.transpose((0, 2, 3, 1))), np.ascontiguousarray(X.transpose(0, 2, 3, 1)))
    assert to_host(to_device(np.array([True, False]))).tolist() == [True, False]
    fc.cuda.synchronize()
    with pytest.raises(TypeError, match="to_device: a must be a NumPy array, got list"):
        to_device([1.0])
    with pytest.raises(TypeError, match="to_device: a has dtype complex128"):
        to_device(np.zeros(3, complex))


def test_strided_results_of_any_rank():
    deep = np.arange(2.0**10).reshape((2,) * 10)
    odd = deep.transpose(9, 1, 7, 3, 5, 4, 6, 2, 8, 0)
    placed = cuda_array(odd)
    testing.same_bits(to_host(fc.relu(placed)), np.ascontiguousarray(odd))


def cuda_array(array):
    """A device array of the same strides, in the memory of a NumPy array."""
    from numba import cuda

    return cuda.devicearray.FakeCUDAArray(array)


# -- errors --------------------------------------------------------------------------------------------------


def test_mixed_with_the_host():
    x, w = to_device(X), to_device(W)
    with pytest.raises(fc.DeviceError, match="conv2d: 1 of 2 arrays live on a GPU"):
        fc.conv2d(x, W)
    with pytest.raises(fc.DeviceError, match="conv2d: 2 of 3 arrays live on a GPU"):
        fc.conv2d(x, w, out=np.zeros((2, 3, 3, 4), np.float32))
    with pytest.raises(fc.DeviceError, match="relu: an array of type ndarray lives on the host .*to_device"):
        fc.cuda.relu(X)
    with pytest.raises(fc.DeviceError, match="conv2d: the reference computes on host arrays"):
        fc.reference.conv2d(x, w)
    with pytest.raises(fc.DeviceError, match="softmax_cross_entropy: 1 of 2"):
        fc.softmax_cross_entropy(to_device(X[0, 0]), np.zeros(5, int))


def test_several_devices(monkeypatch):
    x, w = to_device(X), to_device(W)
    describe = _arrays._Own.describe
    ordinal = {x.pointer: 0, w.pointer: 1}
    monkeypatch.setattr(
        _arrays._Own, "describe", lambda self, op, a: (*describe(self, op, a)[:4], ordinal[a.pointer])
    )
    with pytest.raises(fc.DeviceError, match="conv2d: the arrays live on devices 0, 1"):
        fc.conv2d(x, w)


def test_outputs():
    x, w = to_device(X), to_device(W)
    for out, error, message in (
        (np.zeros((2, 3, 3, 5), np.float32), ValueError, "out has shape .2, 3, 3, 5., need .2, 3, 3, 4."),
        (np.zeros((2, 3, 3, 4)), TypeError, "out has dtype float64, need float32"),
        (
            np.zeros((2, 3, 3, 8), np.float32)[..., ::2],
            ValueError,
            "out has strides .*need a C-contiguous array",
        ),
    ):
        with pytest.raises(error, match=f"conv2d: {message}"):
            fc.conv2d(x, w, out=cuda_array(out))
    whole = cuda_array(np.zeros(X.size, np.float32))
    x_in_it, out = whole.reshape(X.shape), whole[:72].reshape(2, 3, 3, 4)
    with pytest.raises(ValueError, match="conv2d: out shares memory with x"):
        fc.conv2d(x_in_it, w, out=out)


def test_arguments_are_checked_as_on_the_host():
    with pytest.raises(ValueError, match="conv2d: weight has 3 input channels, x has 4"):
        fc.conv2d(to_device(X), to_device(W[:, :3].copy()))
    with pytest.raises(TypeError, match="relu: x has dtype int16"):
        fc.relu(to_device(X.astype(np.int16)))
    with pytest.raises(TypeError, match="conv2d: weight has dtype float64, x has float32"):
        fc.conv2d(to_device(X), to_device(W.astype(np.float64)))
    swapped = cuda_array(X.astype(X.dtype.newbyteorder("S")))
    with pytest.raises(TypeError, match="relu: an array on the device has dtype .*native byte order"):
        fc.relu(swapped)


# -- targets and indices out of range ------------------------------------------------------------------------

SCORES = RNG.standard_normal((4, 3)).astype(np.float32)


def wrong_calls():
    scores = to_device(SCORES)
    for bad in (3, -1):
        target = to_device(np.array([0, bad, 2, 99]))
        for op in (fc.softmax_cross_entropy, fc.nll, fc.hinge):
            rule = r"target {} is not a class .need 0 <= target < 3"
            yield f"{op.__name__}: {rule}", bad, lambda op=op, target=target: op(scores, target)
    dy, indices = to_device(X), np.zeros(X.shape, np.int64)
    indices[0, 1, 2, 3] = 20
    yield (
        r"max_pool2d_backward: index {} is outside the plane of 20 elements .need 0 <= index < 20, or -1",
        20,
        lambda: fc.max_pool2d_backward(dy, to_device(indices), (2, 4, 4, 5)),
    )
    yield (
        r"maxout_backward: index {} is not one of 3 pieces",
        20,
        lambda: fc.maxout_backward(dy, to_device(indices), 3),
    )


@pytest.mark.parametrize("number", range(8))
def test_out_of_range(number):
    message, value, call = list(wrong_calls())[number]
    for _ in range(2):  # the second time with a flag that has been raised before
        with pytest.raises(ValueError, match=message.format(value)):
            call()
    with pytest.raises(ValueError, match=message.format("at flat position [0-9]+")):
        with fc.cuda.deferred_checks(), fc.cuda.deferred_checks():
            call()
    with pytest.raises(ZeroDivisionError), fc.cuda.deferred_checks():
        call()
        1 / 0  # noqa: B018
    right = to_device(np.array([0, 1, 2, -100]))
    loss, _ = fc.softmax_cross_entropy(to_device(SCORES), right)
    expected, _ = fc.softmax_cross_entropy(SCORES, to_host(right))
    testing.compare(to_host(loss), expected, testing.bound(np.abs(expected), 64, np.float32))


def test_unsigned_targets_beyond_int64():
    with pytest.raises(ValueError, match="nll: target 18446744073709551615 is not a class"):
        fc.nll(to_device(SCORES), to_device(np.array([0, 2**64 - 1, 1, 2], np.uint64)))


def test_deferred_checks_keep_the_host_from_waiting(monkeypatch):
    monkeypatch.setattr(_checks, "_read", None)  # reading a flag would fail
    with contextlib.suppress(TypeError), fc.cuda.deferred_checks():
        fc.hinge(to_device(SCORES), to_device(np.array([0, 1, 2, 0])))
        reached = True
    assert reached


# -- one sample, no axes, random masks -----------------------------------------------------------------------


def test_one_sample():
    for target in (np.array(1), np.array([0.2, 0.3, 0.5], np.float32)):
        for reduction in ("mean", "none"):
            ours = fc.softmax_cross_entropy(to_device(SCORES[0]), to_device(target), reduction=reduction)
            theirs = fc.softmax_cross_entropy(SCORES[0], target, reduction=reduction)
            for a, b in zip(ours, theirs):
                assert a.shape == np.shape(b)
                testing.compare(to_host(a), b, testing.bound(np.abs(b) + 1, 16, np.float32))
    y = fc.softmax(to_device(np.float32(3.0)))
    assert y.shape == () and to_host(y) == 1
    assert to_host(fc.softmax_backward(y, y)) == 0
    testing.same_bits(
        to_host(fc.conv2d(to_device(X[0]), to_device(W))), to_host(fc.conv2d(to_device(X), to_device(W)))[0]
    )


@pytest.mark.parametrize("shape", [(), (1,), (2,), (7, 3), (129,), (128, 3), (5, 1000), (0, 3)])
def test_masks_are_those_of_the_generator(shape):
    for p in (0.0, 0.1, 0.5, 1 / 3, 1.0):
        for make in (np.random.default_rng, lambda seed: np.random.Generator(np.random.Philox(seed))):
            ours, theirs = make(3), make(3)
            for generator in (ours, theirs):
                generator.random(3, dtype=np.float32)  # leaves half a draw behind
            for _ in range(3):
                x = np.ones(shape, np.float32)
                mask = to_host(fc.dropout(to_device(x), p, rng=ours)[1])
                testing.same_bits(mask, fc.dropout(x, p, rng=theirs)[1])
            assert ours.random() == theirs.random()
            assert ours.random(3, np.float32).tolist() == theirs.random(3, np.float32).tolist()


# -- arrays of other libraries -------------------------------------------------------------------------------


class Tensor:
    """What `fastconv` uses of a torch tensor on "cuda", around a NumPy array."""

    __module__ = "torch"
    requires_grad, is_cuda = False, True

    def __init__(self, array, device=0):
        self.array, self.device = array, types.SimpleNamespace(index=device)
        self.shape, self.ndim, self.dtype = array.shape, array.ndim, f"torch.{array.dtype.name}"

    @property
    def __cuda_array_interface__(self):
        if self.requires_grad:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")
        pointer = self.array.ctypes.data
        return {"shape": self.shape, "typestr": self.array.dtype.str, "data": (pointer, False), "version": 2,
                "strides": self.array.strides}  # fmt: skip

    def data_ptr(self):
        return self.array.ctypes.data

    def stride(self):
        return tuple(stride // self.array.itemsize for stride in self.array.strides)

    def element_size(self):
        return self.array.itemsize

    def numel(self):
        return self.array.size

    def reshape(self, *shape):
        return Tensor(self.array.reshape(*shape))


@pytest.fixture
def torch(monkeypatch):
    """A library that makes such tensors, named torch; .made: their shapes."""
    library = types.ModuleType("torch")
    library.made = []

    def empty(shape, dtype, device):
        library.made.append(tuple(shape))
        return Tensor(np.empty(shape, dtype))

    library.empty, library.device = empty, lambda kind, index: (kind, index)
    for name in ("float32", "float64", "int64", "uint8", "bool"):
        setattr(library, name, name)
    library.cuda = types.SimpleNamespace(
        current_stream=lambda device: types.SimpleNamespace(cuda_stream=1234 + device)
    )
    monkeypatch.setitem(sys.modules, "torch", library)
    return library


def test_torch(torch):
    y = fc.conv2d(Tensor(X), Tensor(W), padding=1)
    assert type(y) is Tensor and torch.made == [(2, 3, 5, 6)]
    expected = fc.cuda.conv2d(to_device(X), to_device(W), padding=1)
    testing.same_bits(y.array, to_host(expected))
    assert type(fc.relu(y)) is Tensor and to_host(y).shape == y.shape
    y, indices = fc.max_pool2d(Tensor(X[:, :, ::-1]), 2, return_indices=True)
    testing.same_bits(indices.array, fc.max_pool2d(X[:, :, ::-1], 2, return_indices=True)[1])
    dx = fc.max_pool2d_backward(y, indices, X.shape)
    assert type(dx) is Tensor and dx.shape == X.shape
    loss, _ = fc.softmax_cross_entropy(Tensor(SCORES), Tensor(np.array([0, 1, 2, 0])))
    assert type(loss) is Tensor and loss.shape == ()
    with pytest.raises(ValueError, match="target 3 is not a class"):
        fc.softmax_cross_entropy(Tensor(SCORES), Tensor(np.array([0, 3, 2, 0])))
    call = _arrays.Call("op", Tensor(X), to_device(W))
    assert call.stream == 1234 and call.device == 0
    with pytest.raises(fc.DeviceError, match="op: the arrays live on devices 0, 1"):
        _arrays.Call("op", Tensor(X), Tensor(W, device=1))


def test_torch_tensors_that_require_a_gradient(torch):
    x = Tensor(X)
    x.requires_grad = True
    with pytest.raises(
        TypeError, match=r"relu: x requires a gradient, which would not be recorded .pass x.detach"
    ):
        fc.relu(x)


class Foreign:
    """An array of a library that has the CUDA array interface alone."""

    def __init__(self, array, **more):
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        pointer = array.ctypes.data
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (pointer, False), "version": 3,
            "strides": array.strides, **more,
        }  # fmt: skip


def test_the_array_interface():
    for array in (X, X.transpose(0, 3, 1, 2)[:, ::2]):
        testing.same_bits(
            to_host(fc.tanh(Foreign(array))), to_host(fc.tanh(to_device(np.ascontiguousarray(array))))
        )
    y = fc.relu(Foreign(np.ascontiguousarray(X), strides=None))
    testing.same_bits(to_host(y), np.maximum(X, 0))
    assert _arrays.Call("op", Foreign(X, stream=99)).stream == 99
    with pytest.raises(TypeError, match="relu: an array on the device has a mask"):
        fc.relu(Foreign(X, mask=object()))
    mean, var = np.zeros(4, np.float32), np.ones(4, np.float32)
    readonly = Foreign(mean, data=(mean.ctypes.data, True))
    with pytest.raises(ValueError, match="batch_norm: running_mean is read-only"):
        fc.batch_norm(Foreign(X), None, None, readonly, Foreign(var), training=True)
    fc.batch_norm(Foreign(X), None, None, Foreign(mean), Foreign(var), training=True)
    assert mean.any()  # updated in place
    with pytest.raises(ValueError, match="running_var shares memory with running_mean"):
        fc.batch_norm(Foreign(X), None, None, Foreign(mean), Foreign(mean), training=True)


class OnlyDlpack:
    """An array of a library that has DLPack alone; its capsules are NumPy's, with the device rewritten."""

    def __init__(self, array, kind=2):
        self.array, self.kind, self.streams = array, kind, []
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        tensor = _dlpack.Tensor.from_address(_dlpack.pointer_of(capsule, _dlpack.NAME))
        tensor.device.type = self.kind
        return capsule


def test_dlpack():
    for array in (X, X[:, 1:, ::2], X.transpose(0, 2, 3, 1), X[:0]):
        there = OnlyDlpack(array)
        testing.same_bits(to_host(fc.relu(there)), np.ascontiguousarray(np.maximum(array, 0)))
        assert there.streams and set(there.streams) == {1}
    assert _arrays.describe("op", OnlyDlpack(np.arange(3, dtype=np.uint8))).dtype == np.uint8
    with pytest.raises(fc.DeviceError, match="relu: DLPack names device type 10, need CUDA"):
        fc.relu(OnlyDlpack(X, kind=10))
    assert not fc._arguments.on_device(type("Host", (), {"__dlpack_device__": lambda self: (1, 0)})())


# -- calls that are recorded and replayed --------------------------------------------------------------------


def twice(function, *arguments):
    """The results on arrays of one layout, of which only the second call is replayed."""
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        given = [rng.standard_normal(a).astype(np.float32) if type(a) is tuple else a for a in arguments]
        yield given, function(*(to_device(a) if isinstance(a, np.ndarray) else a for a in given))


def test_replayed_calls_see_their_own_arrays():
    for (x, w, b), y in twice(lambda x, w, b: fc.conv2d(x, w, b, padding=1), X.shape, W.shape, (3,)):
        testing.compare(to_host(y), *bounded(fc.conv2d, x, w, b, padding=1))
    for (dy, y), dx in twice(fc.relu_backward, X.shape, X.shape):
        testing.same_bits(to_host(dx), fc.relu_backward(dy, y))
    for (x,), (y, at) in twice(lambda x: fc.max_pool2d(x, 2, return_indices=True), X.shape):
        for ours, theirs in zip((y, at), fc.max_pool2d(x, 2, return_indices=True)):
            testing.same_bits(to_host(ours), theirs)


def bounded(function, x, w, b, **options):
    wide = [a.astype(np.float64) for a in (x, w, b)]
    expected = getattr(fc.reference, function.__name__)(*wide, **options)
    magnitude = getattr(fc.reference, function.__name__)(*map(np.abs, wide), **options)
    return expected, testing.bound(magnitude, w[0].size + 1, np.float32)


def test_an_array_that_was_given_twice_is_not_taken_for_one():
    x, dy = RNG.standard_normal((7, 3)).astype(np.float32), RNG.standard_normal((7, 3)).astype(np.float32)
    there, other = to_device(x), to_device(dy)
    testing.same_bits(to_host(fc.tanh_backward(there, there)), to_host(fc.tanh_backward(to_device(x), there)))
    found, expected = to_host(fc.tanh_backward(other, there)), fc.tanh_backward(dy, x)
    testing.compare(found, expected, testing.bound(np.abs(dy) * (1 + x * x), 4, np.float32))


def test_what_a_plan_is_found_by():
    """Layout, distance from a multiple of 16 bytes, options, precision: whatever could change a launch."""
    from fastconv.cuda import _backend

    plans = _backend.conv_forward.plans
    whole = to_device(np.zeros(X.size + 1, np.float32))
    x, w = to_device(X), to_device(W)
    plans.clear()
    for _ in range(2):
        fc.conv2d(x, w)
        fc.conv2d(whole[: X.size].reshape(X.shape), w)
    assert len(plans) == 1
    fc.conv2d(whole[1:].reshape(X.shape), w)
    assert len(plans) == 2
    fc.conv2d(x, w, padding=1)
    fc.conv2d(x[:, :, ::-1], w)
    with fc.precision("strict"):
        fc.conv2d(x, w)
    fc.conv2d(Foreign(X), w)
    fc.conv2d(x, w, out=to_device(np.zeros((2, 3, 3, 4), np.float32)))
    assert len(plans) == 7


def test_replayed_calls_check_their_indices():
    for labels in ([0, 1, 2, 0], [1, 1, 1, 1]):
        fc.nll(to_device(SCORES), to_device(np.array(labels)))
    for wrong in (3, 17):
        with pytest.raises(ValueError, match=f"nll: target {wrong} is not a class"):
            fc.nll(to_device(SCORES), to_device(np.array([0, wrong, 2, 0])))


def test_results_of_replayed_calls_are_of_the_callers_kind(torch):
    for _ in range(3):
        assert type(fc.relu(Tensor(X))) is Tensor and fc.relu(to_device(X)).shape == X.shape
        y, indices = fc.max_pool2d(Tensor(X), 2, return_indices=True)
        assert type(y) is type(indices) is Tensor
        out = Tensor(np.zeros((2, 3, 3, 4), np.float32))
        assert fc.conv2d(Tensor(X), to_device(W), out=out) is out and out.array.any()


def test_own_arrays_are_arrays():
    host = np.arange(2.0 * 3 * 4).reshape(2, 3, 4)
    there = to_device(host)
    assert (len(there), there.ndim, there.size, there.nbytes, there.itemsize) == (2, 3, 24, 192, 8)
    for index in (1, slice(None, None, -1), (..., 2), (slice(1, 2), 0), (0, slice(5, 9)), (-1, 2, 3), ()):
        testing.same_bits(to_host(there[index]), np.array(host[index], order="C"))
    testing.same_bits(to_host(there.T), np.ascontiguousarray(host.T))
    testing.same_bits(to_host(there.transpose(1, 0, 2)), np.ascontiguousarray(host.transpose(1, 0, 2)))
    testing.same_bits(to_host(there.reshape(4, -1)), host.reshape(4, 6))
    assert there.on_stream(77).stream == 77 and fc.relu(there.on_stream(77)).stream == 77
    for wrong, error in ((lambda: there[2], IndexError), (lambda: there[0, 0, 0, 0], IndexError),
                         (lambda: there.reshape(5, 5), ValueError), (lambda: there.T.reshape(24), ValueError),
                         (lambda: there.transpose(0, 0, 1), ValueError),
                         (lambda: np.asarray(there), TypeError),
                         (lambda: len(there[0, 0, 0]), TypeError)):  # fmt: skip
        with pytest.raises(error):
            wrong()


def test_own_arrays_go_through_dlpack():
    import gc
    import weakref

    class Only:
        """An array that its library knows by its capsule alone."""

        def __init__(self, array):
            self.array, self.shape, self.ndim, self.dtype = array, array.shape, array.ndim, array.dtype

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

        def __dlpack__(self, stream):
            return self.array.__dlpack__(stream=stream)

    for dtype in (np.float32, np.float64, np.int64, np.uint8, np.bool_):
        host = np.arange(12).reshape(3, 4).astype(dtype)
        there = to_device(host)[:, ::-2]
        testing.same_bits(to_host(Only(there)), np.ascontiguousarray(host[:, ::-2]))
    known = weakref.ref(there)
    capsule = there.__dlpack__()
    del there
    assert known() is not None
    del capsule
    gc.collect()
    assert known() is None


# -- layers, optimisers, training ----------------------------------------------------------------------------


def network():
    rng = np.random.default_rng(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False, rng=rng, dtype=np.float64),  # a bias would have a gradient of noise
        nn.BatchNorm2d(4, dtype=np.float64),
        nn.ReLU(),
        nn.Residual(nn.Conv2d(4, 4, 3, padding=1, rng=rng, dtype=np.float64)),
        nn.Parallel(nn.Conv2d(4, 2, 1, rng=rng, dtype=np.float64), nn.Tanh()),
        nn.MaxPool2d(2),
        nn.Dropout(0.25, rng=11),
        nn.Flatten(),
        nn.Linear(6 * 2 * 2, 3, rng=rng, dtype=np.float64),
    )


def digits(samples=12):
    rng = np.random.default_rng(9)
    return rng.standard_normal((samples, 1, 6, 6)), rng.integers(0, 3, samples)


def close(a, b, what):
    """Rounding of float64 through some thousand operations, relative to the largest number (at least 1)."""
    testing.compare(a, b, testing.bound(np.abs(b).max(initial=1.0), 10**6, np.float64), what)


@pytest.mark.parametrize(
    "make", [lambda p: optim.Adam(p, lr=0.01), lambda p: optim.SGD(p, 0.05, momentum=0.9)]
)
def test_training(make):
    models, histories = [network(), network().to("cuda")], []
    x, y = digits()
    for model, data in zip(models, [(x, y), (to_device(x), to_device(y))]):
        histories.append(
            train.fit(
                model, data, epochs=2, batch_size=4, optimizer=make(model.parameters()), validation=0.25,
                schedule=train.cosine(), seed=3, progress=False,
            )
        )  # fmt: skip
        result = train.evaluate(model, data)
        histories[-1].append({"loss": result.loss, "accuracy": result.accuracy, "seconds": 0})
        assert isinstance(result.outputs, np.ndarray)
    for host, device in zip(*histories):
        assert host.keys() == device.keys()
        for name in host.keys() - {"seconds"}:
            close(np.float64(device[name] or 0), np.float64(host[name] or 0), name)
    states = [model.state_dict() for model in models]
    for name, host in states[0].items():
        assert isinstance(states[1][name], np.ndarray)
        close(states[1][name], host, name)
    back = models[1].to("cpu")
    close(back(x), models[0](x), "prediction")


def test_a_step_copies_nothing(monkeypatch):
    model = network().to("cuda")
    optimizer, (x, y) = optim.Adam(model.parameters()), map(to_device, digits(4))
    train._step(model, nn.CrossEntropyLoss(), optimizer, x, y)  # makes the optimiser's state
    copies = []
    for name in ("read", "write", "to_device", "to_host"):
        monkeypatch.setattr(_arrays, name, lambda *args, name=name: copies.append(name))
    with contextlib.suppress(Exception), fc.cuda.deferred_checks():
        for _ in range(2):
            loss, output = train._step(model, nn.CrossEntropyLoss(), optimizer, x, y)
        assert copies == []
        done = True
    assert done and copies  # the flags are looked at when the block is over


def test_moving_a_model():
    model = network()
    before = model.state_dict()
    model.forward(digits(4)[0])[1](np.ones((4, 3)))
    gradients = [p.grad.copy() for p in model.parameters()]
    running = model.state_dict()
    assert model.to("cuda") is model
    assert all(fc._arguments.on_device(p.data) for p in model.parameters())
    for parameter, gradient in zip(model.parameters(), gradients):
        testing.same_bits(to_host(parameter.grad), gradient)
    for name, array in model.state_dict().items():
        testing.same_bits(array, running[name])
    model.load_state_dict(before)
    assert all(fc._arguments.on_device(p.data) for p in model.parameters())
    model.to("cpu")
    for name, array in model.state_dict().items():
        testing.same_bits(array, before[name])


OPTIMIZERS = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)),
    ("Adagrad", dict(lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5)),
    ("Adadelta", dict(weight_decay=0.1)),
    ("RMSprop", dict()),
    ("RMSprop", dict(centered=True)),
    ("RMSprop", dict(momentum=0.5)),
    ("RMSprop", dict(momentum=0.5, centered=True)),
    ("Adam", dict(weight_decay=0.1)),
]


@pytest.mark.parametrize("kind, options", OPTIMIZERS)
def test_optimizers(kind, options):
    rng = np.random.default_rng(1)
    start, gradients = rng.standard_normal((3, 5)), rng.standard_normal((4, 3, 5))
    made = [nn.Parameter(start.copy()), nn.Parameter(to_device(start))]
    optimizers = [getattr(optim, kind)([parameter], **options) for parameter in made]
    for step, gradient in enumerate(gradients):
        made[0].grad, made[1].grad = gradient, to_device(gradient)
        for optimizer in optimizers:
            optimizer.step()
        close(to_host(made[1].data), made[0].data, f"step {step}")
        if step == 1:  # saved and continued
            optimizers[1].load_state_dict(optimizers[1].state_dict())
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        close(states[1][name], states[0][name], name)


def test_fit_tells_wrong_targets_at_the_end_of_the_epoch():
    x, y = digits()
    y[5] = 3
    with pytest.raises(
        ValueError, match="softmax_cross_entropy: target at flat position [0-3] is not a class"
    ):
        train.fit(network().to("cuda"), (to_device(x), to_device(y)), epochs=1, batch_size=4, progress=False)


def test_the_verbose_line(monkeypatch, capsys):
    from fastconv import _backends, _config

    monkeypatch.setattr(_config, "VERBOSE", True)
    monkeypatch.setattr(_backends, "_device", None)  # the module reads the switch once
    fc.conv2d(to_device(X), to_device(W))
    assert "conv2d:n2c4h5w6k3r3s3_st1p0d1g1_f32, forward, simple, cuda" in capsys.readouterr().err
    assert _backends.traced is not None
