"""Generated kernels in the NumPy emulator: whole programs (layout, packing, products, sums) against the
float64 reference.

Integer-valued inputs must come out exactly, rounded once to the result's dtype.
"""

import math

import numpy as np
import pytest
from emulator import Device
from emulator.operations import from_bits, to_bits

from fastconv import _reference, testing
from fastconv._problem import ConvProblem
from fastconv.cuda import convolution
from fastconv.cuda.gen import layout
from fastconv.cuda.gen.kernel import BYTES
from fastconv.cuda.program import resolved
from fastconv.testing import bounds

STORAGE = {"bf16": "bf16", "f16": "f16", "tf32": "f32", "f32": "f32"}


def encode(values, dtype):
    return values.astype(np.float32) if STORAGE[dtype] == "f32" else to_bits(values, dtype)


def decode(bits, dtype):
    return bits if STORAGE[dtype] == "f32" else from_bits(bits, dtype)


def run(device, program, addresses):
    """Launch a program's steps on the emulated device; scratch starts as poison."""
    addresses = dict(addresses, **{name: device.allocate(nbytes) for name, nbytes in program.scratch})
    for step in program.steps:
        device.launch(step.kernel, step.grid, [resolved(a, addresses) for a in step.arguments])


def problem_of(N, C, K, size, kernel, stride=1, padding=0, dilation=1, groups=1, bias=False, activation=None):
    n = len(size)
    empty = np.broadcast_to(np.float32(0), (1,))
    zero = lambda *shape: np.broadcast_to(empty[0], shape)  # noqa: E731
    return ConvProblem.of(
        zero(N, C, *size), zero(K, C // groups, *kernel), zero(K) if bias else None, stride, padding,
        dilation, groups,
        activation=activation, ndim=n, op=f"conv{n}d",
    )  # fmt: skip


def integers(rng, shape, low=-3, high=4):
    return rng.integers(low, high, shape).astype(np.float64)


def five(shape):
    """(N, C, D, H, W) of an array of any rank."""
    return (*shape[:2], *(1,) * (5 - len(shape)), *shape[2:])


def reference(direction, problem, arrays):
    """The float64 result in the user's rank."""
    from dataclasses import replace

    exact = replace(problem, dtype=np.dtype(np.float64))
    if direction == "forward":
        return _reference.conv_forward(arrays["x"], arrays["weight"], arrays.get("bias"), exact, "auto", None)
    if direction == "backward_input":
        return _reference.conv_backward_input(arrays["dy"], arrays["weight"], None, exact, "auto")
    return _reference.conv_backward_weight(arrays["dy"], arrays["x"], exact, "auto")


def arrays_of(problem, rng, make=integers):
    shapes = dict(x=problem.x_shape, dy=problem.y_shape, weight=problem.weight_shape)
    arrays = {name: make(rng, shape) for name, shape in shapes.items()}
    if problem.bias:
        arrays["bias"] = make(rng, (problem.K,))
    return arrays


def place(device, values, dtype, last):
    """(address, View arguments) of an image stack put on the device in channels-first or channels-last
    order.
    """
    values = values.reshape(five(values.shape))
    bits = encode(values, dtype)
    return device.put(bits.transpose(0, 2, 3, 4, 1) if last else bits)


def view(name, channels, size, last):
    return (convolution.channels_last if last else convolution.contiguous)(name, channels, size)


def computed(direction, problem, arrays, dtype, make_program, last=False, out_last=False, device=None):
    """(result in the user's shape as float, device) of a program in the emulator."""
    device = device or Device()
    width, stored = BYTES[dtype], STORAGE[dtype]
    addresses = {"weight": device.put(encode(arrays["weight"], dtype))}
    if problem.bias:
        addresses["bias"] = device.put(encode(arrays["bias"], dtype))
    source, target = ("x", "y") if direction == "forward" else ("dy", "dx")
    shapes = {"x": (problem.C, problem.size), "dx": (problem.C, problem.size)}
    shapes |= {"y": (problem.K, problem.out), "dy": (problem.K, problem.out)}
    addresses[source] = place(device, arrays[source], dtype, last)
    full = (problem.N, shapes[target][0], *shapes[target][1])
    addresses[target] = device.allocate(math.prod(full) * width)
    make_sums = convolution.forward_sums if direction == "forward" else convolution.backward_input_sums
    sums = make_sums(
        problem, view(source, *shapes[source], last), view(target, *shapes[target], out_last), width
    )
    run(device, make_program(sums), addresses)
    kind = np.float32 if stored == "f32" else np.uint16
    if out_last:
        result = device.get(addresses[target], (full[0], *full[2:], full[1]), kind).transpose(0, 4, 1, 2, 3)
    else:
        result = device.get(addresses[target], full, kind)
    shape = problem.y_shape if direction == "forward" else problem.x_shape
    return decode(result, dtype).reshape(shape), device


def assert_exact(actual, expected, dtype):
    expected = decode(encode(expected, dtype), dtype)
    wrong = ~(actual == expected)
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} differ, first at {np.argwhere(wrong)[0]}"


