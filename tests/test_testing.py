"""The checkers are checked: what they must reject and accept, and what the list of cases must hold."""

import itertools
import types

import numpy as np
import pytest

import fastconv as fc
from fastconv import testing
from fastconv.testing import bounds
from fastconv.testing.operations import AvgPool, Columns, Convolution, Linear, MaxPool, Softmax, Transposed

R = fc.reference


def altered(**functions):
    """The reference with some functions replaced."""
    return types.SimpleNamespace(**{**{name: getattr(R, name) for name in R.__all__}, **functions})


def changing(name, change):
    """The reference with one function whose result goes through `change`."""

    def function(*args, **kwargs):
        return change(getattr(R, name)(*args, **kwargs))

    return altered(**{name: function})


def float32_loops(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
                  activation=None, out=None):  # fmt: skip
    """A convolution that is right, in float32 throughout: stride 1, zero padding, one group."""
    (low, _), _ = pads = [(padding, padding)] * 2
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    P, Q = x.shape[2] - weight.shape[2] + 1, x.shape[3] - weight.shape[3] + 1
    y = np.zeros((x.shape[0], weight.shape[0], P, Q), x.dtype)
    y += bias[:, None, None]
    for c, r, s in np.ndindex(*weight.shape[1:]):
        y += x[:, None, c, r : r + P, s : s + Q] * weight[:, c, r, s][:, None, None]
    if out is None:
        return y
    out[...] = y
    return out


CONV = Convolution(2, (2, 5, 9, 8), (6, 5, 3, 3), padding=1)


# ---- what must be accepted ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", testing.DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["exact", "real"])
def test_a_right_kernel_in_its_own_precision_passes(dtype, kind):
    ratios = testing.check(altered(conv2d=float32_loops), CONV, dtype, kind)
    assert ratios["conv2d y"] <= 1 and (ratios["conv2d y"] > 0) == (kind == "real")
    gradients = "dx", "dweight", "dbias", "dbias alone"
    assert set(ratios) == {"conv2d y", *(f"conv2d_backward {name}" for name in gradients)}


def test_compare_accepts_within_the_bound_and_returns_the_share_of_it():
    assert testing.compare(np.array([1.0, 2.5]), np.array([1.0, 2.0]), 1.0) == 0.5
    assert testing.compare(np.array([np.nan, np.inf, -np.inf]), np.array([np.nan, np.inf, -np.inf])) == 0
    assert testing.compare(np.zeros((0, 3)), np.zeros((0, 3))) == 0
    assert testing.compare(np.float32(3.0), 3.0) == 0


# ---- what must be rejected: kernels ---------------------------------------------------------------------


def without_tap(weight, tap):
    weight = np.array(weight)
    weight[(..., *tap)] = 0
    return weight


@pytest.mark.parametrize("kind", ["exact", "real"])
@pytest.mark.parametrize("tap", [(0, 0), (1, 1), (2, 2)])
def test_a_dropped_tap_is_rejected(kind, tap):
    def forward(x, weight, *args, **kwargs):
        return R.conv2d(x, without_tap(weight, tap), *args, **kwargs)

    def backward(dy, x, weight, *args, **kwargs):
        return R.conv2d_backward(dy, x, without_tap(weight, tap), *args, **kwargs)

    with pytest.raises(AssertionError, match="conv2d y: .* elements are wrong, the first at"):
        testing.check(altered(conv2d=forward), CONV, np.float32, kind)
    with pytest.raises(AssertionError, match="conv2d_backward dx: .* elements are wrong"):
        testing.check(altered(conv2d_backward=backward), CONV, np.float32, kind)


@pytest.mark.parametrize("which, name", list(enumerate(["dx", "dweight", "dbias"])))
def test_a_gradient_wrong_by_a_thousandth_is_rejected(which, name):
    def backward(*args, **kwargs):
        given = list(R.conv2d_backward(*args, **kwargs))
        if given[which] is not None:
            given[which] = (given[which] * 1.001).astype(given[which].dtype)
        return tuple(given)

    for kind in ("exact", "real"):
        with pytest.raises(AssertionError, match=f"conv2d_backward {name}"):
            testing.check(altered(conv2d_backward=backward), CONV, np.float32, kind)


def spoil_one(y):
    y = np.array(y)
    y[1, 2, 3, 4] += y.dtype.type(0.001) * np.abs(y).max()
    return y


@pytest.mark.parametrize("kind", ["exact", "real"])
def test_a_single_wrong_element_is_rejected(kind):
    with pytest.raises(AssertionError, match=r"1 of 864 elements are wrong, the first at \(1, 2, 3, 4\)"):
        testing.check(changing("conv2d", spoil_one), CONV, np.float32, kind)


