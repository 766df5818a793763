"""The GPU against the CPU: runs implementations on the device over problems, and sizes up to where it pays.

Times of a device are of three kinds: warm (arrays stay there), with transfers (arrays come from the host and
go back), cold (the first call of a process that has compiled nothing). `gains.py` draws numbers from them.
"""

import itertools
import tempfile
from pathlib import Path

import fastconv

from .._errors import DeviceError
from . import gains, peers
from .expected import expected
from .problems import parse
from .report import new_report
from .timing import Clock, cores, expected_file, run
from .worker import Died, Worker

OURS = "fastconv_cuda"

# Where a device starts to pay: (one-line name with * for what grows, its values).
CROSSINGS = {
    "batch": ("conv2d:n*c6h14w14k16r5s5_st1p0d1g1_f32_bias", (1, 4, 16, 64, 256, 1024)),
    "size": ("conv2d:n1c16h*w*k16r3s3_st1p1d1g1_f32", (4, 8, 16, 32, 64, 128, 256)),
    "network": ("lenet5:n*_f32", (1, 4, 16, 64, 256, 1024)),
}


def run_on_device(
    problems,
    implementations=None,
    directions=None,
    seconds=0.5,
    isa=None,
    cold=True,
    tell=lambda line: None,
    report=None,
):
    """Measure problems on the GPU; returns a report whose "device" is filled (see `report.SCHEMA`).

    problems: Problem objects; implementations: names (default: `peers.device_names()`); directions: only
    these; seconds: of warm calls, and again of calls with transfers, for each implementation and problem;
    isa: cap of the processor's instruction set; cold: whether first calls are timed in processes of their
    own; tell: called with a line after each cell. With a report from `timing.run`, the CPU's times of the
    same problems are compared with. Raises DeviceError without a GPU.
    """
    need_device()
    report = new_report() if report is None else report
    names = list(implementations or peers.device_names())
    with (
        tempfile.TemporaryDirectory(prefix="fastconv-bench-") as folder,
        _Stage(report, isa, folder) as stage,
    ):
        names = stage.present(names, seconds)
        taken = [(p, d) for p in problems for d in p.directions if not directions or d in directions]
        clock = Clock(len(taken))
        for problem, direction in taken:
            cell = stage.measure(problem, direction, names, seconds, cold)
            report["device"]["results"] += cell
            tell(f"{clock.tick()} {_line(cell)}")
    return report


def need_device():
    """DeviceError with the reason where there is no GPU."""
    fastconv.cuda.backend("bench")


def _line(cell):
    """``net_lenet5 step on the GPU: fastconv_cuda 0.8 ms (with transfers 1.1 ms), cudnn 0.9 ms (...)``."""
    told = []
    for r in cell:
        times = (
            f"{1e3 * r['best']:.4g} ms (with transfers {1e3 * r['transfers_best']:.4g} ms)"
            if "best" in r
            else "-"
        )
        told.append(f"{r['implementation']} {times}")
    return f"{cell[0]['label'] or cell[0]['problem']} {cell[0]['direction']} on the GPU: {', '.join(told)}"


