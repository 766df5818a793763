"""The process in which one implementation computes, and the other end of the pipe to it.

Every implementation gets a process of its own: one OpenMP runtime and one allocator each, threads that idle
without hurting whoever is timed, peak memory that can be told apart, and a crash that costs one column. The
processes take turns in short bursts, so that all of them see the same machine.

Parent and child speak lines of JSON over the child's standard input and output.
"""

import gc
import importlib
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ..testing import bound

# What glibc would give back to the system after a call, to fault it in again, stays: kernels are compared.
WARM = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "500000000"}
ALLOCATORS = {"warm": WARM, "as_called": {}}

# By whatever name a library takes its number of threads.
THREADS = (
    "FASTCONV_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"
)  # fmt: skip

# How libraries are told the newest instructions that they may use: oneDNN, PyTorch's own kernels, MKL,
# OpenBLAS (products in NumPy, whose elementwise functions go on as they please), XLA (JAX), Numba. Whoever
# takes no such order at all is left out of a capped run (`Implementation.capped`).
_CAPPED = (
    "FASTCONV_ISA", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE", "XLA_FLAGS", "NUMBA_CPU_NAME",
)  # fmt: skip
CAPS = {
    "baseline": "baseline SSE41 default SSE4_2 Prescott --xla_cpu_max_isa=SSE4_2 x86-64",
    "avx2": "avx2 AVX2 avx2 AVX2 Haswell --xla_cpu_max_isa=AVX2 haswell",
    "avx512": "avx512 AVX512_CORE avx512 AVX512 SkylakeX --xla_cpu_max_isa=AVX512 skylake-avx512",
}
CAPS = {level: dict(zip(_CAPPED, words.split())) for level, words in CAPS.items()}

GATE = 8
"""An implementation is wrong, and not timed, when it errs by more than so many times the bound of a direct
sum: room for fast algorithms (Winograd, FFT), whose transforms cost them accuracy."""

TURNED = 2
"""As much for the gradients of networks, whose root mean square error is judged: so many times that of a
share of units on the wrong side of their maximum as large as the relative error of a sum."""


class Died(Exception):
    """The process of an implementation ended, or told of an error that leaves it useless."""


class Worker:
    """One implementation with one number of threads and one allocator, in its own process.

    isa: cap of the instruction set, fastconv's and everybody's (`CAPS`), or None; more: of its environment.
    """

    def __init__(self, implementation, threads, allocator, isa=None, cwd=None, more=None):
        self.implementation, self.threads, self.allocator = implementation, threads, allocator
        environment = {**os.environ, **ALLOCATORS[allocator], **{name: str(threads) for name in THREADS}}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        if isa:
            environment |= CAPS[isa]
        environment |= more or {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, implementation, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=cwd,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children
        )  # fmt: skip
        try:
            self.facts = self._answer()
        except Died:
            self.close()
            raise

    def ask(self, **request):
        """The answer to one request, a dictionary; raises `Died`."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise Died(self._obituary()) from None
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Died(self._obituary())
        answer = json.loads(line)
        if "error" in answer:
            raise Died(answer["error"])
        return answer

    def _obituary(self):
        status = self.process.wait()
        return (
            f"its process ended by signal {-status}"
            if status < 0
            else f"its process ended with status {status}"
        )

    def close(self):
        """End the process."""
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# -- in the child --------------------------------------------------------------------------------------------


def serve(name, threads):
    """Answer requests until standard input ends."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    _use_cores(threads)

    def answer(content):
        pipe.write(json.dumps(content) + "\n")
        pipe.flush()

    peers = importlib.import_module("fastconv.bench.peers")
    try:
        implementation = peers.get(name)
        implementation.setup(threads)
        answer({"versions": implementation.versions(), "arrays": getattr(implementation, "arrays", "")})
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        return
    state = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(_REQUESTS[request.pop("do")](implementation, state, **request))
        except peers.Refused as refusal:
            answer({"refused": str(refusal)})
        except Exception as error:
            answer({"failed": f"{type(error).__name__}: {error}"})


