"""Running the benchmark: worker processes, a whole run, the ceilings, the command."""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from bench_samples import CONVOLUTIONS, in_parts, synthetic

import fastconv as fc
from fastconv import cli
from fastconv._cpu import isa
from fastconv.bench import expected, html, layers, peak, peers, problems, report, tables, timing, worker

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