def test_a_half_precision_sum_is_rejected():
    def half(x, weight, *args, **kwargs):
        return R.conv2d(x.astype(np.float16).astype(x.dtype), weight, *args, **kwargs)

    testing.check(altered(conv2d=half), CONV, np.float32, "exact")  # small integers are exact in it
    with pytest.raises(AssertionError, match="conv2d y"):
        testing.check(altered(conv2d=half), CONV, np.float32, "real")


def test_single_precision_in_a_double_kernel_is_rejected():
    with pytest.raises(AssertionError, match="conv2d y"):
        testing.check(
            changing("conv2d", lambda y: y.astype(np.float32).astype(y.dtype)), CONV, np.float64, "real"
        )


@pytest.mark.parametrize("shift", [1, -1])
def test_an_index_off_by_one_is_rejected(shift):
    case = MaxPool(2, (2, 3, 8, 9), 2)

    def shifted(*args, **kwargs):
        given = R.max_pool2d(*args, **kwargs)
        return (given[0], np.clip(given[1] + shift, 0, 71)) if isinstance(given, tuple) else given

    with pytest.raises(AssertionError, match="max_pool2d indices"):
        testing.check(altered(max_pool2d=shifted), case, np.float32, "exact")


def test_the_last_of_equals_is_rejected():
    def last(x, *args, **kwargs):
        given = R.max_pool2d(x[..., ::-1, ::-1], *args, **kwargs)
        if not isinstance(given, tuple):
            return np.ascontiguousarray(given[..., ::-1, ::-1])
        return tuple(np.ascontiguousarray(a[..., ::-1, ::-1]) for a in (given[0], 63 - given[1]))

    testing.check(
        altered(max_pool2d=last), MaxPool(2, (2, 3, 8, 8), 2), np.float32, "real"
    )  # no ties in these
    with pytest.raises(AssertionError, match="max_pool2d indices"):
        testing.check(altered(max_pool2d=last), MaxPool(2, (2, 3, 8, 8), 2), np.float32, "exact")


def test_padding_counted_or_not_is_noticed():
    def counted(x, *args, count_include_pad, **kwargs):
        return R.avg_pool2d(x, *args, count_include_pad=True, **kwargs)

    case = AvgPool(2, (2, 3, 7, 7), 3, stride=2, padding=1, count_include_pad=False)
    with pytest.raises(AssertionError, match="avg_pool2d y"):
        testing.check(altered(avg_pool2d=counted), case, np.float32, "real")


def test_a_softmax_that_does_not_subtract_the_maximum_is_rejected():
    def careless(x, axis=-1):
        with np.errstate(over="ignore", invalid="ignore"):
            e = np.exp(100 * x)
            return e / e.sum(axis=axis, keepdims=True)

    def careful(x, axis=-1):
        return R.softmax(100 * x, axis=axis)

    case = Softmax("softmax", (4, 10), 1)
    with pytest.raises(AssertionError, match="softmax y"):
        testing.check(altered(softmax=careless), case, np.float32)
    with pytest.raises(AssertionError, match="softmax y"):
        testing.check(altered(softmax=careful), case, np.float32)


# ---- what must be rejected: manners ---------------------------------------------------------------------


@pytest.mark.parametrize("change, message", [
    (lambda y: y.astype(np.float64), "dtype float64, expected float32"),
    (lambda y: y.astype(y.dtype.newbyteorder("S")), "dtype .f4, expected float32"),
    (lambda y: np.asfortranarray(y), "not C-contiguous"),
    (lambda y: y[..., :-1].copy(), "shape .*, expected"),
    (lambda y: y.tolist(), "list, expected a NumPy array"),
])  # fmt: skip
def test_results_in_another_form_are_rejected(change, message):
    with pytest.raises(AssertionError, match=message):
        testing.check(changing("conv2d", change), CONV, np.float32)


def test_writing_to_an_input_is_rejected():
    def greedy(x, weight, *args, **kwargs):
        y = R.conv2d(x, weight, *args, **kwargs)
        x[0, 0, 0, 0] += 1
        return y

    case = Convolution(2, (1, 2, 4, 4), (2, 2, 3, 3))
    with pytest.raises(AssertionError, match="the input x was written to"):
        testing.check(altered(conv2d=greedy), case, np.float32)
    testing.check(R, case, np.float32)  # and what was spoilt is not kept


