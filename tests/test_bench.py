"""The benchmark's problems, its judge and its implementations."""

import math
import sys

import numpy as np
import pytest
from bench_samples import CONVOLUTIONS, OTHERS

import fastconv as fc
from fastconv.bench import expected, layers, peers, problems, worker
from fastconv.testing import bound, compare

# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVOLUTIONS + OTHERS)
def test_a_name_says_all_there_is(name):
    assert problems.parse(name).name == name


def test_every_listed_layer_is_written_as_its_problem_writes_itself():
    listed = [name for group in layers.GROUPS.values() for name in group.values()]
    assert [problem.name for problem in problems.select(["all"])] == listed
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    "word, message",
    [
        ("nonsense", "'nonsense' is no group, label or one-line name"),
        ("vgg3", "did you mean .*vgg3_2"),
        ("conv2d:n8", "'conv2d:n8' is not a one-line name"),
        ("conv2d:n1c2h4w4k3r3s3_st1x1p1d1g1_f32", "is written 'conv2d:n1c2h4w4k3r3s3_st1p1d1g1_f32'"),
        ("conv2d:n1c2h4w4k3r9s3_st1p1d1g1_f32", "output height would be"),
        ("conv2d:n1c2h4w4k3r3s3_st1p1d1g0_f32", "groups=0"),
        ("elephant:3x3_f32", "need one of batch_norm, elu, hinge"),
        ("hinge:3_f32", "need one of batch_norm, elu, hinge"),
    ],
)
def test_a_wrong_word_is_a_value_error_that_says_what_is_wrong(word, message):
    with pytest.raises(ValueError, match=message):
        problems.select([word])


def test_a_group_is_its_layers_in_order_and_nothing_comes_twice():
    chosen = [problem.label for problem in problems.select(["lenet2", "lenet", "core"])]
    assert chosen[:3] == ["lenet2", "lenet1", "lenet3"]
    assert sorted(chosen) == sorted({*layers.CORE, "lenet3"})


def test_arrays_are_the_same_whenever_they_are_drawn():
    first, again = (problems.parse(CONVOLUTIONS[0]).arrays() for _ in range(2))
    other = problems.parse(CONVOLUTIONS[1]).arrays()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["x"].ravel()[:8], other["x"].ravel()[:8])


# -- the judge -----------------------------------------------------------------------------------------------


def reference_results(problem, direction):
    """The same by the naive reference, on float64 inputs."""
    ref, options = fc.reference, getattr(problem, "options", {})
    a = {
        k: v.astype(np.float64) if v is not None and v.dtype.kind == "f" else v
        for k, v in problem.arrays().items()
    }
    x, dy, weight = a["x"], a.get("dy"), a.get("weight")
    forward, backward = getattr(ref, problem.op), getattr(ref, f"{problem.op}_backward", None)
    if problem.family == "conv":
        if direction == "forward":
            how = {} if problem.transposed else {"activation": problem.problem.activation}
            return [forward(x, weight, a["bias"], **options, **how)]
        options = {k: v for k, v in options.items() if k != "output_padding"}
        mask = (direction == "backward_input",) + (direction == "backward_weight",) * 2
        return [g for g in backward(dy, x, weight, **options, output_mask=mask) if g is not None]
    if problem.family == "pool":
        if direction == "forward":
            return [forward(x, **options)]
        if "max" in problem.op:
            return [backward(dy, forward(x, **options, return_indices=True)[1], x.shape)]
        return [backward(dy, x.shape, **{k: v for k, v in options.items() if k != "output_size"})]
    if problem.family == "loss":
        return list(forward(x, a["target"]))
    if problem.op == "linear":
        return [forward(x, weight, a["bias"])] if direction == "forward" else list(backward(dy, x, weight))
    if problem.op == "batch_norm":
        mean, var = np.zeros(x.shape[1]), np.ones(x.shape[1])
        if direction == "forward":
            return [forward(x, weight, a["bias"], mean, var, training=True)]
        return list(backward(dy, x, weight))
    if problem.op == "local_response_norm":
        norm = problems.RESPONSE_NORM
        return [forward(x, **norm)] if direction == "forward" else [backward(dy, x, **norm)]
    return [forward(x)] if direction == "forward" else [backward(dy, forward(x))]


@pytest.mark.parametrize("name", CONVOLUTIONS + OTHERS)
def test_the_judge_agrees_with_the_reference(name):
    problem = problems.parse(name)
    for direction in problem.directions:
        judged, wanted = expected.expected(problem, direction), reference_results(problem, direction)
        assert len(judged) == len(wanted)
        for mine, theirs in zip(judged, wanted):
            size = np.abs(theirs).max() * problem.length(direction)
            compare(
                mine, theirs, bound(size, problem.length(direction) + 8, np.float64), f"{name} {direction}"
            )