CASES = {
    "3x3": dict(N=2, C=64, K=64, size=(9, 7), kernel=(3, 3), padding=1),
    "stride 2, ragged K": dict(N=1, C=128, K=72, size=(12, 10), kernel=(3, 3), stride=2, padding=1),
    "asymmetric, dilated": dict(
        N=1, C=64, K=130, size=(12, 11), kernel=(3, 2), padding=((2, 1), (0, 3)), dilation=(2, 3)
    ),
    "1x1": dict(N=3, C=64, K=40, size=(6, 6), kernel=(1, 1)),
    "7x7, C 24": dict(N=1, C=24, K=16, size=(13, 15), kernel=(7, 7), stride=2, padding=3),
    "C 40, bias, relu": dict(
        N=1, C=40, K=24, size=(9, 9), kernel=(3, 3), padding=1, bias=True, activation="relu"
    ),
    "1-d": dict(N=2, C=16, K=8, size=(37,), kernel=(5,), stride=3, padding=2),
    "odd K": dict(N=1, C=8, K=7, size=(5, 5), kernel=(2, 2)),
    "ragged C": dict(N=2, C=5, K=10, size=(6, 5), kernel=(3, 3), padding=1),
    "two groups": dict(N=1, C=32, K=16, size=(6, 7), kernel=(3, 3), padding=1, groups=2),
    "stem": dict(N=2, C=3, K=16, size=(15, 14), kernel=(7, 7), stride=2, padding=3),
    "wide stem": dict(
        N=1, C=3, K=8, size=(24, 23), kernel=(11, 11), stride=4, padding=((2, 3), (1, 2)), dilation=(2, 1)
    ),
    "3-d": dict(N=1, C=16, K=16, size=(4, 5, 6), kernel=(3, 2, 3), stride=(1, 2, 1), padding=1),
}


# the same options on less work, for kernels that the emulator runs thread by thread
SMALL = {
    "3x3": dict(N=2, C=16, K=24, size=(9, 7), kernel=(3, 3), padding=1),
    "stride 2, ragged K": dict(N=1, C=24, K=136, size=(12, 10), kernel=(3, 3), stride=2, padding=1),
    "asymmetric, dilated": dict(
        N=1, C=8, K=9, size=(12, 11), kernel=(3, 2), padding=((2, 1), (0, 3)), dilation=(2, 3)
    ),
    "1x1": dict(N=3, C=40, K=40, size=(7, 7), kernel=(1, 1)),
    "7x7, ragged C": dict(N=1, C=3, K=16, size=(13, 15), kernel=(7, 7), stride=2, padding=3),
    "bias, relu": dict(N=1, C=9, K=24, size=(9, 9), kernel=(3, 3), padding=1, bias=True, activation="relu"),
    "1-d": dict(N=2, C=16, K=8, size=(37,), kernel=(5,), stride=3, padding=2),
    "two groups": dict(N=1, C=16, K=14, size=(6, 7), kernel=(3, 3), padding=1, groups=2),
    "ten groups, bias": dict(
        N=1, C=80, K=90, size=(6, 5), kernel=(3, 2), stride=2, padding=1, groups=10, bias=True
    ),
    "3-d": dict(N=1, C=8, K=16, size=(4, 5, 6), kernel=(3, 2, 3), stride=(1, 2, 1), padding=1),
}


