"""The benchmark: its names, its judge, its timing and its reports."""

import json
import math
import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import fastconv as fc
from fastconv import cli
from fastconv._cpu import isa
from fastconv.bench import (
    expected,
    html,
    layers,
    peak,
    peers,
    problems,
    report,
    sweep,
    tables,
    timing,
    worker,
)
from fastconv.testing import bound, compare

# One small problem of every kind that the benchmark knows.
CONVOLUTIONS = (
    "conv2d:n2c4h7w6k6r3s2_st2x1p1x0d1g2_f32_bias_relu",
    "conv2d:n1c3h5w6k2r3s3_st1p1-0x2d1g1_f32",
    "conv2d:c3h6w6k4r2s2_st3p0d2g1_f64_bias_tanh",
    "conv2d:n2c3h6w5k3r3s3_st1p1d1g3_f32",
    "conv2d:n2c3h6w5k4r3s3_st1p2d1g1_f32_reflect",
    "conv2d:n1c2h6w5k4r3s3_st2p3x2d1g1_f32_circular",
    "conv2d:n1c2h4w5k2r3s3_st1p3d1g2_f64_replicate_leaky_relu",
    "conv2d:n2c3h9w6k6r3s3_st2p1d1g3_f32_bias",
    "conv1d:n2c3w17k4s3_st1p4-0d2g1_f32_sigmoid",
    "conv3d:n1c2d4h5w4k3t2r3s1_st1p1x1x0d1g1_f32_bias",
    "conv_transpose2d:n2c4h3w4k6r4s4_st2p1d1g2_f32_bias",
    "conv_transpose1d:n1c2w5k3s3_st3p1op2d1g1_f64",
)
OTHERS = (
    "max_pool2d:n2c3h7w8r3s3_st2p1d1_f32",
    "max_pool2d:n1c2h8w8r2s2_st2p0d2_o4x4_f32",
    "avg_pool2d:n2c3h7w8r3s2_st2p1x0d1_f32",
    "avg_pool1d:c2w9s3_st2p1d1_f64_nopad",
    "avg_pool2d:n1c2h5w5r2s2_st2p0d1_f32_div3",
    "adaptive_avg_pool2d:n1c3h7w5_o2x3_f32",
    "adaptive_max_pool2d:n1c3h7w5_o2x3_f32",
    "relu:3x5_f32",
    "leaky_relu:3x5_f32",
    "elu:3x5_f32",
    "sigmoid:3x5_f64",
    "tanh:2x3x4_f32",
    "softmax:4x7_f32",
    "log_softmax:4x7_f32",
    "softmax_cross_entropy:4x7_f32",
    "sigmoid_cross_entropy:4x7_f32",
    "squared_error:4x7_f32",
    "hinge:4x7_f32",
    "batch_norm:3x4x2x5_f32",
    "local_response_norm:2x7x3x2_f64",
    "linear:3x5x4_f32",
)


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


# -- processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def child(tmp_path):
    process = worker.Worker("fastconv:im2col", 1, "warm", cwd=tmp_path)
    yield process
    process.close()


def test_a_worker_prepares_checks_and_times(child, tmp_path):
    problem = problems.parse(CONVOLUTIONS[0])
    np.savez(tmp_path / "expected.npz", *expected.expected(problem, "backward_weight"))
    request = {"do": "prepare", "problem": problem.name, "direction": "backward_weight"}
    answer = child.ask(**request, expected=str(tmp_path / "expected.npz"))
    assert answer["algorithm"] == "im2col" and answer["scratch_bytes"] > 0 and answer["estimate"] > 0
    assert answer["error_max"] > 0 and "wrong" not in answer
    np.savez(tmp_path / "expected.npz", *expected.expected(problem, "backward_input"))
    assert "wrong" in child.ask(**request, expected=str(tmp_path / "expected.npz"))
    assert len(child.ask(do="time", inner=2, repeats=3, warmup=1)["seconds"]) == 3
    assert child.ask(do="prepare", problem="relu:3x5_f32", direction="forward", expected=None) == {
        "refused": "has one algorithm only"
    }
    assert "failed" in child.ask(do="prepare", problem="relu:3_x", direction="forward", expected=None)


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="the system does not tell environments")
def test_warm_keeps_memory_and_threads_are_told_to_everyone(child):
    environment = Path(f"/proc/{child.process.pid}/environ").read_text().split("\0")
    assert {"MALLOC_MMAP_MAX_=0", "OMP_NUM_THREADS=1", "FASTCONV_NUM_THREADS=1"} <= set(environment)