class _Stage:
    """The processes that compute on the device, one an implementation."""

    def __init__(self, report, isa, folder):
        self.report, self.isa, self.folder = report, isa, Path(folder)
        self.workers, self.fresh = {}, itertools.count()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for worker in self.workers.values():
            worker.close()

    def _start(self, name, cache):
        """A new process; what it compiles goes to a folder of its own, not to the user's."""
        more = {"FASTCONV_CUDA_CACHE": str(self.folder / cache)}
        return Worker(name, cores(), "warm", self.isa, self.folder, more)

    def present(self, names, seconds):
        """Those that can run; the others are noted with a word. Describes the device."""
        found = []
        for name in names:
            implementation = peers.get(name)
            entry = {
                "title": implementation.title,
                "missing": implementation.missing(),
                "versions": {},
                "openmp": [],
            }
            self.report["implementations"][name] = entry
            if entry["missing"] is None:
                try:
                    worker = self.workers[name] = self._start(name, "kept")
                except Died as death:
                    entry["missing"] = str(death)
                    continue
                entry["versions"], entry["arrays"] = worker.facts["versions"], worker.facts["arrays"]
                found.append(name)
        if OURS not in found:
            raise DeviceError(f"bench: {OURS} cannot run: {self.report['implementations'][OURS]['missing']}")
        if self.report["device"] is None:
            try:
                answer = self.workers[OURS].ask(do="describe", seconds=seconds)
            except Died as death:
                raise DeviceError(f"bench: {OURS} broke down: {death}") from None
            if "failed" in answer:
                raise DeviceError(f"bench: the device cannot be measured: {answer['failed']}")
            self.report["device"] = {**answer, "results": [], "crossings": []}
        return found

    def measure(self, problem, direction, names, seconds, cold):
        """The cell of one problem and direction: a result per implementation."""
        cell, file = [], expected_file(expected(problem, direction), self.folder)
        for name in names:
            result = {**problem.facts(direction), "implementation": name}
            cell.append(result)
            what = {"do": "measure", "problem": problem.name, "direction": direction, "expected": file}
            ours = name in peers.OURS
            try:
                if name not in self.workers:  # it died of another problem
                    self.workers[name] = self._start(name, "kept")
                result.update(self.workers[name].ask(**what, seconds=seconds, compare=ours))
                if cold and name == OURS and "best" in result:
                    result["cold"] = self._cold(name, what)
            except Died as death:
                result["failed"] = str(death)
                worker = self.workers.pop(name, None)
                if worker is not None:
                    worker.close()
        return cell

    def _cold(self, name, what):
        """Seconds of the first call of a process that finds nothing compiled; None if there were none."""
        worker = self._start(name, f"cold{next(self.fresh)}")
        try:
            return worker.ask(**what, seconds=None).get("first")
        finally:
            worker.close()


# -- where it starts to pay ----------------------------------------------------------------------------------


def axis(word):
    """(axis, template, values) of a word: a key of `CROSSINGS`, or "NAME=1,2,4" with * in a one-line name.

    ValueError for others, and for names that are none.
    """
    if word in CROSSINGS:
        return word, *CROSSINGS[word]
    template, _, values = word.partition("=")
    if "*" not in template or not all(value.isdecimal() for value in values.split(",")):
        known = ", ".join(CROSSINGS)
        raise ValueError(
            f"bench: crossing {word!r} is unknown, need one of {known}, or a one-line name with * for what"
            " grows and its values, such as conv2d:n*c6h14w14k16r5s5_st1p0d1g1_f32=1,8,64"
        )
    values = sorted(set(map(int, values.split(","))))
    for value in values:
        parse(template.replace("*", str(value)))
    return template, template, tuple(values)


def crossings(
    report,
    axes=tuple(CROSSINGS),
    threads=(1,),
    implementations=None,
    seconds=0.5,
    isa=None,
    quick=False,
    tell=lambda line: None,
):
    """Measure on the CPU and the GPU over growing sizes, and append to report["device"]["crossings"].

    axes: words as `axis` takes them; implementations: of fastconv on the device (default: "fastconv_cuda");
    quick: every other size.
    """
    names = [name for name in implementations or (OURS,) if name in peers.OURS]
    for word, template, values in map(axis, axes):
        values = values[::2] if quick and word in CROSSINGS else values
        by_name = {template.replace("*", str(value)): value for value in values}
        chosen = [parse(name) for name in by_name]
        direction = chosen[0].directions[-1 if chosen[0].family == "network" else 0]
        how = {"seconds": seconds, "isa": isa, "tell": tell}
        here = run(chosen, ["fastconv"], (direction,), threads=threads, **how)
        there = {**new_report(), "device": report["device"] and {**report["device"], "results": []}}
        run_on_device(chosen, names, (direction,), cold=False, report=there, **how)
        if report["device"] is None:
            report["device"] = {**there["device"], "results": []}
        entry = {"axis": word, "base": template, "direction": direction}
        entry["cpu"] = [{**r, "value": by_name[r["problem"]]} for r in here["results"]]
        entry["device"] = [{**r, "value": by_name[r["problem"]]} for r in there["device"]["results"]]
        entry["pays"] = gains.pays(entry["cpu"], entry["device"])
        report["device"]["crossings"].append(entry)
        for part in (here, there):
            for name, found in part["implementations"].items():
                report["implementations"].setdefault(name, found)
    return report