def crossed(cases, few=("3x3", "bias, relu", "C 40, bias, relu", "3-d")):
    """(case, dtype): two dtypes everywhere, the other two, which share their text, on some cases."""
    return [(c, d) for c in cases for d in ("bf16", "f32", "f16", "tf32") if d in ("bf16", "f32") or c in few]


@pytest.mark.parametrize("case, dtype", crossed(CASES))
def test_wgmma_forward(case, dtype):
    problem = problem_of(**CASES[case])
    arrays = arrays_of(problem, np.random.default_rng(0))
    expected = reference("forward", problem, arrays)
    for last, out_last, tile in ((True, True, (64, 1, 1)), (False, False, (128, 2, 1))):
        program = lambda sums: convolution.wgmma(sums, dtype, tile)  # noqa: E731, B023
        actual, _ = computed("forward", problem, arrays, dtype, program, last, out_last)
        assert_exact(actual, expected, dtype)


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_blocks_that_walk_over_tiles(dtype):
    """Whichever block computes a tile, and after which others: the same bits."""
    problem = problem_of(3, 40, 72, (9, 7), (3, 3), padding=1, bias=True, activation="relu")
    arrays = arrays_of(problem, np.random.default_rng(13), real)
    found = {}
    for count in (1, 2, 5, 132):
        program = lambda sums: convolution.wgmma(sums, dtype, (32, 2, 1), None, count)  # noqa: B023, E731
        found[count], device = computed("forward", problem, arrays, dtype, program)
        # 2 * 63 + 63 positions are 2 tiles of 128, by 3 of channels
        assert device.launches[-1][1] == (min(count, 6), 1, 1)
        testing.same_bits(found[count], found[1])


def test_blocks_walk_over_tiles_of_phases_without_taps():
    """Such a tile is stored and nothing is loaded for it."""
    problem = problem_of(**BACKWARD["1x1, stride 2"])
    arrays = arrays_of(problem, np.random.default_rng(14))
    program = lambda sums: convolution.wgmma(sums, "bf16", (8, 1, 1), multiprocessors=1)  # noqa: E731
    found, _ = computed("backward_input", problem, arrays, "bf16", program, True, True)
    assert_exact(found, reference("backward_input", problem, arrays), "bf16")


BACKWARD = {
    "3x3": dict(N=2, C=64, K=64, size=(9, 7), kernel=(3, 3), padding=1),
    "stride 2": dict(N=1, C=24, K=64, size=(12, 11), kernel=(3, 3), stride=2, padding=1),
    "stride 3x2, dilated": dict(
        N=1, C=40, K=16, size=(11, 13), kernel=(3, 4), stride=(3, 2), padding=(2, 1), dilation=(2, 3)
    ),
    "1x1, stride 2": dict(N=2, C=16, K=32, size=(7, 8), kernel=(1, 1), stride=2),
    "7x7": dict(N=1, C=8, K=8, size=(9, 10), kernel=(7, 7), stride=2, padding=3),
    "asymmetric": dict(N=1, C=9, K=11, size=(9, 10), kernel=(2, 3), padding=((2, 0), (0, 4))),
    "ten groups": dict(N=1, C=90, K=80, size=(6, 5), kernel=(3, 2), stride=2, padding=1, groups=10),
    "3-d, two groups": dict(
        N=1, C=16, K=32, size=(4, 5, 5), kernel=(2, 3, 3), stride=(2, 1, 1), padding=1, groups=2
    ),
}


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("case", BACKWARD)
def test_wgmma_backward_input(case, dtype):
    problem = problem_of(**BACKWARD[case])
    arrays = arrays_of(problem, np.random.default_rng(1))
    expected = reference("backward_input", problem, arrays)
    last = dtype == "bf16"
    program = lambda sums: convolution.wgmma(sums, dtype, (64, 1, 1))  # noqa: E731
    actual, _ = computed("backward_input", problem, arrays, dtype, program, last, last)
    assert_exact(actual, expected, dtype)


