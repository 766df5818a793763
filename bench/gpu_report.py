"""Everything that only hardware can tell, in one run of under ten minutes: `python bench/gpu_report.py`.

Builds every kernel, checks each against float64 from the smallest case up, checks the public operations
(`gpu_checks`), then times all of it: convolutions against cuDNN through torch in both layouts, linear against
torch, memory-bound operations against the copy bandwidth, the launch path (`gpu_speed`). Each stage is a
process of its own with a time guard, so that a kernel that hangs or faults costs its stage and no more. Ends
with one table and status 0 if every check passed, 1 if one failed or there is no GPU. Needs fastconv built,
numba-cuda, pytest (its cases are the tests'); torch for the peers. Ratio = the peer's time / ours.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from gpu_common import ALGORITHMS, KINDS, MARK

ROOT = Path(__file__).resolve().parents[1]
TOTAL = 590  # seconds of the whole run


def stages():
    """(name, arguments, seconds) in order."""
    yield "device", [], 60
    yield "build", [], 240
    for algorithm in ALGORITHMS:
        yield "check", [algorithm], 60
    yield "linear-check", [], 40
    yield "memory-check", [], 60
    yield "operations", [], 120
    yield "accuracy", [], 90
    yield "halves", [], 60
    for kind in KINDS:
        yield "speed", [kind], 100
    yield "linear", [], 40
    yield "groups", [], 30
    yield "memory", [], 40
    yield "launch", [], 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--stage", nargs="+", help="run one stage in this process (used by the report itself)"
    )
    parser.add_argument("--only", nargs="+", help="names of the stages to run")
    options = parser.parse_args()
    if options.stage:
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        return stage(options.stage[0])(*options.stage[1:])
    reason = no_device()
    if reason is not None:
        print(f"gpu_report: nothing was measured: {reason}", file=sys.stderr)
        return 1
    begin, rows, failed = time.time(), [], False
    for name, arguments, seconds in stages():
        if options.only and name not in options.only:
            continue
        title = " ".join([name, *arguments])
        left = TOTAL - (time.time() - begin)
        if left < 5:
            rows.append((title, "not run", f"the {TOTAL} s of the report were over"))
            failed = True
            continue
        found, problem = run_stage([name, *arguments], min(seconds, left))
        rows += [(title, *row) for row in found]
        if problem:
            rows.append((title, "FAILED", problem))
        failed = failed or bool(problem) or any(row[1] == "FAILED" for row in found)
        print(
            f"gpu_report: {title}: {len(found)} rows, {time.time() - begin:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    print_table(rows)
    return 1 if failed else 0


def no_device():
    """Why nothing can be run here, or None; asked in a process of its own."""
    code = "import fastconv as fc, sys; from fastconv.cuda import _missing; print(_missing() or '')"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return "asking numba for a GPU took more than two minutes"
    if run.returncode:
        return (run.stderr.strip().splitlines() or ["fastconv cannot be imported"])[-1]
    return run.stdout.strip() or None


def run_stage(arguments, seconds):
    """(rows, what went wrong or None) of one stage."""
    command = [sys.executable, __file__, "--stage", *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        output, problem = run.stdout, None
        if run.returncode:
            problem = (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        problem = f"still running after {seconds:.0f} s"
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    return [tuple(json.loads(line[len(MARK) :])) for line in lines], problem


def print_table(rows):
    widths = [max((len(str(row[i])) for row in rows if i < len(row)), default=0) for i in range(2)]
    for stage, what, *rest in rows:
        print(stage.ljust(widths[0]), str(what).ljust(widths[1]), *rest, sep="  ")


def stage(name):
    """The function that runs a stage."""
    import gpu_checks
    import gpu_speed

    function = "stage_" + name.replace("-", "_")
    return getattr(gpu_checks, function, None) or getattr(gpu_speed, function)


if __name__ == "__main__":
    sys.exit(main())