def test_a_worker_that_dies_is_reported(child):
    child.process.kill()
    with pytest.raises(worker.Died, match="ended by signal 9"):
        for _ in range(2):  # the first request may still fit into the pipe
            child.ask(do="time", inner=1, repeats=1, warmup=0)


def test_a_worker_that_cannot_start_is_reported(tmp_path):
    with pytest.raises(worker.Died, match="implementation 'nothing' is unknown"):
        worker.Worker("nothing", 1, "warm", cwd=tmp_path)


# -- a whole run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    lines = []
    chosen = problems.select([CONVOLUTIONS[0], "small_relu"])
    names = ["fastconv", "fastconv:im2col", "numpy"]
    result = timing.run(chosen, names, threads=(1,), seconds=0.01, tell=lines.append)
    return result, lines


def test_a_run_has_a_result_for_every_cell(measured):
    result, lines = measured
    keys = {(r["problem"], r["direction"], r["implementation"]) for r in result["results"]}
    assert len(keys) == len(result["results"]) == 3 * (3 + 2)
    assert len(lines) == 5 and all("fastconv" in line and " ms" in line for line in lines)
    for r in result["results"]:
        if r["implementation"] == "fastconv:im2col" and r["family"] == "activation":
            assert r["refused"] == "has one algorithm only" and "best" not in r
        elif "refused" not in r:
            assert 0 < r["best"] <= r["median"] < 1 and r["runs"] >= timing.ROUNDS
            assert r["error_max"] >= 0 and "wrong" not in r
    (limit,) = result["ceilings"]
    assert limit["copies"][-1][1] == limit["copy_gbytes"] and 0 < limit["call_seconds"] < 1
    assert limit["fma_gflops"] > 0 and limit["tile_gflops"] > 0 and limit["copy_gbytes"] > 0
    assert result["implementations"]["numpy"]["versions"]["numpy"] == np.__version__


def test_too_many_threads_are_refused():
    with pytest.raises(ValueError, match="threads, this process may use"):
        timing.run(problems.select(["tiny"]), ["fastconv"], threads=(10**6,))