@pytest.mark.parametrize("case", SMALL)
def test_ffma_forward(case):
    problem = problem_of(**SMALL[case])
    arrays = arrays_of(problem, np.random.default_rng(2))
    last = case in ("3x3", "bias, relu", "3-d")
    actual, device = computed("forward", problem, arrays, "f32", convolution.ffma, last, not last)
    assert_exact(actual, reference("forward", problem, arrays), "f32")
    assert set(device.conflicts.values()) <= {1}, device.conflicts


@pytest.mark.parametrize("case", BACKWARD)
def test_ffma_backward_input(case):
    problem = problem_of(**BACKWARD[case])
    arrays = arrays_of(problem, np.random.default_rng(3))
    actual, _ = computed("backward_input", problem, arrays, "f32", convolution.ffma)
    assert_exact(actual, reference("backward_input", problem, arrays), "f32")


def weight_gradient(problem, arrays, dtype, make_program, last=False):
    """(dweight, device) of a weight gradient's program in the emulator."""
    device, width = Device(), BYTES[dtype]
    addresses = {name: place(device, arrays[name], dtype, last) for name in ("x", "dy")}
    count = math.prod(problem.weight_shape)
    addresses["dweight"] = device.allocate(count * width)
    views = view("x", problem.C, problem.size, last), view("dy", problem.K, problem.out, last)
    program = make_program(problem, *views)
    run(device, program, addresses)
    kind = np.float32 if width == 4 else np.uint16
    return decode(device.get(addresses["dweight"], problem.weight_shape, kind), dtype), device, program


WEIGHT = {
    "3x3": dict(N=2, C=64, K=64, size=(9, 7), kernel=(3, 3), padding=1),
    "stride 2, ragged K": dict(N=1, C=128, K=72, size=(13, 11), kernel=(3, 3), stride=2, padding=1),
    "asymmetric, dilated": dict(
        N=1, C=24, K=130, size=(9, 11), kernel=(3, 2), padding=((2, 1), (0, 3)), dilation=(2, 3)
    ),
    "1x1": dict(N=3, C=72, K=40, size=(6, 6), kernel=(1, 1)),
    "ragged": dict(N=2, C=5, K=9, size=(7, 6), kernel=(2, 3), stride=(1, 2), padding=1),
    "two groups": dict(N=1, C=16, K=32, size=(6, 7), kernel=(3, 3), padding=1, groups=2),
    "ten groups": dict(N=1, C=80, K=160, size=(6, 5), kernel=(3, 2), stride=2, padding=1, groups=10),
    "1x1, ten groups": dict(N=2, C=160, K=80, size=(6, 5), kernel=(1, 1), groups=10),
    "3-d": dict(N=1, C=8, K=16, size=(4, 5, 6), kernel=(3, 2, 1), stride=(1, 2, 1), padding=1),
    "1-d": dict(N=1, C=8, K=8, size=(50,), kernel=(7,), stride=2, padding=3),
}


@pytest.mark.parametrize("case", WEIGHT)
def test_ffma_weight_gradient(case):
    problem = problem_of(**WEIGHT[case])
    arrays = arrays_of(problem, np.random.default_rng(4))
    actual, device, _ = weight_gradient(problem, arrays, "f32", convolution.ffma_weight, case == "3-d")
    assert_exact(actual, reference("backward_weight", problem, arrays), "f32")
    assert set(device.conflicts.values()) <= {1}, device.conflicts


@pytest.mark.parametrize("case", WEIGHT)
def test_wgmma_weight_gradient(case):
    problem = problem_of(**WEIGHT[case])
    make = lambda rng, shape: integers(rng, shape, -1, 2)  # noqa: E731  sums stay below 256: exact in bf16
    arrays = arrays_of(problem, np.random.default_rng(5), make)
    expected = reference("backward_weight", problem, arrays)
    for dtype, last, tile in (("bf16", True, (64, 1, 2)), ("f16", False, (128, 2, 1))):
        program = lambda *a: convolution.wgmma_weight(*a, dtype, tile)  # noqa: E731, B023
        actual, _, _ = weight_gradient(problem, arrays, dtype, program, last)
        assert_exact(actual, expected, dtype)


