"""The program that fits the costs of algorithms finds the choices of times that follow the model."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fastconv._cpu import costs
from fastconv.bench import problems

pytest.importorskip("scipy")
PROGRAM = Path(__file__).parents[1] / "bench" / "fit_costs.py"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("fit_costs", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def modelled(program, names, prices):
    """Rows whose times are those of the model, for the batches that the problems have."""
    rows = []
    for name in names:
        for direction in program.DIRECTIONS:
            problem, times = problems.parse(name).problem, {}
            for algorithm in ("direct", "implicit_gemm"):
                steps = costs.count(direction, algorithm, problem, problem.N)
                times[algorithm] = 1e-9 * sum(
                    price * steps[s] for s, price in prices[direction][algorithm].items()
                )
            rows.append({"problem": name, "direction": direction, "times": times})
    return rows


def test_the_fit_finds_the_choices_of_a_model(program):
    names = program.rare("tiny", 60, 1) + program.rare("rare", 20, 1)
    rows = modelled(program, names, costs.COSTS)
    fitted = program.fit(rows, tell=lambda line: None)
    lost = program.regret(rows, fitted)
    # what is left is lost to the batch, which the choice must not look at
    assert np.mean(1 + lost <= program.WITHIN) > 0.9 and np.median(lost) == 0
    swapped = {d: {"direct": p["implicit_gemm"], "implicit_gemm": p["direct"]} for d, p in fitted.items()}
    with pytest.raises(KeyError):  # steps have the names of their algorithm
        program.regret(rows, swapped)


def test_fitted_costs_are_written_as_they_are_read(program):
    space = {}
    exec(program.text(costs.COSTS), space)
    assert space["COSTS"] == costs.COSTS and "Fitted by bench/fit_costs.py" in space["__doc__"]
    assert all(len(line) <= 110 for line in program.text(costs.COSTS).partition("COSTS")[2].splitlines())


def test_times_are_kept_and_the_best_of_a_case_counts(program, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "names", lambda: ["conv2d:n1c2h6w6k3r3s3_st1p1d1g1_f32"])
    monkeypatch.setattr(program, "SECONDS", 1e-3)
    file = tmp_path / "times.jsonl"
    assert program.measure(file, 0) == 3 and program.measure(file, 60) == 0
    rows = program.read([file])
    assert [row["direction"] for row in rows] == list(program.DIRECTIONS)
    assert all({"direct", "implicit_gemm", "winograd"} <= row["times"].keys() for row in rows)
    assert (
        program.measure(file, 60) == 0 and len(file.read_text().splitlines()) == 3
    )  # nothing is timed twice
    again = tmp_path / "again.jsonl"
    again.write_text(json.dumps({**rows[0], "times": {"direct": 1e-9, "implicit_gemm": 1.0}}) + "\n")
    (best, *_) = program.read([file, again])
    assert best["times"]["direct"] == 1e-9 and best["times"]["implicit_gemm"] < 1


def test_rare_shapes_are_valid_and_reproducible(program):
    for kind in ("rare", "tiny"):
        names = program.rare(kind, 12, 5)
        assert names == program.rare(kind, 12, 5) and len(set(names)) == 12
        assert all(problems.parse(name).name == name for name in names)
