"""The benchmark of a GPU against the CPU: numbers by hand, tables, page, and all of it in a simulator."""

import copy
import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from bench_samples import CONVOLUTIONS, OTHERS, few_roundings, synthetic

import fastconv as fc
from fastconv import cli
from fastconv.bench import (
    device,
    expected,
    gains,
    html,
    networks,
    on_device,
    peers,
    problems,
    report,
    tables,
    worker,
)

NUMBA = importlib.util.find_spec("numba") is not None
TINY = "conv2d:n1c1h4w4k1r2s2_st1p0d1g1_f32"

# -- where it starts to pay ----------------------------------------------------------------------------------


def test_times_meet_on_the_line_between_two_sizes():
    cpu, gpu = {1: 1.0, 4: 4.0, 16: 16.0, 64: 64.0}, {1: 8.0, 4: 8.0, 16: 8.0, 64: 8.0}
    found = gains.crossing(cpu, gpu)
    assert found["word"] == "from" and found["at"] == few_roundings(8.0)
    # of two crossings the last counts, and equal times are no reason to stay
    assert gains.crossing({1: 9.0, 2: 1.0, 4: 8.0}, {1: 8.0, 2: 2.0, 4: 8.0}) == {"word": "from", "at": 4.0}
    assert gains.crossing({1: 2.0, 2: 2.0, 4: 8.0}, {1: 1.0, 2: 4.0, 4: 4.0})["at"] == few_roundings(8**0.5)


def test_there_may_be_no_crossing():
    assert gains.crossing({1: 2.0, 2: 3.0}, {1: 1.0, 2: 3.0}) == {"word": "always", "at": None}
    assert gains.crossing({1: 2.0, 2: 1.0}, {1: 1.0, 2: 3.0}) == {"word": "never", "at": None}
    assert gains.crossing({1: 2.0}, {2: 1.0}) == {"word": "unknown", "at": None}


def timed(name, value, best, **more):
    return {"implementation": name, "value": value, "best": best, **more}


def swept():
    """The results of a crossing: the CPU needs its size in ms, half with two threads; the GPU 4 ms, or 16."""
    sizes = (1, 2, 4, 8, 16, 32)
    cpu = [timed("fastconv", n, 1e-3 * n / t, threads=t) for n in sizes for t in (1, 2)]
    there = [timed("fastconv_cuda", n, 4e-3, transfers_best=16e-3) for n in sizes]
    return cpu, [*there, {"implementation": "fastconv_cuda", "value": 64, "failed": "broke down"}]


def test_it_pays_for_each_number_of_threads_with_and_without_transfers():
    rows = {(row["threads"], row["transfers"]): row for row in gains.pays(*swept())}
    places = {key: row["at"] for key, row in rows.items()}
    wanted = {(1, False): 4.0, (1, True): 16.0, (2, False): 8.0, (2, True): 32.0}
    assert places == {key: few_roundings(value) for key, value in wanted.items()}
    assert {(row["smallest"], row["largest"]) for row in rows.values()} == {(1, 32)}
    assert gains.told(rows[1, True]) == "from 16 on"
    assert gains.told({**rows[1, True], "word": "never"}) == "at no size up to 32"
    assert gains.told({**rows[1, True], "word": "always"}) == "at every size from 1 on"


# -- clocks and parity ---------------------------------------------------------------------------------------


class Machine:
    """A clock, and work that moves it: so much for starting, so much for each call."""

    def __init__(self, each, start=0.0):
        self.now, self.each, self.start, self.calls = 0.0, each, start, []

    def clock(self):
        return self.now

    def run(self, calls):
        self.calls.append(calls)
        self.now += self.start + self.each * calls