@pytest.mark.parametrize("case, dtype", crossed(SMALL))
def test_mma_forward(case, dtype):
    problem = problem_of(**SMALL[case])
    arrays = arrays_of(problem, np.random.default_rng(6))
    last = dtype in ("bf16", "tf32")
    program = lambda sums: convolution.mma(sums, dtype)  # noqa: E731
    actual, device = computed("forward", problem, arrays, dtype, program, last, last)
    assert_exact(actual, reference("forward", problem, arrays), dtype)
    assert device.conflicts["matrix_load"] == device.conflicts["copy16"] == 1


@pytest.mark.parametrize("case", BACKWARD)
def test_mma_backward_input(case):
    problem = problem_of(**BACKWARD[case])
    arrays = arrays_of(problem, np.random.default_rng(7))
    actual, _ = computed("backward_input", problem, arrays, "f16", lambda sums: convolution.mma(sums, "f16"))
    assert_exact(actual, reference("backward_input", problem, arrays), "f16")


@pytest.mark.parametrize("case, dtype", crossed(WEIGHT))
def test_mma_weight_gradient(case, dtype):
    problem = problem_of(**WEIGHT[case])
    make = (lambda rng, shape: integers(rng, shape, -1, 2)) if BYTES[dtype] == 2 else integers
    arrays = arrays_of(problem, np.random.default_rng(11), make)
    expected = reference("backward_weight", problem, arrays)
    last = dtype in ("bf16", "tf32")
    for parts in (None, 2) if case in ("3x3", "ragged") else (None,):
        program = lambda *a: convolution.mma_weight(*a, dtype, parts)  # noqa: E731, B023
        actual, device, _ = weight_gradient(problem, arrays, dtype, program, last)
        assert_exact(actual, expected, dtype)
        grids = [grid for name, grid in device.launches if name.startswith("wgrad_sm80")]
        assert {grid[2] for grid in grids} == {(parts or 1) * problem.groups}
        # one part of a kernel of one tap is the result
        assert device.launches[-1][0].startswith("wgrad_sm80" if case.startswith("1x1") else "sum_parts")
    reads = "matrix_load" if BYTES[dtype] == 2 else "shared_load"
    assert device.conflicts[reads] == device.conflicts["copy16"] == 1


def test_parts_of_a_weight_gradient_keep_the_device_busy():
    """A long sum over few tiles is cut up, and none of its k-tiles is lost."""
    problem = problem_of(2, 3, 5, (24, 23), (2, 2))
    arrays = arrays_of(problem, np.random.default_rng(12))
    program = lambda *a: convolution.mma_weight(*a, "f32")  # noqa: E731
    actual, device, _ = weight_gradient(problem, arrays, "f32", program)
    assert_exact(actual, reference("backward_weight", problem, arrays), "f32")
    # 2 * 23 * 22 positions are 64 k-tiles, of which a part shall have 8
    assert device.launches[-2] == ("wgrad_sm80_f32", (1, 1, 8))


def real(rng, shape):
    return rng.standard_normal(shape).astype(np.float32).astype(np.float64)


def positive(rng, shape):
    return np.abs(real(rng, shape))


@pytest.mark.parametrize("make", [real, positive])
@pytest.mark.parametrize("kernel", ["wgmma", "mma", "ffma"])
def test_float32_accuracy(kernel, make):
    """Three TF32 products meet the bound of a float32 sum, which one misses."""
    problem = problem_of(1, 96, 8, (6, 6), (3, 3), padding=1)
    arrays = arrays_of(problem, np.random.default_rng(8), make)
    expected = reference("forward", problem, arrays)
    magnitude = reference("forward", problem, {name: np.abs(a) for name, a in arrays.items()})
    limit = bounds.bound(magnitude, 96 * 9, np.float32)
    programs = {
        "wgmma": lambda sums: convolution.wgmma(sums, "f32", (64, 1, 1)),
        "mma": lambda sums: convolution.mma(sums, "f32"),
        "ffma": convolution.ffma,
    }
    actual, _ = computed("forward", problem, arrays, "f32", programs[kernel])
    testing.compare(actual, expected, limit)
    if kernel == "mma" and make is positive:
        single, _ = computed("forward", problem, arrays, "tf32", lambda sums: convolution.mma(sums, "tf32"))
        assert (np.abs(single - expected) > limit).any()