def _use_cores(threads):
    """Keep to as many cores as threads: the one setting that every library obeys."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])  # the system's own work tends to be on the first


def _prepare(implementation, state, problem, direction, expected):
    """Get ready to time; run once and compare with `expected`: a .npz file, or None (it has been)."""
    problems = importlib.import_module("fastconv.bench.problems")
    state.pop("call", None)
    if state.get("name") != problem:  # the next direction of a problem takes the same arrays
        state.clear()
        parsed = problems.parse(problem)
        state.update(name=problem, problem=parsed, arrays=parsed.arrays())
    gc.collect()
    problem = state["problem"]
    call = state["call"] = implementation.prepare(problem, direction, dict(state["arrays"]))
    before = _reset_peak()
    start = time.perf_counter()
    result = call()
    first = time.perf_counter() - start
    peak = _peak() - before if before is not None else None
    answer = {"first": first, "peak_bytes": peak, **implementation.facts(problem, direction)}
    if expected is not None:
        wanted = np.load(expected)
        found = implementation.results(result)
        answer.update(judge(found, [wanted[f"arr_{i}"] for i in range(len(wanted))], problem, direction))
    del result
    estimate = min(_time(implementation, state, 1, 3 if first < 0.1 else 1, 0)["seconds"])
    return {**answer, "estimate": estimate, "openmp": openmp_runtimes()}


def judge(found, wanted, problem, direction, rounding=0.0):
    """{"error_max", "error_rms"} relative to the results' root mean square, and "wrong" with a reason.

    rounding: relative error of the factors before they are multiplied (TF32), 0 where there is none. Like
    the terms' signs it is random, so that sums do not add it up.
    """
    if len(found) != len(wanted):
        return {"wrong": f"{len(found)} results, need {len(wanted)}"}
    worst = worst_rms = excess = 0.0
    for mine, theirs in zip(found, wanted):
        mine = np.asarray(mine)
        if mine.dtype != problem.dtype or mine.size != theirs.size:
            return {"wrong": f"{mine.dtype} {mine.shape}, need {problem.dtype} {theirs.shape}"}
        error = np.abs(mine.reshape(theirs.shape) - theirs)
        size = math.sqrt(np.mean(theirs**2)) or 1.0
        length = problem.length(direction)
        # Terms of random signs: their absolute values sum to about sqrt(length) times the size of the result.
        scale = max(size, np.abs(theirs).max())
        limit = GATE * (
            bound(math.sqrt(length) * scale, length, problem.dtype) + problem.depth * rounding * scale
        )
        finite = not np.isnan(error).any()
        largest = float(error.max()) if finite else math.inf
        rms = math.sqrt(np.mean(error**2))
        if problem.jumps(direction) and finite:
            # Where a maximum turns, a gradient changes altogether: single ones, as many as errors are large.
            turned = problem.depth * (np.finfo(problem.dtype).eps * math.sqrt(length) + rounding)
            excess = max(excess, rms / (TURNED * math.sqrt(turned) * size))
        else:
            excess = max(excess, largest / limit)
        worst, worst_rms = max(worst, largest / size), max(worst_rms, rms / size)
    verdict = {"error_max": worst, "error_rms": worst_rms}
    if excess > 1:
        verdict["wrong"] = (
            f"off by {worst:.1g} of the results' size, {GATE * excess:.0f} times a direct sum's bound"
            if not problem.jumps(direction)
            else f"off by {worst_rms:.1g} of the results' size, {excess:.1f} times what may be"
        ) + " with factors rounded to TF32" * (rounding > 0)
    return verdict


def _time(implementation, state, inner, repeats, warmup):
    """Seconds per call of `repeats` samples of `inner` calls each; results are freed between calls."""
    call, clock = state["call"], time.perf_counter
    samples = []
    gc.disable()
    try:
        for _ in range(warmup):
            call()
        for _ in range(repeats):
            if inner == 1:
                start = clock()
                result = call()
                samples.append(clock() - start)
                del result
            else:
                rounds = range(inner)
                start = clock()
                for _ in rounds:
                    call()
                samples.append((clock() - start) / inner)
    finally:
        gc.enable()
    return {"seconds": samples}


def _on_device(function):
    """A request that a function of `on_device` answers."""

    def answer(implementation, state, **request):
        room = importlib.import_module("fastconv.bench.on_device")
        return getattr(room, function)(implementation, **request)

    return answer


_REQUESTS = {
    "prepare": _prepare,
    "time": _time,
    "measure": _on_device("measure"),
    "describe": _on_device("describe"),
}


def _reset_peak():
    """Resident bytes now, and the peak set back to it; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _peak():
    return _status("VmHWM")


def _status(key):
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def openmp_runtimes():
    """File names of the OpenMP runtimes that this process has loaded; two files of one name count as two."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    files = set(re.findall(r"(/\S*/lib[gi]?omp[^/\s]*\.so[^/\s]*)", maps))
    return sorted(file.rpartition("/")[2] for file in files)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