def test_short_calls_are_repeated_until_waiting_does_not_count():
    machine = Machine(2.0**-20, start=2.0**-18)
    taken = on_device.samples(machine.run, 0.1, clock=machine.clock)
    calls = machine.calls[1]
    assert calls * (2.0**-20 + 2.0**-18) >= on_device.SAMPLE and set(machine.calls[1:]) == {calls}
    assert set(taken) == {few_roundings(2.0**-20 + 2.0**-18 / calls)}
    assert sum(taken) * calls >= 0.1 - on_device.SAMPLE


def test_long_calls_run_as_often_as_they_must_and_transfers_one_by_one():
    machine = Machine(8.0)
    assert on_device.samples(machine.run, 1.0, clock=machine.clock) == [8.0] * on_device.ROUNDS
    machine = Machine(2.0**-20)
    assert len(on_device.samples(machine.run, 1.0, most=7, clock=machine.clock)) == 7
    assert set(machine.calls) == {1}
    machine = Machine(0.0, start=0.25)  # a clock that is too coarse for one call
    on_device.samples(machine.run, 0.0, clock=machine.clock)
    assert max(machine.calls) <= on_device.MOST_CALLS


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ulps_count_the_numbers_between(dtype):
    a = np.array([1.0, -3.0, 0.0, np.inf], dtype)
    assert on_device.ulps(a, a.copy()) == 0
    assert on_device.ulps(a, np.nextafter(a, dtype(0))) == 1
    least = np.nextafter(dtype(0), dtype(1))
    assert on_device.ulps(np.array([least]), np.array([-least])) == 2
    assert on_device.ulps(np.array([dtype(0)]), np.array([dtype(-0.0)])) == 0
    assert on_device.ulps(np.array([dtype(1)]), np.array([dtype(2)])) == 1 << np.finfo(dtype).nmant
    whole = on_device.ulps(np.array([np.finfo(dtype).max]), np.array([np.finfo(dtype).min]))
    assert whole == 2 * int(np.array([np.finfo(dtype).max]).view(f"u{dtype().itemsize}")[0])


def test_ulps_of_what_is_not_a_number():
    nan = np.array([np.nan, 1.0], np.float32)
    assert on_device.ulps(nan, nan.copy()) == 0
    assert on_device.ulps(nan, np.ones(2, np.float32)) is None
    assert on_device.ulps(np.float32(1), np.float32(1)) == 0 == on_device.ulps(nan[:0], nan[:0])


def test_parity_is_with_the_cpu_and_both_with_float64():
    problem = problems.parse(TINY)
    wanted = expected.expected(problem, "forward")
    a = problem.arrays()
    mine = fc.conv2d(a["x"], a["weight"])
    found = on_device.parity(problem, "forward", [mine], wanted)
    assert found["ulp_max"] == 0 == found["ulp_size"] and found["cpu_error_max"] > 0
    mine.flat[0] = np.nextafter(mine.flat[0], np.float32(np.inf))
    found = on_device.parity(problem, "forward", [mine], wanted)
    assert found["ulp_max"] == 1 and found["ulp_size"] > 0
    mine.flat[0] = np.nan
    assert on_device.parity(problem, "forward", [mine], wanted)["ulp_max"] is None


def test_rounded_factors_are_forgiven_where_they_are_announced():
    problem = problems.parse("conv2d:n2c8h9w9k8r3s3_st1p1d1g1_f32")
    wanted = expected.expected(problem, "forward")
    rounding = peers.get("fastconv_cuda:tf32").rounding
    coarse = [(w * (1 + rounding)).astype(np.float32) for w in wanted]
    assert "wrong" in worker.judge(coarse, wanted, problem, "forward")
    assert "wrong" not in worker.judge(coarse, wanted, problem, "forward", rounding)
    coarse[0].flat[3] += np.float32(np.abs(wanted[0]).max() / 8)
    assert "TF32" in worker.judge(coarse, wanted, problem, "forward", rounding)["wrong"]
    assert peers.get("fastconv_cuda").rounding == 0 == peers.get("cudnn").rounding
    assert peers.get("cudnn_last_tf32").rounding == rounding


# -- peers, with the host in the device's place --------------------------------------------------------------