def test_an_ignored_out_and_writing_beyond_it_are_rejected():
    def ignores(*args, out=None, **kwargs):
        return R.conv2d(*args, **kwargs)

    def overruns(*args, out=None, **kwargs):
        if out is not None:
            whole = out.base
            whole[...] = 0
        return R.conv2d(*args, out=out, **kwargs)

    def differs(*args, out=None, **kwargs):
        y = R.conv2d(*args, out=out, **kwargs)
        if out is not None:
            out *= np.float32(1 + 2**-20)
        return y

    for conv2d, message in (
        (ignores, "another array"),
        (overruns, "outside the array"),
        (differs, "differ in their bits"),
    ):
        with pytest.raises(AssertionError, match=f"out=: .*{message}"):
            testing.check(altered(conv2d=conv2d), CONV, np.float32)


def test_a_missing_result_is_rejected():
    def backward(*args, output_mask, **kwargs):
        return R.conv2d_backward(*args, output_mask=(output_mask[0], False, output_mask[2]), **kwargs)

    with pytest.raises(AssertionError, match="dweight: NoneType"):
        testing.check(altered(conv2d_backward=backward), CONV, np.float32)


# ---- adjoints -------------------------------------------------------------------------------------------

LINEAR = [CONV, Convolution(1, (2, 4, 9), (6, 2, 3), padding=2, groups=2, padding_mode="reflect", stride=2),
          Transposed(2, (2, 3, 4, 4), (3, 2, 3, 3), stride=2), Columns((2, 3, 5, 6), 2, padding=1),
          Linear((4, 5), 3), MaxPool(2, (2, 3, 7, 7), 3, stride=2), AvgPool(2, (2, 3, 6, 6), 2)]  # fmt: skip


@pytest.mark.parametrize("case", LINEAR, ids=lambda case: case.name())
def test_adjoint_identities_reject_any_wrong_result(case):
    inputs = case.inputs(np.float32, "exact")
    results = case.run(R, inputs)
    testing.check_adjoint(case, inputs, results)
    assert len(case.pairings(inputs, results)) >= 2
    wrong = 0
    for name, right in results.items():
        if name.split()[-1] in ("y", "dx", "dweight", "cols", "x"):
            spoilt = right.copy()
            spoilt.flat[np.argmax(np.abs(right))] *= 2  # where its partner is not 0, as a rule
            try:
                testing.check_adjoint(case, inputs, {**results, name: spoilt})
            except AssertionError as error:
                assert "not adjoint" in str(error)
                wrong += 1
    assert wrong >= 2


def test_a_backward_of_another_padding_is_not_adjoint():
    def backward(dy, x, weight, *args, padding_mode, **kwargs):
        return R.conv2d_backward(dy, x, weight, *args, padding_mode="zeros", **kwargs)

    case = Convolution(2, (2, 3, 5, 6), (4, 3, 3, 3), padding=1, padding_mode="circular")
    inputs = case.inputs(np.float32, "exact")
    with pytest.raises(AssertionError, match="not adjoint"):
        testing.check_adjoint(case, inputs, case.run(altered(conv2d_backward=backward), inputs))


# ---- comparisons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("actual, expected", [
    (np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf), (np.inf, -np.inf), (np.nan, np.inf),
])  # fmt: skip
def test_non_finite_values_are_compared_by_position(actual, expected):
    for bound in (0.0, 1.0, np.inf, np.nan):
        with pytest.raises(AssertionError, match="1 of 2 elements are wrong, the first at"):
            testing.compare(np.array([0.0, actual]), np.array([0.0, expected]), bound)
        assert testing.worst(np.array([0.0, actual]), np.array([0.0, expected]), bound) == np.inf


def test_a_bound_that_is_not_a_number_rejects():
    with pytest.raises(AssertionError):
        testing.compare(np.array([1.0]), np.array([2.0]), np.nan)


def test_compare_says_what_is_wrong():
    message = (
        r"y: 2 of 4 elements are wrong, the first at \(0, 1\): .*2\.0.*, expected .*1\.0.*, "
        r"admissible error 0\.5, worst error / bound 4"
    )
    with pytest.raises(AssertionError, match=message):
        testing.compare(np.array([[1.0, 2.0], [3.0, 1.0]]), np.ones((2, 2)), 0.5, "y")
    with pytest.raises(AssertionError, match="must be equal"):
        testing.compare(np.array(1.0), np.array(1.5))
    with pytest.raises(AssertionError, match=r"shape \(2,\), expected \(2, 1\)"):
        testing.compare(np.ones(2), np.ones((2, 1)))


