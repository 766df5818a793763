"""What is made of the times measured: ratios, summaries, comparisons, sweeps and regret."""

import json
import math

import pytest
from bench_samples import few_roundings, in_parts, synthetic

from fastconv.bench import html, layers, problems, report, sweep, tables


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