def computed(implementation):
    """How many small problems it computed, all of them rightly."""
    count = 0
    for problem in map(problems.parse, (*CONVOLUTIONS, *OTHERS, "lenet5:n2_f32")):
        there = {name: implementation.upload(array) for name, array in problem.arrays().items()}
        for direction in problem.directions:
            try:
                call = implementation.prepare(problem, direction, there)
            except peers.Refused as refusal:
                assert str(refusal)
                continue
            found = implementation.download(call())
            wanted = expected.expected(problem, direction)
            verdict = worker.judge(found, wanted, problem, direction)
            assert "wrong" not in verdict, f"{problem.name} {direction}: {verdict['wrong']}"
            count += 1
    return count


def test_cupy_computes_what_the_judge_expects():
    """Its expressions are NumPy's: NumPy takes its place."""
    implementation = peers.get("cupy")
    implementation.cupy = types.SimpleNamespace(**{**vars(np), "asnumpy": np.asarray})
    assert computed(implementation) > 10


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("name", ["cudnn", "cudnn_last"])
def test_cudnn_is_asked_for_what_the_judge_expects(name, monkeypatch):
    import torch

    implementation = peers.get(name)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(fc.DeviceError, match="torch reports no CUDA device"):
        implementation.setup(1)
    implementation.torch, implementation.F, implementation.aten = torch, torch.nn.functional, torch.ops.aten
    try:
        with torch.no_grad():
            assert computed(implementation) > 20
    finally:
        torch.set_grad_enabled(True)


# -- whole networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.NAMES)
def test_networks_are_made_of_the_listed_layers(name):
    problem = problems.parse(f"{name}:n1_f32")
    sizes = []
    for layer in problem.layers:
        if layer.family == "conv":
            sizes.append((layer.problem.C, layer.problem.size[1]))
    model, seen = problem.model(), []
    predict = fc.nn.Conv2d.predict
    try:
        fc.nn.Conv2d.predict = lambda self, x: (seen.append((x.shape[1], x.shape[2])), predict(self, x))[1]
        logits = model(problem.arrays()["x"])
    finally:
        fc.nn.Conv2d.predict = predict
    assert seen == sizes and logits.shape == (1, networks.CLASSES)
    assert problem.flops("step") == 3 * problem.flops("forward")


def test_networks_are_named_by_words():
    listed = [p.name for p in problems.select(["networks"])]
    assert listed == [f"{name}:n{networks.LISTED[name]}_f32" for name in networks.NAMES]
    assert problems.select(["net_lenet5"])[0].group == "networks"
    assert report.section({"family": "network", "group": "given"}) == "whole networks"
    with pytest.raises(
        ValueError, match="'lenet6' in 'lenet6:n2_f32' is no network .need one of lenet5, alexnet"
    ):
        problems.parse("lenet6:n2_f32")


@pytest.mark.parametrize("name", ["fastconv", "torch", "torch_channels_last"])
def test_a_step_gives_loss_logits_and_all_gradients(name):
    implementation = peers.get(name)
    if implementation.missing():
        pytest.skip(implementation.missing())
    problem = problems.parse("lenet5:n3_f32")
    with fc.num_threads(1):
        implementation.setup(1)
        for direction, count in (("forward", 1), ("step", 2 + 10)):
            wanted = expected.expected(problem, direction)
            found = implementation.results(implementation.prepare(problem, direction, problem.arrays())())
            assert len(found) == len(wanted) == count
            assert "wrong" not in worker.judge(found, wanted, problem, direction)
            spoilt = [np.array(f) for f in found]
            spoilt[-1] *= np.float32(1.05)
            assert "wrong" in worker.judge(spoilt, wanted, problem, direction)
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)


# -- tables, files, page -------------------------------------------------------------------------------------

FACTS = dict.fromkeys(
    "to_device_gbytes to_host_gbytes pinned_to_device_gbytes pinned_to_host_gbytes copy_gbytes call_seconds"
    " answer_seconds".split(),
    2.0,
)