@pytest.mark.parametrize("make", [real, positive])
def test_float32_accuracy_of_a_weight_gradient(make):
    """The same of the sum over positions."""
    problem = problem_of(3, 8, 8, (18, 17), (3, 3), stride=(1, 2), padding=1)
    arrays = arrays_of(problem, np.random.default_rng(8), make)
    expected = reference("backward_weight", problem, arrays)
    magnitude = reference("backward_weight", problem, {name: np.abs(a) for name, a in arrays.items()})
    limit = bounds.bound(magnitude, problem.N * math.prod(problem.out), np.float32)
    three, _, _ = weight_gradient(problem, arrays, "f32", lambda *a: convolution.mma_weight(*a, "f32"))
    testing.compare(three, expected, limit)
    single, _, _ = weight_gradient(problem, arrays, "tf32", lambda *a: convolution.mma_weight(*a, "tf32"))
    assert (np.abs(single - expected) > limit).any()


@pytest.mark.parametrize("dtype", ["bf16", "tf32", "f32"])
def test_what_is_not_finite_stays_in_its_own_weight_gradients(dtype):
    problem = problem_of(2, 24, 16, (9, 8), (3, 3), padding=1)
    arrays = arrays_of(problem, np.random.default_rng(9))
    x, dy = arrays["x"].copy(), arrays["dy"].copy()
    x[0, 5, 0, 0], x[1, 7, 4, 3], dy[1, 9, 3, 2] = np.nan, np.inf, np.nan
    program = lambda *a: convolution.mma_weight(*a, dtype, 2)  # noqa: E731
    clean, _, _ = weight_gradient(problem, arrays, dtype, program)
    found, _, _ = weight_gradient(problem, arrays | {"x": x, "dy": dy}, dtype, program)
    touched = np.zeros(found.shape, bool)
    # the corner meets no position at the taps of the last row and column
    touched[:, 5, :2, :2] = touched[:, 7] = touched[9] = True
    assert (np.isfinite(found) == ~touched).all() and (found[~touched] == clean[~touched]).all()


@pytest.mark.parametrize("kernel", ["wgmma", "mma", "ffma"])
def test_what_is_not_finite_stays_in_its_own_sums(kernel):
    problem = problem_of(2, 24, 16, (9, 8), (3, 3), padding=1)
    arrays = arrays_of(problem, np.random.default_rng(9))
    spoilt = arrays["x"].copy()
    spoilt[0, 5, 4, 3], spoilt[1, 0, 0, 0] = np.nan, np.inf
    programs = {
        "wgmma": lambda sums: convolution.wgmma(sums, "f32", (64, 1, 1)),
        "mma": lambda sums: convolution.mma(sums, "f32"),
        "ffma": convolution.ffma,
    }
    clean, _ = computed("forward", problem, arrays, "f32", programs[kernel])
    found, _ = computed("forward", problem, arrays | {"x": spoilt}, "f32", programs[kernel])
    touched = np.zeros(found.shape, bool)
    touched[0, :, 3:6, 2:5] = touched[1, :, :2, :2] = True
    assert (np.isfinite(found) == ~touched).all() and (found[~touched] == clean[~touched]).all()