def test_tables_and_pages_show_what_was_measured(measured, tmp_path):
    result, _ = measured
    text = tables.table(result)
    assert f"fastconv {fc.__version__}" in text and "backward_weight, 1 thread, warm" in text
    html.write_html(result, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for picture in re.findall(r"<svg.*?</svg>", page, flags=re.S):
        ElementTree.fromstring(picture)
    assert page.count("<svg") >= 3 and "small_relu" in page and "NumPy im2col" in page
    assert not re.search(r"https?://|<script|<link|<img|url\(", page)  # self-contained


# -- numbers by hand -----------------------------------------------------------------------------------------


class few_roundings(float):
    """Equal to what a handful of float64 operations on it may return."""

    def __eq__(self, other):
        return abs(float(self) - other) <= bound(abs(float(self)), 8, np.float64)

    __hash__ = float.__hash__


def synthetic(group="vgg", direction="forward", threads=1, allocator="warm", **times):
    """A report of one direction: label -> {implementation: best seconds}."""
    made = report.new_report()
    made["settings"].update(seconds=1, allocators=[allocator], threads=[threads])
    limit = {"dtype": "float32", "threads": threads, "isa": "avx2", "fma_gflops": 100.0, "tile_gflops": 90.0}
    made["ceilings"] = [{**limit, "copy_gbytes": 10.0, "copies": [[1e5, 20.0]], "call_seconds": 1e-6}]
    for label, by_name in times.items():
        for name, best in by_name.items():
            entry = {"title": name, "missing": None, "versions": {}, "openmp": []}
            made["implementations"].setdefault(name, entry)
            result = {"problem": f"conv2d:{label}_f32", "label": label, "group": group, "family": "conv"}
            result |= {"dtype": "float32", "direction": direction, "threads": threads, "allocator": allocator}
            result |= {"implementation": name, "flops": 2e9, "bytes": 1e6, "best": best, "median": best}
            result |= {"least_flops": 1e9, "least_by": "direct sum"}  # 10 ms at the peak
            made["results"].append({**result, "runs": 5})
    return made


def test_ratios_and_their_summary():
    made = synthetic(
        a={"fastconv": 1.0, "torch": 4.0, "torch_channels_last": 2.0},
        b={"fastconv": 1.0, "torch": 1.0, "torch_channels_last": 3.0},
    )
    rows = {row["peer"]: row for row in report.summary(made)}
    assert rows["torch"]["mean"] == few_roundings(2.0) and rows["torch"]["worst"] == 1.0
    assert rows["torch"]["worst_label"] == "b" and rows["torch"]["count"] == 2
    assert rows["fastest"]["mean"] == few_roundings(math.sqrt(2.0 * 1.0))
    assert {row["section"] for row in rows.values()} == {"networks"}
    first = report.rates(made, made["results"][0])
    assert first["gflops"] == few_roundings(2.0) and first["peak_share"] == few_roundings(0.02)


def in_parts():
    """The parts of one measurement, each a report of its own."""
    warm = synthetic(
        a={"fastconv": 1.0, "torch": 4.0, "onnxruntime": 2.0},
        b={"fastconv": 1.0, "torch": 1.0, "onnxruntime": 0.5},
    )
    called = synthetic(
        allocator="as_called", a={"fastconv": 1.0, "torch": 9.0}, b={"fastconv": 1.0, "torch": 4.0}
    )
    pools = synthetic(group="pools", direction="backward", c={"fastconv": 2.0, "torch": 3.0})
    two = synthetic(threads=2, a={"fastconv": 1.0, "torch": 3.0})
    return warm, called, pools, two


def test_parts_become_one_report():
    parts = in_parts()
    assert report.merge(parts[:1]) == parts[0]
    merged = report.merge(parts)
    assert len(merged["results"]) == sum(len(part["results"]) for part in parts)
    assert merged["settings"]["threads"] == [1, 2] and merged["settings"]["allocators"] == [
        "warm",
        "as_called",
    ]
    assert [entry["threads"] for entry in merged["ceilings"]] == [1, 2]
    assert set(merged["implementations"]) == {"fastconv", "torch", "onnxruntime"}
    again = synthetic(a={"fastconv": 0.5})
    later = report.merge([merged, again])  # measured once more: the later counts
    assert len(later["results"]) == len(merged["results"]) and later["results"][0]["best"] == 0.5
    assert parts[0]["results"][0]["best"] == 1.0  # the parts are left as they were
    other = synthetic(a={"fastconv": 1.0})
    other["fastconv"]["isa"] = "other"
    with pytest.raises(ValueError, match="different fastconv isa make no page together: .* and other"):
        report.merge([merged, other])


def test_the_headline_by_hand():
    rows = {(row["title"], row["threads"]): row for row in report.headline(report.merge(in_parts()))}
    assert len(rows) == 3
    row = rows["forward", 1]
    assert row["warm"] == {"mean": few_roundings(2.0), "worst": 1.0, "worst_label": "b", "count": 2}
    assert row["as_called"]["mean"] == few_roundings(6.0) and row["as_called"]["worst"] == 4.0
    assert row["fastest"]["mean"] == few_roundings(1.0) and row["fastest"]["worst"] == 0.5
    assert row["limit"]["mean"] == few_roundings(200.0) and row["limit"]["worst_label"] == "b"
    row = rows["pools, activations, losses, norms, linear", 1]
    assert row["warm"] == {"mean": few_roundings(1.5), "worst": 1.5, "worst_label": "c backward", "count": 1}
    assert row["as_called"] is None and row["fastest"] is None  # one peer is no contest
    assert rows["forward", 2]["warm"]["mean"] == few_roundings(3.0)


def test_limits_are_told_beside_what_is_reached():
    made = report.merge(in_parts())
    first = report.limits(made)[0]
    assert (first["label"], first["limit_by"]) == ("a", "direct sum")
    assert first["limit"] == few_roundings(0.01) and first["share"] == few_roundings(0.01)
    assert (first["ratio"], first["at_limit"]) == (4.0, few_roundings(400.0))
    text, page = tables.table(made), html.page(made)
    assert "(400.00x)" in text and "(200.00)" in text and "least possible time" in text
    assert "<b>200x</b>" in page and "at the limit 400x" in page and ": direct sum" in page
    for result in made["results"]:  # an older report knows of no limits
        del result["least_flops"]
    assert report.limits(made) == [] and "(limit)" not in tables.table(made).splitlines()[2]
    assert {row["limit"] for row in report.headline(made)} == {None} and html.page(made)


def test_the_slowest_come_first():
    made = report.merge(in_parts())
    rows = report.slowest(made)
    assert [(row["label"], row["peer"], row["ratio"]) for row in rows[:2]] == [
        ("b", "onnxruntime", 0.5),
        ("c", "torch", 1.5),
    ]
    assert len(report.slowest(made, 1)) == 1 and rows[0]["peak_share"] == few_roundings(0.02)
    assert "0.50x (50.00x)  b forward, 1T, warm" in tables.table(made)


def test_the_headline_for_a_document():
    lines = tables.markdown(report.merge(in_parts())).splitlines()
    assert lines[2] == "| forward | 2.00 / 1.00, 3.00 / 3.00 | 200.00, 300.00 | 6.00, - | 1.00 / 0.50, - |"
    assert lines[3].startswith("| pools, activations, losses, norms, linear | 1.50 / 1.50, - | 300.00, - |")
    assert "1 and 2 threads, in this order" in lines[5] and report.processor() in lines[5]
    assert lines[-2] == "| a | 4.00 (400.00), 3.00 (300.00) | -, - | -, - |"
    assert lines[-1] == "| b | 1.00 (100.00), - | -, - | -, - |"
    assert lines[2].count("|") == lines[1].count("|") == lines[0].count("|")


def test_comparing_finds_what_became_slower():
    old = synthetic(a={"fastconv": 1.0, "torch": 1.0}, b={"fastconv": 1.0}, c={"fastconv": 1.0})
    new = synthetic(a={"fastconv": 1.2, "torch": 9.0}, b={"fastconv": 0.5}, c={"fastconv": 1.05})
    rows = report.compare(old, new, 0.1)
    assert [(row["label"], row["verdict"]) for row in rows] == [
        ("a", "slower"),
        ("c", "same"),
        ("b", "faster"),
    ]
    text = tables.comparison_table(rows)
    assert "slower: a forward" in text and "1 slower, 1 faster, 1 same, of 3 compared" in text


def test_reports_survive_their_file_and_others_are_refused(tmp_path):
    made = synthetic(a={"fastconv": 1.0})
    report.save(made, tmp_path / "r.json")
    assert report.load(tmp_path / "r.json") == made
    written = json.loads((tmp_path / "r.json").read_text())
    drawn = {"headline": report.headline(made), "all": report.summary(made)}
    assert written["summary"] == {**drawn, "limits": report.limits(made), "device": []}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        report.load(tmp_path / "bad.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a report of this version"):
        report.load(tmp_path / "other.json")


def test_every_key_of_a_report_is_in_the_schema(measured):
    result, _ = measured
    words = set(re.findall(r"\w+", report.SCHEMA))
    keys = {*result, *result["machine"], *result["fastconv"], *result["settings"], *result["ceilings"][0]}
    made = report.merge(in_parts())
    keys |= {"summary", "headline", "all", *report.headline(made)[0], *report.headline(made)[0]["warm"]}
    keys |= {*report.summary(made)[0], "limits", *report.limits(made)[0]}
    keys |= {key for entry in result["implementations"].values() for key in entry}
    keys |= {key for entry in result["results"] for key in entry}
    assert keys <= words, keys - words


# -- sweeps and regret ---------------------------------------------------------------------------------------


def test_random_shapes_are_reproducible_valid_and_in_no_list():
    shapes = sweep.shapes(40, 3)
    assert shapes == sweep.shapes(40, 3) and shapes != sweep.shapes(40, 4)
    listed = {name for group in layers.GROUPS.values() for name in group.values()}
    assert len(set(shapes)) == 40 and not listed & set(shapes)
    assert all(problems.parse(name).name == name for name in shapes)


def implicit_is_chosen(monkeypatch):
    """What "auto" stands for in the plans that the sweep makes."""
    real_plan = sweep._plan

    def plan(problem, direction, algorithm, batch=None):
        return real_plan(problem, direction, "implicit_gemm" if algorithm == "auto" else algorithm, batch)

    monkeypatch.setattr(sweep, "_plan", plan)


def test_regret_is_the_time_lost_to_the_best_that_may_be_chosen(monkeypatch):
    def run(chosen, names, directions, **settings):
        # im2col is the fastest, but its scratch grows with the batch
        times = {"fastconv:implicit_gemm": 0.8, "fastconv:im2col": 0.1}
        names = [name for name in names if name in times]
        part = synthetic(**{p.name: {name: times[name] for name in names} for p in chosen})
        for result in part["results"]:
            result["problem"] = result["label"]
        return part

    implicit_is_chosen(monkeypatch)
    monkeypatch.setattr(sweep, "run", run)
    found = sweep.regret(3, 0, ("forward",))
    assert [row["chosen"] for row in found["results"]] == ["implicit_gemm"] * 3 and found["worst"] == 0
    assert found["within"] == 1 and "in 100.0 % of 3 cases" in sweep.regret_table(found)
    monkeypatch.setattr(sweep, "_bounded", lambda problem, direction, algorithm: True)
    found = sweep.regret(1, 0, ("forward",))
    assert found["results"][0]["best"] == "im2col" and found["worst"] == few_roundings(7.0)
    assert found["within"] == 0 and "chose implicit_gemm, best im2col" in sweep.regret_table(found)


def test_only_what_is_slower_a_second_and_longer_time_is_regretted(monkeypatch):
    asked = []

    def run(chosen, names, directions, seconds, **settings):
        asked.append((len(chosen), directions, seconds))
        # at first the chosen algorithm seems slower everywhere; then only for the first problem
        slow = {p.name: 1.5 if len(asked) == 1 or p is chosen[0] else 1.0 for p in chosen}
        part = synthetic(
            **{name: {"fastconv:implicit_gemm": t, "fastconv:direct": 1.0} for name, t in slow.items()}
        )
        for result in part["results"]:
            result["problem"] = result["label"]
        return part

    implicit_is_chosen(monkeypatch)
    monkeypatch.setattr(sweep, "_bounded", lambda problem, direction, algorithm: True)
    monkeypatch.setattr(sweep, "run", run)
    found = sweep.regret(4, 0, ("forward",), seconds=0.1)
    assert asked == [(4, ("forward",), 0.1), (4, ("forward",), sweep.LONGER * 0.1)]
    assert found["suspected"] == 4 and found["within"] == 0.75
    assert [row["regret"] for row in found["results"]] == [few_roundings(0.5), 0, 0, 0]
    assert [row["first"] for row in found["results"]] == [few_roundings(0.5)] * 4
    text = sweep.regret_table(found)
    assert "in 75.0 % of 4 cases" in text and "4 cases seemed to lose more than 10 % at first" in text
    assert "once more and longer" in html.page({**report.new_report(), "regret": found})


def test_sweeps_carry_the_place_on_their_axis(monkeypatch):
    seen = []

    def run(chosen, names, directions, threads, **settings):
        seen.append((len(chosen), threads))
        part = synthetic(**{p.name: {"fastconv": 1.0} for p in chosen})
        for result in part["results"]:
            result["problem"] = result["label"]
        return part

    monkeypatch.setattr(sweep, "run", run)
    made = sweep.sweeps(report.new_report(), ("batch", "threads"), ["fastconv"], threads=(1,))
    batch, threads = made["sweeps"]
    assert [r["value"] for r in batch["results"]] == [1, 2, 4, 8, 16, 32]
    assert [r["value"] for r in threads["results"]] == [1] and seen[1][1][0] == 1
    lines = tables.table(made).splitlines()
    assert [line.split() for line in lines if line.startswith("      ")][1:7] == [
        [str(n), "1000"] for n in (1, 2, 4, 8, 16, 32)
    ]
    assert html.page(made).count("<svg") == 2
    with pytest.raises(ValueError, match="axis 'colour' is unknown, need one of batch"):
        sweep.sweeps(report.new_report(), ("colour",), ["fastconv"])


# -- ceilings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ceilings_of_every_level(dtype):
    for level in isa.levels():
        with isa.use(level):
            found = peak.ceilings(dtype, 1, seconds=0.002)
        assert found["isa"] == level and found["dtype"] == dtype
        assert found["fma_gflops"] > 0 and found["tile_gflops"] > 0  # the kernels check their own results
    with pytest.raises(ValueError, match="kc is 0"):
        isa.active().tile_gflops(4, 0, 1)


# -- the command ---------------------------------------------------------------------------------------------


def test_the_list_names_every_layer_and_implementation(capsys):
    assert cli.main(["bench", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(label in printed for group in layers.GROUPS.values() for label in group)
    assert all(name in printed for name in peers.names())
    assert cli.main(["bench", "--schema"]) == 0
    assert capsys.readouterr().out == report.SCHEMA


@pytest.mark.parametrize(
    "options, message",
    [
        (("--layers", "nonsense"), "'nonsense' is no group, label or one-line name"),
        (("--implementations", "tensorflow"), "'tensorflow' is unknown"),
        (("--sweeps", "colour"), "axis 'colour' is unknown"),
        (("--json", "no/such/folder/x.json"), "there is no folder"),
        (("--compare", "no_such_report.json"), "no_such_report.json"),
    ],
)
def test_wrong_options_exit_with_2_before_anything_is_measured(capsys, options, message):
    assert cli.main(["bench", "--quick", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""


def test_the_command_measures_writes_and_compares(capsys, tmp_path):
    now, page = tmp_path / "now.json", tmp_path / "now.html"
    options = ["--quick", "--layers", "tiny", "--implementations", "numpy", "--directions", "forward"]
    assert cli.main(["bench", *options, "--json", str(now), "--html", str(page)]) == 0
    printed = capsys.readouterr()
    assert "[1/1, 0 s left] tiny forward, 1 thread, warm: fastconv " in printed.err
    assert re.search(r"^tiny .*x", printed.out, flags=re.M) and page.exists()
    made = report.load(now)
    for result in made["results"]:
        result["best"] /= 1000
    report.save(made, tmp_path / "old.json")
    assert cli.main(["bench", "--report", str(now), "--compare", str(tmp_path / "old.json")]) == 1
    assert "slower: tiny forward" in capsys.readouterr().out
    table, both = tmp_path / "table.md", tmp_path / "both.json"
    parts = ["--report", str(now), str(tmp_path / "old.json")]
    assert (
        cli.main(["bench", *parts, "--compare", str(now), "--markdown", str(table), "--json", str(both)]) == 0
    )
    assert report.load(both)["results"] == report.load(tmp_path / "old.json")["results"]
    assert table.read_text().startswith("| | PyTorch, warm")


def test_the_instruction_set_of_the_environment_is_everybodys(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTCONV_ISA", "baseline")
    now = tmp_path / "now.json"
    options = ["--quick", "--quiet", "--layers", "small_relu", "--directions", "forward", "--json", str(now)]
    assert cli.main(["bench", *options, "--implementations", "fastconv"]) == 0
    made = report.load(now)
    assert made["settings"]["isa"] == made["fastconv"]["isa"] == made["ceilings"][0]["isa"] == "baseline"


def test_peers_are_capped_like_fastconv(tmp_path):
    capped = worker.Worker("numpy", 1, "warm", "baseline", tmp_path)
    try:
        environment = Path(f"/proc/{capped.process.pid}/environ").read_text().split("\0")
    except OSError:
        pytest.skip("the system does not tell environments")
    finally:
        capped.close()
    assert {"FASTCONV_ISA=baseline", "ONEDNN_MAX_CPU_ISA=SSE41"} <= set(environment)


def test_who_cannot_be_capped_is_left_out(monkeypatch, tmp_path):
    peer = type(peers.get("numpy"))
    monkeypatch.setattr(peer, "capped", False)
    monkeypatch.setattr(isa, "levels", lambda: ("baseline", "avx2"))
    for cap, left_out in ((None, False), ("avx2", False), ("baseline", True)):
        made = report.new_report()
        stage = timing._Stage(made, cap, tmp_path)
        assert stage.present(["numpy"]) == ([] if left_out else ["numpy"])
    assert made["implementations"]["numpy"]["missing"] == (
        "uses all instructions of the processor, not baseline at most"
    )


def test_a_wrong_result_of_ours_is_a_failure(capsys, tmp_path):
    made = synthetic(a={"fastconv": 1.0})
    made["results"][0]["wrong"] = "off by much"
    report.save(made, tmp_path / "r.json")
    assert cli.main(["bench", "--report", str(tmp_path / "r.json")]) == 1
    assert "wrong: fastconv, a forward: off by much" in capsys.readouterr().out