def test_same_bits():
    a = np.array([1.0, np.nan, 0.0], np.float32)
    testing.same_bits(a, a.copy())
    next_to = np.nextafter(a, np.float32(2))
    for other in (np.array([1.0, np.nan, -0.0], np.float32), a.astype(np.float64), a[:2], next_to):
        with pytest.raises(AssertionError):
            testing.same_bits(a, other)


# ---- the bound ------------------------------------------------------------------------------------------


def test_the_bound_as_derived():
    eps32, eps64 = np.finfo(np.float32).eps, np.finfo(np.float64).eps
    assert np.isclose(testing.bound(3.0, 16, np.float32), (eps32 + eps64) * (2 + 4) * 3, rtol=eps64)
    assert np.isclose(
        testing.bound(3.0, 16, np.float64, adversarial=True), 2 * eps64 * (2 + 16) * 3, rtol=eps64
    )


@pytest.mark.parametrize("sign", [False, True])
def test_the_bound_holds_for_sums_in_any_order_and_is_not_slack(sign):
    rng = np.random.default_rng(0)
    for length in (1, 10, 100, 1000):
        x, w = rng.random((2, 400, length)).astype(np.float32)
        if sign:
            x, w = x - np.float32(0.5), w - np.float32(0.5)
        products = x * w
        ordered = np.add.accumulate(products, axis=1, dtype=np.float32)[:, -1]
        exact = (x.astype(np.float64) * w).sum(axis=1)
        magnitude = np.abs(x.astype(np.float64) * w).sum(axis=1)
        limit = testing.bound(magnitude, length, np.float32)
        for actual in (ordered, products.sum(axis=1)):
            assert testing.compare(actual, exact, limit) > 1e-3  # a thousandth of it at least is needed


def test_the_adversarial_bound_is_reached_within_a_small_factor():
    length = 1000  # every sum is rounded down by half a spacing: 1 + eps/2 (a tie) goes to the even 1
    terms = np.full(length, np.finfo(np.float32).eps / 2, np.float32)
    terms[0] = 1
    actual = np.add.accumulate(terms, dtype=np.float32)[-1]
    exact = terms.astype(np.float64).sum()
    share = testing.compare(actual, exact, testing.bound(exact, length, np.float32, adversarial=True))
    assert 0.4 < share < 0.5
    with pytest.raises(AssertionError):
        testing.compare(actual, exact, testing.bound(exact, length, np.float32))


def test_function_bound_is_in_units_in_the_last_place():
    y = np.array([1.0, 0.75, 1e-3, 1e3])
    spacing = np.spacing(y.astype(np.float32)).astype(np.float64)
    assert np.allclose(bounds.function(y, np.float32), testing.FUNCTION_ULPS * spacing, rtol=np.finfo(np.float32).eps)


# ---- inputs and layouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4), (7,), (), (0, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_layouts_hold_the_same_values(layout, shape, dtype):
    a = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    b = testing.lay_out(a, layout)
    assert np.array_equal(a, b) and b.shape == a.shape and b.dtype.newbyteorder("=") == a.dtype


def test_layouts_are_what_they_are_called():
    a = np.zeros((2, 3, 4, 5), np.float32)
    flags = {layout: testing.lay_out(a, layout) for layout in testing.LAYOUTS}
    assert flags["channels_last"].transpose(0, 2, 3, 1).flags.c_contiguous
    assert all(stride < 0 for stride in flags["negative"].strides)
    assert not flags["sliced"].flags.c_contiguous and not flags["sliced"].flags.f_contiguous
    assert flags["fortran"].flags.f_contiguous
    assert not flags["readonly"].flags.writeable
    assert not flags["unaligned"].flags.aligned
    assert not flags["swapped"].dtype.isnative
    assert np.isnan(flags["sliced"].base).any()  # what lies between is poison


def test_poison():
    assert np.isnan(testing.poisoned((2, 3), np.float32)).all()
    assert (testing.poisoned(4, np.int64).view(np.uint8) == 0xA5).all()
    assert testing.poisoned((), np.float64).shape == ()
    guarded = testing.Guarded((3, 2), np.float32)
    guarded.array[...] = 1
    assert guarded.intact() and guarded.array.flags.c_contiguous
    guarded.array.base[5] = 0
    assert not guarded.intact()


def test_exact_inputs_stay_exact():
    rng = np.random.default_rng(0)
    x = testing.exact_inputs(rng, (50, 50))
    assert np.array_equal(x, np.round(x)) and set(np.unique(x)) == set(range(-4, 5))


@pytest.mark.parametrize("case", testing.cases()[::9], ids=lambda case: case.name())
def test_inputs_are_the_same_every_time(case):
    for kind in case.kinds:
        a, b = (case.inputs(np.float32, kind) for _ in range(2))
        assert all(a[name] is None or a[name].tobytes() == b[name].tobytes() for name in a)