def test_the_judge_takes_blocks_of_channels(monkeypatch):
    problem = problems.parse(CONVOLUTIONS[0])
    whole = [expected.expected(problem, direction) for direction in problem.directions]
    monkeypatch.setattr(expected, "BLOCK_BYTES", 1)
    for direction, results in zip(problem.directions, whole):
        for mine, theirs in zip(expected.expected(problem, direction), results):
            compare(mine, theirs, bound(np.abs(theirs).max() * 32, 32, np.float64), direction)


# -- costs ---------------------------------------------------------------------------------------------------


def test_costs_by_hand():
    conv = problems.parse("conv2d:n2c3h5w5k4r3s3_st1p1d1g1_f32")
    assert {conv.flops(direction) for direction in conv.directions} == {2 * 2 * 4 * 5 * 5 * 3 * 9}
    assert {conv.traffic(d) for d in conv.directions} == {4 * (2 * 3 * 25 + 2 * 4 * 25 + 4 * 3 * 9)}
    assert [conv.length(d) for d in conv.directions] == [3 * 9, 4 * 9, 2 * 25]
    transposed = problems.parse("conv_transpose2d:n1c4h3w3k6r2s2_st2p0d1g2_f32")
    assert [transposed.length(d) for d in transposed.directions] == [2 * 4, 3 * 4, 9]
    assert problems.parse("relu:3x5_f64").traffic("backward") == 3 * 15 * 8
    linear = problems.parse("linear:3x5x4_f32")
    assert (linear.flops("forward"), linear.flops("backward")) == (2 * 60, 4 * 60)
    assert math.prod(linear.arrays()["weight"].shape) == 20


# -- implementations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", peers.names())
def test_implementations_compute_what_the_judge_expects(name):
    implementation = peers.get(name)
    if implementation.missing():
        pytest.skip(implementation.missing())
    with fc.num_threads(1):
        implementation.setup(1)
        computed = _computed(implementation)
    if "torch" in sys.modules:  # set up for its own process, it had switched gradients off
        sys.modules["torch"].set_grad_enabled(True)
    assert computed > 3


def _computed(implementation):
    """How many problems it computed, all of them rightly."""
    computed = 0
    for problem in map(problems.parse, CONVOLUTIONS + OTHERS):
        for direction in problem.directions:
            try:
                call = implementation.prepare(problem, direction, problem.arrays())
            except peers.Refused as refusal:
                assert str(refusal)
                continue
            call()
            found = implementation.results(call())  # the second call has not been spoilt by the first
            verdict = worker.judge(found, expected.expected(problem, direction), problem, direction)
            assert "wrong" not in verdict, f"{problem.name} {direction}: {verdict['wrong']}"
            computed += 1
    return computed


def test_an_unknown_implementation_is_a_value_error():
    with pytest.raises(ValueError, match="implementation 'tensorflow' is unknown, need one of fastconv, "):
        peers.get("tensorflow")


def test_words_choose_implementations_and_fastconv_always_takes_part():
    assert peers.chosen(["numpy", "fastconv", "numpy"]) == ["fastconv", "numpy"]
    assert peers.chosen(["algorithms"]) == ["fastconv", *peers.algorithms()]
    assert peers.chosen(["all"]) == peers.names() and peers.chosen(None) == peers.default()
    assert {f"fastconv:{name}" for name in fc.algorithms("conv2d")} <= set(peers.algorithms())


def test_a_missing_package_is_told_and_not_imported(monkeypatch):
    implementation = peers.get("torch")
    monkeypatch.setattr(type(implementation), "packages", ("no_such_package_of_this_name",))
    assert implementation.missing() == "no_such_package_of_this_name not installed"


# -- the judge's verdict -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["conv2d:n2c8h9w9k8r3s3_st1p1d1g1_f32", "softmax:4x7_f32", "linear:3x5x4_f64"]
)
def test_the_verdict_tells_right_from_wrong(name):
    problem = problems.parse(name)
    wanted = expected.expected(problem, "forward")
    rounded = [w.astype(problem.dtype) for w in wanted]
    verdict = worker.judge(rounded, wanted, problem, "forward")
    assert "wrong" not in verdict and verdict["error_max"] <= 4 * np.finfo(problem.dtype).eps
    spoilt = [r.copy() for r in rounded]
    spoilt[0].flat[3] *= problem.dtype.type(1.01)  # one element by a hundredth
    assert "times a direct sum's bound" in worker.judge(spoilt, wanted, problem, "forward")["wrong"]
    spoilt[0].flat[3] = np.nan
    assert "wrong" in worker.judge(spoilt, wanted, problem, "forward")
    assert "need" in worker.judge([rounded[0][:1]], wanted, problem, "forward")["wrong"]
    assert "need" in worker.judge([rounded[0].astype("f2")], wanted, problem, "forward")["wrong"]
    assert "0 results, need 1" in worker.judge([], wanted, problem, "forward")["wrong"]