@pytest.mark.parametrize("kernel", ["wgmma", "mma"])
@pytest.mark.parametrize("direction", ["forward", "backward_input"])
@pytest.mark.parametrize("channels", [12, 40])
def test_images_are_copied_in_chunks(kernel, direction, channels, monkeypatch):
    """Scratch stops growing with N, and the results are the same."""
    made = []

    def program(sums):
        maker = convolution.wgmma if kernel == "wgmma" else convolution.mma
        made.append(maker(sums, "bf16", (64, 1, 1)) if kernel == "wgmma" else maker(sums, "bf16"))
        return made[-1]

    problem = problem_of(5, channels, channels, (7, 6), (3, 3), stride=2, padding=1)
    arrays = arrays_of(problem, np.random.default_rng(11), lambda rng, shape: integers(rng, shape, -1, 2))
    expected = reference(direction, problem, arrays)
    whole, _ = computed(direction, problem, arrays, "bf16", program)
    monkeypatch.setattr(convolution, "CHUNK", 1_000)
    parts, _ = computed(direction, problem, arrays, "bf16", program)
    assert_exact(parts, expected, "bf16")
    assert (parts == whole).all()
    assert len(made[1].steps) > len(made[0].steps) and made[1].scratch_bytes < made[0].scratch_bytes
    sizes = []
    for N in (8, 64):
        make_sums = convolution.forward_sums if direction == "forward" else convolution.backward_input_sums
        problem = problem_of(N, channels, channels, (7, 6), (3, 3), stride=2, padding=1)
        views = [
            convolution.contiguous(name, channels, size)
            for name, size in (("x", problem.size), ("y", problem.out))
        ]
        order = 1 if direction == "forward" else -1
        sizes.append(program(make_sums(problem, *views[::order], 2)).scratch_bytes)
    assert sizes[0] == sizes[1]


def test_images_that_are_read_as_they_lie_are_not_cut(monkeypatch):
    monkeypatch.setattr(convolution, "CHUNK", 1)
    problem = problem_of(5, 64, 64, (6, 6), (3, 3))
    views = [convolution.channels_last(n, 64, size) for n, size in (("x", problem.size), ("y", problem.out))]
    for maker in (convolution.wgmma, convolution.mma):
        program = maker(convolution.forward_sums(problem, *views, 2), "bf16")
        assert sum(step.kernel.name.startswith("igemm") for step in program.steps) == 1


def test_weights_rounded_to_tf32():
    """To nearest; NaN of any bits stay NaN, infinities what they are."""
    nan = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001, 0x7FC00000, 0x7FFFF000], np.uint32)
    other = np.array([np.inf, -np.inf, 0.0, -0.0, 1.0 + 2.0**-11, 1.0 + 2.0**-12, -3.0, 1e-40], np.float32)
    weight = np.concatenate([nan.view(np.float32), other])
    device, n = Device(), len(weight)
    source, out = device.put(weight), device.allocate(4 * n)
    device.launch(layout.pack_weight("tf32"), (1,), [source, out, 1, n, n, 1, 1, 1, n, 1, 0, 0, 0, 0, 0])
    bits = device.get(out, (n,), np.uint32)
    assert not (bits[len(nan) :] & 0x1FFF).any()
    found = bits.view(np.float32)
    assert np.isnan(found[: len(nan)]).all()
    expected = np.array([np.inf, -np.inf, 0.0, -0.0, 1.0 + 2.0**-10, 1.0, -3.0], np.float32)
    testing.same_bits(found[len(nan) : -1], expected)
    assert abs(float(found[-1]) - 1e-40) <= 2.0**-137  # half the distance of subnormal numbers


@pytest.mark.parametrize("name", ["leaky_relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("kernel", ["wgmma", "mma", "ffma"])
def test_activations_are_fused(kernel, name):
    problem = problem_of(1, 8, 8, (5, 5), (3, 3), bias=True, activation=name)
    arrays = arrays_of(problem, np.random.default_rng(10), lambda rng, shape: integers(rng, shape, -1, 2) / 4)
    expected = reference("forward", problem, arrays)
    programs = {
        "wgmma": lambda sums: convolution.wgmma(sums, "tf32", (64, 1, 1)),
        "mma": lambda sums: convolution.mma(sums, "tf32"),
        "ffma": convolution.ffma,
    }
    dtype = "f32" if kernel == "ffma" else "tf32"
    actual, _ = computed("forward", problem, arrays, dtype, programs[kernel])
    testing.compare(actual, expected, bounds.function(expected, np.float32))