# ---- the list -------------------------------------------------------------------------------------------


def test_pairwise_meets_every_pair():
    factors = {"a": (1, 2, 3), "b": "xyzw", "c": (True, False), "d": (None, 0)}
    rows = testing.pairwise(factors)
    for (p, values), (q, others) in itertools.combinations(factors.items(), 2):
        met = {(row[p], row[q]) for row in rows}
        assert met == set(itertools.product(values, others))
    assert len(rows) <= 16 < 48  # 12 at least, 48 for all combinations
    assert rows == testing.pairwise(factors)


def test_cases_have_one_name_each_and_call_every_operation():
    cases = testing.cases()
    names = [case.name() for case in cases]
    assert len(set(names)) == len(names) > 800
    called = {function for case in cases for function in case.functions}
    assert called == set(fc.reference.__all__) - {"algorithms", "plan"}
    assert {case.op for case in testing.cases("conv2d_backward")} == {"conv2d"}


def test_cases_hold_what_they_promise():
    cases = [case for case in testing.cases() if isinstance(case, Convolution)]
    problems = [case.problem(np.float32) for case in cases]
    assert {case.layout for case in cases} == set(testing.LAYOUTS)
    assert {p.ndim for p in problems} == {1, 2, 3} and {p.N for p in problems} >= {0, 1, 2}
    assert {p.padding_mode for p in problems} == {"zeros", "reflect", "replicate", "circular"}
    assert {p.activation for p in problems} == {None, "relu", "leaky_relu", "sigmoid", "tanh"}
    for edge in testing.EDGES:
        assert any(p.K == edge for p in problems) and any(p.C == edge for p in problems)
        assert any(p.C == p.groups == edge for p in problems)
    assert any(p.K == 2 * p.C == 2 * p.groups > 2 for p in problems)  # depthwise, two filters a channel
    assert any(p.size == (1, 1, 1) for p in problems)
    assert any(low >= k for p in problems for low, k in zip(p.pad_low, p.kernel) if k > 1)
    assert any(st > k > 1 for p in problems for st, k in zip(p.stride, p.kernel))
    assert any((s - k) % st for p in problems for s, k, st in zip(p.size, p.kernel, p.stride))
    assert any(not p.batched for p in problems)
    assert all(case.kinds for case in testing.cases())


@pytest.mark.parametrize("kind", ["exact", "real"])
def test_exact_cases_are_small_enough_for_float32(kind):
    for case in testing.cases():
        if isinstance(case, (Convolution, Linear)) and case.layout == "contiguous" and kind in case.kinds:
            inputs = case.inputs(np.float64, kind)
            x, dy = (np.abs(inputs[name]).max(initial=0) for name in ("x", "dy"))
            terms = max(inputs["x"].size, inputs["dy"].size)
            assert kind == "real" or terms * x * dy < 2**24


# ---- a whole backend ------------------------------------------------------------------------------------


def test_check_backend_reports_the_reference_as_right():
    rows = list(testing.check_backend(R, every=8))
    assert all(row.ok and row.worst <= 1 and row.cases for row in rows), [row for row in rows if not row.ok]
    assert {"conv2d", "conv2d_backward", "gradient of conv2d", "gradient of hinge"} <= {
        row.op for row in rows
    }


def test_check_backend_finds_the_broken_function_and_goes_on():
    def broken(*args, **kwargs):
        raise RuntimeError("lost")

    namespace = altered(sigmoid=lambda x: 1.001 * R.sigmoid(x), tanh=broken, tanh_backward=broken)
    rows = {row.op: row for row in testing.check_backend(namespace, ops=("relu", "sigmoid", "tanh"), every=2)}
    assert rows["relu"].ok and rows["relu_backward"].ok and rows["sigmoid_backward"].ok
    assert not rows["sigmoid"].ok and rows["sigmoid"].worst > 1 and "sigmoid:" in rows["sigmoid"].note
    assert not rows["tanh"].ok and "RuntimeError: lost" in rows["tanh"].note


@pytest.mark.parametrize("op", sorted({op for op, *_ in testing.gradients(R)}))
def test_gradients_wrong_by_a_thousandth_are_rejected(op):
    for found, f, x, dy in testing.gradients(R):
        if found == op:
            assert fc.check_gradient(f, x, dy).ok

            def wrong(x, f=f):
                y, backward = f(x)
                return y, lambda dy: 1.001 * backward(dy)

            assert not fc.check_gradient(wrong, x, dy).ok
