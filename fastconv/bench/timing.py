"""Measuring: implementations take turns on one problem after another, each checked before it is timed."""

import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from .._cpu import isa as levels
from . import peers
from .expected import expected
from .limits import least
from .peak import better, ceilings
from .report import new_report
from .worker import Died, Worker

SAMPLE = 100e-6  # seconds that one sample takes at least: shorter calls are repeated inside it
BURST = 30e-3  # seconds for which an implementation runs before it is the next one's turn
PAUSE = 5e-3  # between turns: idle threads of the one before stop looking for work
ROUNDS = 5
SECONDS = 0.5  # for each implementation in each cell


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    problems,
    implementations=None,
    directions=None,
    threads=(1, 2),
    allocators=("warm",),
    seconds=SECONDS,
    isa=None,
    tell=lambda line: None,
    report=None,
):
    """Measure problems; returns a report (see `report.SCHEMA`).

    problems: Problem objects; implementations: names (default: `peers.default()`); directions: only these;
    threads: counts, each measured separately; allocators: "warm" (every process keeps its memory, see
    `worker`), "as_called"; seconds: time for each implementation in each cell of the table; isa: cap of the
    instruction set; tell: called with a line after each cell; report: one from `new_report`, filled as it
    goes, so that an interrupted run leaves what it had.
    """
    implementations = list(implementations or peers.default())
    if max(threads) > cores():
        raise ValueError(f"bench: {max(threads)} threads, this process may use {cores()} cores")
    report = new_report() if report is None else report
    if isa is not None:
        with levels.use(isa) as kernels:
            report["fastconv"]["isa"] = kernels.build_info()["isa"]
    report["settings"].update(threads=list(threads), allocators=list(allocators), seconds=seconds, isa=isa)
    with (
        tempfile.TemporaryDirectory(prefix="fastconv-bench-") as folder,
        _Stage(report, isa, folder) as stage,
    ):
        names = stage.present(implementations)
        keys = dict.fromkeys((p.dtype, n) for p in problems for n in threads)
        machine = {key: _ceilings(*key, isa) for key in keys}
        report["ceilings"] += machine.values()
        taken = [d for p in problems for d in p.directions if not directions or d in directions]
        clock = Clock(len(taken) * len(allocators) * len(threads))
        for allocator in allocators:
            for problem in problems:
                for direction in problem.directions:
                    if directions and direction not in directions:
                        continue
                    first = allocator == allocators[0]
                    file = expected_file(expected(problem, direction), folder) if first else None
                    for count in threads:
                        cell = stage.measure(problem, direction, count, allocator, names, seconds, file)
                        report["results"] += cell
                        tell(f"{clock.tick()} {_line(cell)}")
            stage.clear()
        for key, entry in machine.items():  # other work may have been in the way the first time
            entry.update(better(entry, _ceilings(*key, isa)))
    return report


def _ceilings(dtype, threads, isa):
    if isa is None:
        return ceilings(dtype, threads)
    with levels.use(isa):
        return ceilings(dtype, threads)


def expected_file(results, folder):
    """The name of a file with the right results of the cell that is measured."""
    file = Path(folder) / "expected.npz"
    np.savez(file, *results)
    return str(file)


def _line(cell):
    """A finished cell for who waits: ``vgg5 forward, 2 threads, warm: fastconv 1.23 ms, torch 2.60 ms``."""
    first = cell[0]
    times = ", ".join(
        f"{r['implementation']} " + (f"{1e3 * r['best']:.4g} ms" if "best" in r else "-") for r in cell
    )
    name = f"{first['label'] or first['problem']} {first['direction']}"
    return f"{name}, {first['threads']} thread{'s' * (first['threads'] > 1)}, {first['allocator']}: {times}"


class Clock:
    """How far a run of `total` cells is: ``[12/540, 14 min left]``, as the cells so far predict."""

    def __init__(self, total):
        self.total, self.done = total, 0
        self.start = time.perf_counter()

    def tick(self):
        self.done += 1
        left = (time.perf_counter() - self.start) / self.done * (self.total - self.done)
        shown = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f"[{self.done}/{self.total}, {shown} left]"