def with_device():
    """Two layers: the GPU takes 1 ms (4 with transfers), the CPU 8 and 2 ms; cuDNN 2 and 0.5 ms."""
    made = synthetic(a={"fastconv": 8e-3, "torch": 9e-3}, b={"fastconv": 2e-3, "torch": 1e-3})
    there = {"name": "a GPU", "simulator": False, "compute_capability": "9.0", "multiprocessors": 132}
    there |= {"memory_bytes": 2**37, **FACTS, "results": [], "crossings": []}
    for label, theirs in (("a", 2e-3), ("b", 0.5e-3)):
        for name, best in (("fastconv_cuda", 1e-3), ("fastconv_cuda:tf32", 0.5e-3), ("cudnn", theirs)):
            r = {"problem": f"conv2d:{label}_f32", "label": label, "group": "vgg", "family": "conv"}
            r |= {
                "dtype": "float32",
                "direction": "forward",
                "implementation": name,
                "flops": 2e9,
                "bytes": 1e6,
            }
            r |= {"best": best, "median": best, "runs": 9, "first": 1.0, "error_max": 1e-6, "error_rms": 1e-7}
            r |= {"in_bytes": 2e6, "in_seconds": 1e-3, "out_bytes": 1e6, "out_seconds": 1e-3}
            r |= {"transfers_best": 4e-3, "transfers_median": 4e-3}
            if name == "fastconv_cuda":
                r |= {
                    "cold": 3.0,
                    "ulp_max": 17,
                    "ulp_size": 2.5,
                    "cpu_error_max": 2e-6,
                    "algorithm": "wgmma",
                }
            there["results"].append(r)
    cpu, gpu = swept()
    named = {"axis": "batch", "base": "conv2d:n*c6_f32", "direction": "forward"}
    there["crossings"].append({**named, "cpu": cpu, "device": gpu, "pays": gains.pays(cpu, gpu)})
    for name in ("fastconv_cuda", "fastconv_cuda:tf32", "cudnn"):
        entry = {
            "title": peers.get(name).title,
            "missing": None,
            "versions": {},
            "openmp": [],
            "arrays": "torch",
        }
        made["implementations"][name] = entry
    entry = {"title": "CuPy", "missing": "cupy not installed", "versions": {}, "openmp": []}
    made["implementations"]["cupy"] = entry
    made["device"] = there
    return made


def test_gains_by_hand():
    made = with_device()
    rows = {row["label"]: row["gains"] for row in gains.gains(made)}
    assert rows["a"] == {1: {"warm": few_roundings(8.0), "transfers": few_roundings(2.0)}}
    (row,) = gains.summary(made)
    assert (row["section"], row["threads"]) == ("networks", 1)
    assert row["warm"]["mean"] == few_roundings(4.0) and row["warm"]["worst_label"] == "b forward"
    assert row["transfers"]["worst"] == few_roundings(0.5)
    peer = gains.against_peers(made)
    assert set(peer) == {("fastconv_cuda", "cudnn")}  # float32 is not compared with TF32
    assert peer["fastconv_cuda", "cudnn"]["mean"] == few_roundings(1.0)


def test_warm_memory_counts_where_both_were_measured():
    made = with_device()
    other = [{**r, "allocator": "as_called", "best": 99.0} for r in made["results"]]
    made["results"] += other
    assert gains.cpu_times(made)["conv2d:a_f32", "forward"] == {1: 8e-3}


