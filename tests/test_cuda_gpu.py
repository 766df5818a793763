"""The device on hardware: all cases, kinds, dtypes and algorithms of the CPU's tests, and the promises.

Skipped without a GPU. `python -m pytest tests/test_cuda_gpu.py` is the whole check of correctness there.
"""

import numpy as np
import pytest
from cuda_device import Device, check_short, strided

import fastconv as fc
from fastconv import nn, optim, testing, train
from fastconv.testing import bounds
from fastconv.testing.operations import Convolution, Linear, Transposed, widened

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not fc.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
DEVICE = Device()
FUNCTIONS = sorted(
    {function for case in testing.cases() for function in case.functions if "backward" not in function}
)

CONVOLUTIONS = [case for case in testing.cases() if isinstance(case, Convolution)]

# Direct sums in the arrays' dtype; algorithms on tensor cores have bounds and tests of their own.
DIRECT = ("auto", "simple", "im2col")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_cases(function, tally):
    for case in testing.cases(function):
        for dtype in testing.DTYPES:
            for kind in case.kinds:
                for algorithm in DIRECT if isinstance(case, Convolution) else DIRECT[:1]:
                    with fc.precision("strict"):
                        testing.check(DEVICE, case, dtype, kind, algorithm)
                    tally["GPU"] += 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_cases_in_16_bits(function, dtype, tally):
    """All that is not a convolution: these have bounds of their own, since they multiply in 16 bits."""
    for case in testing.cases(function):
        if not isinstance(case, (Convolution, Transposed, Linear)):
            for kind in case.kinds:
                check_short(case, dtype, kind)
                tally["GPU"] += 1


def test_gradients():
    for op, f, x, dy in testing.gradients(DEVICE):
        report = fc.check_gradient(f, x, dy)
        assert report.ok, (op, report)


def test_the_same_bits_every_time_and_in_every_layout():
    rng = np.random.default_rng(0)
    x, w, dy = (
        rng.standard_normal(s).astype(np.float32) for s in ((8, 16, 28, 28), (32, 16, 3, 3), (8, 32, 28, 28))
    )

    def run(x, w, dy):
        results = fc.conv2d(x, w, padding=1), *fc.conv2d_backward(dy, x, w, padding=1)
        return [fc.cuda.to_host(r) for r in results]

    first = run(*map(fc.cuda.to_device, (x, w, dy)))
    for layout in ("contiguous", "channels_last", "negative", "sliced"):
        again = run(*(strided(testing.lay_out(a, layout)) for a in (x, w, dy)))
        for a, b in zip(first, again):
            testing.same_bits(b, a, layout)


def test_a_sample_does_not_see_its_batch():
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal((4, 8, 14, 14)).astype(np.float32),
        rng.standard_normal((8, 8, 3, 3)).astype(np.float32),
    )
    together = fc.cuda.to_host(fc.conv2d(*map(fc.cuda.to_device, (x, w))))
    x[1:] = np.nan
    alone = fc.cuda.to_host(fc.conv2d(*map(fc.cuda.to_device, (x[:1], w))))
    spoilt = fc.cuda.to_host(fc.conv2d(*map(fc.cuda.to_device, (x, w))))
    testing.same_bits(alone, together[:1])
    testing.same_bits(spoilt[:1], together[:1])


@pytest.mark.parametrize("shape", [(), (7, 3), (129,), (1000, 1001), (0, 3)])
def test_masks_are_those_of_the_host(shape):
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(2):
        x = np.ones(shape, np.float32)
        mask = fc.cuda.to_host(fc.dropout(fc.cuda.to_device(x), 0.3, rng=ours)[1])
        testing.same_bits(mask, fc.dropout(x, 0.3, rng=theirs)[1])
    assert ours.random() == theirs.random()


def test_out_of_range():
    scores, target = (
        fc.cuda.to_device(np.zeros((4, 3), np.float32)),
        fc.cuda.to_device(np.array([0, 1, 7, 9])),
    )
    for _ in range(2):
        with pytest.raises(ValueError, match="nll: target 7 is not a class"):
            fc.nll(scores, target)
    with pytest.raises(ValueError, match="nll: target at flat position 2 is not a class"):
        with fc.cuda.deferred_checks():
            fc.nll(scores, target)


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_arrays_of_other_libraries(library):
    module = pytest.importorskip(library)
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal((2, 4, 9, 9)).astype(np.float32),
        rng.standard_normal((3, 4, 3, 3)).astype(np.float32),
    )
    if library == "torch":
        if not module.cuda.is_available():
            pytest.skip("torch sees no CUDA device")
        there, stream = (lambda a: module.from_numpy(a).cuda()), module.cuda.Stream()
    else:
        there, stream = module.asarray, module.cuda.Stream()
    expected = fc.cuda.to_host(fc.conv2d(*map(fc.cuda.to_device, (x, w))))
    y = fc.conv2d(there(x), there(w))
    assert type(y) is type(there(x))
    testing.same_bits(fc.cuda.to_host(y), expected)
    testing.same_bits(fc.cuda.to_host(there(x[0, 0]).T), np.ascontiguousarray(x[0, 0].T))
    with module.cuda.stream(stream) if library == "torch" else stream:
        testing.same_bits(fc.cuda.to_host(fc.conv2d(there(x), there(w))), expected)