class _Stage:
    """The processes that are alive, and their turns."""

    def __init__(self, report, isa, folder):
        self.report, self.isa, self.folder = report, isa, folder
        self.workers = {}  # (implementation, threads, allocator) -> Worker, or why there is none

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.clear()

    def clear(self):
        for worker in self.workers.values():
            if isinstance(worker, Worker):
                worker.close()
        self.workers.clear()

    def present(self, names):
        """Those of the implementations that can run; the others are noted in the report with a word."""
        found = []
        for name in names:
            implementation = peers.get(name)
            missing = implementation.missing()
            if missing is None and not implementation.capped and self.isa not in (None, levels.levels()[-1]):
                missing = f"uses all instructions of the processor, not {self.isa} at most"
            entry = {"title": implementation.title, "missing": missing, "versions": {}, "openmp": []}
            self.report["implementations"][name] = entry
            if missing is None:
                entry["versions"] = implementation.versions()
                found.append(name)
        return found

    def _worker(self, name, threads, allocator):
        key = name, threads, allocator
        if key not in self.workers:
            try:
                self.workers[key] = Worker(*key, self.isa, self.folder)
            except Died as death:
                self.workers[key] = str(death)
        return self.workers[key]

    def measure(self, problem, direction, threads, allocator, names, seconds, file):
        """The cell of one problem, direction and thread count: a result per implementation."""
        cell, ready = [], {}
        for name in names:
            result = {
                **problem.facts(direction),
                "threads": threads,
                "allocator": allocator,
                "implementation": name,
                **least(problem, direction),
            }
            cell.append(result)
            worker = self._worker(name, threads, allocator)
            if isinstance(worker, str):
                result["failed"] = worker
                continue
            request = {"do": "prepare", "problem": problem.name, "direction": direction, "expected": file}
            answer = self._ask(worker, result, **request)
            if answer is None:
                continue
            entry = self.report["implementations"][name]
            entry["openmp"] = max(entry["openmp"], answer.pop("openmp"), key=len)
            estimate = answer.pop("estimate")
            result.update(answer)
            if "wrong" not in answer:
                ready[name] = _Turns(worker, result, estimate)
        self._interleave(list(ready.values()), seconds)
        return cell

    def _ask(self, worker, result, **request):
        """The answer, or None if there is none: then the result says why, and a dead worker is buried."""
        try:
            answer = worker.ask(**request)
        except Died as death:
            result["failed"] = str(death)
            worker.close()
            self.workers = {key: w for key, w in self.workers.items() if w is not worker}
            return None
        for trouble in ("refused", "failed"):
            if trouble in answer:
                result[trouble] = answer[trouble]
                return None
        return answer

    def _interleave(self, turns, seconds):
        """Bursts in turns, another first each time, until everyone had its time and enough rounds."""
        end, number = time.perf_counter() + seconds * len(turns), 0
        while turns and (number < ROUNDS or time.perf_counter() < end):
            first = number % len(turns)
            for turn in turns[first:] + turns[:first]:
                time.sleep(PAUSE)
                answer = self._ask(turn.worker, turn.result, do="time", **turn.burst)
                if answer is not None:
                    turn.samples += answer["seconds"]
            turns = [turn for turn in turns if "failed" not in turn.result]
            number += 1
        for turn in turns:
            turn.finish()


class _Turns:
    """One implementation's part in a cell: how long its bursts are, and the samples so far."""

    def __init__(self, worker, result, estimate):
        self.worker, self.result, self.samples = worker, result, []
        inner = max(1, math.ceil(SAMPLE / max(estimate, 1e-7)))
        repeats = min(max(int(BURST / (inner * estimate)), 1), 20)
        # A call that fills a burst is its own warming up: nothing of its start is in a cache at its end.
        warmup = 1 if estimate < BURST else 0
        self.burst = {"inner": inner, "repeats": repeats, "warmup": warmup}

    def finish(self):
        best = min(self.samples)
        self.result.update(best=best, median=float(np.median(self.samples)), runs=len(self.samples))