def test_the_table_has_the_gpus_part():
    made = with_device()
    text = tables.table(made)
    assert "GPU: a GPU, compute capability 9.0, 132 multiprocessors, 128 GB" in text
    row = next(line for line in text.splitlines() if line.startswith("a ") and line.endswith("wgmma"))
    assert row.split() == "a 8 1 4 1000 3000 17 2.5 1e-06 2e-06 0.5 2 wgmma".split()
    assert re.search(r"^networks, 1T +4 / 2 +1 / 0.5$", text, flags=re.M)
    assert "against 1 thread, with transfers: from 16 on" in text
    assert "fastconv on the GPU, fast against cuDNN, NCHW" in text and "cupy (cupy not installed)" in text
    plain = synthetic(a={"fastconv": 8e-3, "torch": 9e-3})
    assert "GPU" not in tables.table(plain)
    # the CPU's own tables do not change by a GPU in the report
    without = {**made, "device": None}
    assert tables.table(without).splitlines()[:10] == text.splitlines()[:10]


def test_the_page_has_the_gpus_part():
    made = with_device()
    page = html.page(made)
    for picture in re.findall(r"<svg.*?</svg>", page, flags=re.S):
        ElementTree.fromstring(picture)
    plain = html.page({**made, "device": None})
    assert page.count("<svg") == plain.count("<svg") + 4  # a crossing, gains, shares, cuDNN
    assert 'href="#gpu"' in page and 'id="gpu"' in page and 'id="gpu"' not in plain
    assert "from 16 on" in page and "GPU is faster" in page and "copying back" in page
    assert not re.search(r"https?://|<script|<link|<img|url\(", page)
    made["device"]["simulator"] = True
    assert "times mean nothing" in html.page(made)


def test_reports_survive_their_file_and_old_ones_are_read(tmp_path):
    made = with_device()
    report.save(made, tmp_path / "r.json")
    assert report.load(tmp_path / "r.json") == made
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["schema"] == "fastconv-bench/2" and written["summary"]["device"] == gains.summary(made)
    old = synthetic(a={"fastconv": 1.0})
    old["schema"] = "fastconv-bench/1"
    del old["device"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    read = report.load(tmp_path / "old.json")
    assert read["device"] is None and read["results"] == old["results"]
    assert [row["label"] for row in report.compare(read, made)] == ["a"]  # and is compared with
    assert "GPU" not in tables.table(read)


def test_parts_of_one_device_become_one():
    made, other = with_device(), with_device()
    other["device"]["results"] = [{**r, "best": 7.0} for r in other["device"]["results"][:1]]
    merged = report.merge([made, other])["device"]
    assert len(merged["results"]) == len(made["device"]["results"]) and merged["results"][0]["best"] == 7.0
    assert len(merged["crossings"]) == 1
    assert report.merge([synthetic(a={"fastconv": 1.0}), made])["device"] == made["device"]
    other["device"]["name"] = "another GPU"
    with pytest.raises(ValueError, match="different devices make no page together: a GPU and another GPU"):
        report.merge([made, other])


def test_comparing_finds_what_became_slower_on_the_gpu():
    old, new = with_device(), with_device()
    for r in new["device"]["results"]:
        r["best"] *= 2
    rows = [row for row in report.compare(old, new) if row["verdict"] == "slower"]
    assert {row["implementation"] for row in rows} == {"fastconv_cuda", "fastconv_cuda:tf32"}
    assert "slower: a forward, on the GPU" in tables.comparison_table(rows)


def test_every_key_is_in_the_schema():
    made = with_device()
    there = made["device"]
    words = set(re.findall(r"\w+", report.SCHEMA))
    keys = {*there, *there["crossings"][0], *there["crossings"][0]["pays"][0], *gains.summary(made)[0]}
    keys |= {key for r in there["results"] for key in r} | {"value", "arrays"}
    assert keys <= words, keys - words


# -- the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (("--crossings", "size"), "needs --device cpu,cuda"),
        (("--device", "cuda", "--crossings", "colour"), "crossing 'colour' is unknown, need one of batch"),
        (("--device", "cuda", "--crossings", "relu:*_f32=1,x"), "is unknown"),
        (("--device", "cuda", "--crossings", "elephant:*x3_f32=1,2"), "names no operation"),
        (("--device", "cuda", "--regret"), "needs --device cpu"),
    ],
)
def test_wrong_options_exit_with_2(capsys, options, message):
    assert cli.main(["bench", "--quick", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""


def test_an_unknown_device_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "--device", "gpu"])
    assert "need cpu, cuda or cpu,cuda, got 'gpu'" in capsys.readouterr().err