@pytest.mark.parametrize("precision", ["strict", "fast", "tf32"])
@pytest.mark.parametrize(
    "rows, inputs, outputs", [(1, 4096, 1000), (16, 1000, 520), (300, 264, 136), (5, 7, 9)]
)
def test_linear(precision, rows, inputs, outputs):
    """Exact on small integers; and a row has the same bits alone and among others."""
    rng = np.random.default_rng(0)
    shapes = (rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)
    x, w, b, dy = (rng.integers(-2, 3, s).astype(np.float32) for s in shapes)
    with fc.precision(precision):
        found = DEVICE.linear(x, w, b), *DEVICE.linear_backward(dy, x, w)
        expected = fc.linear(x, w, b), *fc.linear_backward(dy, x, w)
        for a, right in zip(found, expected):
            testing.compare(a, right, np.zeros(right.shape))
        x, w = (rng.standard_normal(s).astype(np.float32) for s in shapes[:2])
        whole = DEVICE.linear(np.concatenate([x] * 3), w)
        testing.same_bits(DEVICE.linear(x, w), whole[rows : 2 * rows])
        testing.same_bits(DEVICE.linear(x[:1], w), whole[:1])


@pytest.mark.parametrize("precision", ["strict", "fast", "tf32"])
@pytest.mark.parametrize("channels, groups", [((256, 256), 32), ((160, 96), 2), ((64, 64), 64)])
def test_groups(precision, channels, groups):
    rng = np.random.default_rng(0)
    C, K = channels
    shapes = (2, C, 15, 14), (K, C // groups, 3, 3)
    x, w = (rng.integers(-2, 3, s).astype(np.float32) for s in shapes)
    for stride in (1, 2):
        options = dict(stride=stride, padding=1, groups=groups)
        y = fc.conv2d(x, w, **options)
        dy = rng.integers(-2, 3, y.shape).astype(np.float32)
        with fc.precision(precision):
            found = DEVICE.conv2d(x, w, **options), *DEVICE.conv2d_backward(dy, x, w, **options)
        for a, right in zip(found, (y, *fc.conv2d_backward(dy, x, w, **options))):
            testing.compare(a, right, np.zeros(right.shape))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype):
    """Public functions on 16 bits: convolutions on tensor cores and all that goes through float32."""
    if dtype == "float16":
        there, back = (lambda a: fc.cuda.to_device(a.astype(np.float16))), fc.cuda.to_host
    else:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device")
        there, back = (lambda a: torch.from_numpy(a).cuda().bfloat16()), (lambda a: a.float().cpu().numpy())
    rng = np.random.default_rng(0)
    for case in CONVOLUTIONS[::4]:
        inputs = case.inputs(np.dtype(np.float32), "exact")  # small integers: exact in 16 bits
        wide = widened(inputs)
        arrays = [
            None if wide[n] is None else there(wide[n].astype(np.float32)) for n in ("x", "weight", "bias")
        ]
        expected = getattr(fc.reference, case.op)(*(wide[n] for n in ("x", "weight", "bias")), **case.options)
        found = back(getattr(fc, case.op)(*arrays, **case.options))
        magnitude = getattr(fc.reference, case.op)(
            *(None if wide[n] is None else np.abs(wide[n]) for n in ("x", "weight", "bias")),
            **{**case.options, "activation": None},
        )
        limit = bounds.bound(magnitude, inputs["weight"][0].size + 1, dtype)
        limit = bounds.activated(case.options.get("activation"), expected, limit, np.float32)
        testing.compare(found, expected, bounds.rounded(expected, limit, dtype), case.name())
    x = rng.integers(-4, 5, (3, 8, 6, 6)).astype(np.float32)
    testing.same_bits(back(fc.relu(there(x))).astype(np.float32), np.maximum(x, 0))
    testing.same_bits(back(fc.max_pool2d(there(x), 2)).astype(np.float32), fc.max_pool2d(x, 2))
    y, right = back(fc.softmax(there(x))), fc.reference.softmax(x.astype(np.float64))
    own = bounds.softmax(x.astype(np.float64), 3, False, np.float32)
    testing.compare(y, right, bounds.rounded(right, own, dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_training_in_16_bits(dtype):
    x, y = fc.data.digits()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, rng=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.2, rng=2), nn.Linear(72, 10, rng=3),
    ).to("cuda", dtype)  # fmt: skip
    there = fc.cuda.to_device(np.ascontiguousarray(x, np.float32), dtype), fc.cuda.to_device(y)
    data, rest = zip(*((a[:600], a[600:]) for a in there))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    history = train.fit(model, data, epochs=10, optimizer=optimizer, seed=0, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]
    assert train.evaluate(model, rest).accuracy > 0.8


def test_training():
    x, y = fc.data.digits()
    for there in (lambda a: a, fc.cuda.to_device):  # the same masks and orders on the host
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, rng=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2, rng=2),
            nn.Linear(72, 10, rng=3),
        )  # fmt: skip
        if there is fc.cuda.to_device:
            model.to("cuda")
        optimizer, data = optim.Adam(model.parameters(), lr=0.01), (there(x[:600]), there(y[:600]))
        history = train.fit(model, data, epochs=10, optimizer=optimizer, seed=0, progress=False)
        assert history[-1]["loss"] < history[0]["loss"]
        assert train.evaluate(model, (there(x[600:]), there(y[600:]))).accuracy > 0.8