@pytest.mark.skipif(fc.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_anything_is_measured(capsys):
    for words in ("cuda", "cpu,cuda"):
        assert cli.main(["bench", "--quick", "--device", words]) == 2
        printed = capsys.readouterr()
        assert "bench: no CUDA device (numba.cuda" in printed.err and printed.out == ""
    with pytest.raises(fc.DeviceError, match="bench: no CUDA device"):
        device.run_on_device(problems.select(["tiny"]))


def test_words_choose_implementations_on_the_device():
    assert peers.chosen_device(None) == peers.chosen_device(["numpy"]) == peers.device_names()
    assert peers.chosen_device(["cudnn", "torch"]) == ["fastconv_cuda", "cudnn"]
    assert peers.chosen(["cudnn", "numpy"]) == ["fastconv", "numpy"]
    assert peers.chosen(["cudnn"]) == peers.default()


def test_the_list_names_what_the_device_has(capsys):
    assert cli.main(["bench", "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*peers.device_names(), "net_lenet5", "networks: net_lenet5"))


# -- all of it, in numba's simulator -------------------------------------------------------------------------


@pytest.mark.skipif(not NUMBA, reason="numba, whose simulator this needs, is absent")
def test_the_command_compares_cpu_and_device(tmp_path):
    now, page = tmp_path / "now.json", tmp_path / "page.html"
    options = [
        "--device",
        "cpu,cuda",
        "--layers",
        TINY,
        "relu:3x5_f32",
        "--threads",
        "1",
        "--seconds",
        "0.01",
    ]
    options += ["--implementations", "fastconv", "fastconv_cuda", "fastconv_cuda:strict", "cupy"]
    options += [
        "--directions",
        "forward",
        "backward_weight",
        "--crossings",
        f"{TINY.replace('n1', 'n*')}=1,2",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "fastconv", "bench", *options, "--json", str(now), "--html", str(page)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(Path(fc.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    made = report.load(now)
    there = made["device"]
    assert there["simulator"] and there["copy_gbytes"] > 0 and there["answer_seconds"] > 0
    ours = [r for r in there["results"] if r["implementation"] == "fastconv_cuda"]
    assert [r["direction"] for r in ours] == ["forward", "backward_weight", "forward"]
    for r in ours:
        assert 0 < r["best"] <= r["median"] and 0 < r["transfers_best"] and r["runs"] >= on_device.ROUNDS
        assert r["cold"] > 0 and r["first"] > 0 and r["in_seconds"] > 0 and r["out_seconds"] > 0
        assert r["in_bytes"] > 0 and r["out_bytes"] > 0 and "wrong" not in r
        assert r["ulp_max"] >= 0 and r["error_max"] >= 0 and r["cpu_error_max"] >= 0
    assert "simple" in {r.get("algorithm") for r in ours}
    assert {r["implementation"] for r in there["results"]} >= {"fastconv_cuda:strict"}
    (crossing,) = there["crossings"]
    assert [r["value"] for r in crossing["device"]] == [1, 2] == [r["value"] for r in crossing["cpu"]]
    assert {row["transfers"] for row in crossing["pays"]} == {False, True}
    assert "GPU: numba's CUDA simulator, whose times mean nothing" in run.stdout
    assert "The GPU pays, forward of" in run.stdout and "cupy not installed" in run.stdout
    assert "on the GPU: fastconv_cuda " in run.stderr
    assert page.read_text().count("<svg") >= 4
    changed = copy.deepcopy(made)
    changed["device"]["results"][0]["best"] *= 3
    assert any(
        row["allocator"] == "device" for row in report.compare(made, changed) if row["verdict"] == "slower"
    )
