"""Measuring in the process of an implementation that computes on a GPU: three times, kept apart.

A launch returns before its kernels have run, so nothing is timed without waiting for the device: warm calls
in loops with one wait at the end, so long that the wait does not count; whatever moves arrays waits by
itself.
"""

import gc
import math
import time

import numpy as np

import fastconv

from . import peers, problems
from .worker import judge

SAMPLE = 2e-3  # seconds of a sample at least: waiting for a device costs some 10 us, half a percent of that
ROUNDS = 3  # samples at least
MOST_CALLS = 2000  # in a sample: results of queued calls are alive until the device has computed them
MOST_TRANSFERS = 200  # samples at most of what moves arrays


def measure(implementation, problem, direction, expected, seconds, compare=True):
    """One problem in one direction: a part of an entry of "results" of "device" (`report.SCHEMA`).

    expected: a .npz file of right results; seconds: of warm calls, and again of calls with transfers; None:
    only the first call is timed; compare: whether the CPU computes it too.
    """
    problem = problems.parse(problem)
    host = problem.arrays()
    there = _sent(implementation, host)
    call = implementation.prepare(problem, direction, there)
    implementation.synchronize()
    start = time.perf_counter()
    result = call()
    implementation.synchronize()
    answer = {"first": time.perf_counter() - start}
    if seconds is None:
        return answer
    answer.update(implementation.facts(problem, direction))
    wanted = np.load(expected)
    wanted = [wanted[f"arr_{i}"] for i in range(len(wanted))]
    found = implementation.download(result)
    answer.update(judge(found, wanted, problem, direction, implementation.rounding))
    if compare:
        answer.update(parity(problem, direction, found, wanted))
    if "wrong" in answer:
        return answer
    shown = _fetched(problem, result)
    del result, found
    answer.update(_transfers(implementation, host, shown, seconds))

    def whole():  # computes on the copies of before, which hold the same, and so needs no preparation
        _sent(implementation, host)
        return implementation.download(_fetched(problem, call()))

    def warm(calls):
        with implementation.many():
            for _ in range(calls):
                call()
            implementation.synchronize()

    warm(1)
    took = samples(warm, seconds)
    answer.update(best=min(took), median=float(np.median(took)), runs=len(took))
    took = samples(_repeated(whole), seconds, MOST_TRANSFERS)
    answer.update(transfers_best=min(took), transfers_median=float(np.median(took)))
    return answer


def _sent(implementation, host):
    return {name: implementation.upload(array) for name, array in host.items()}


def _fetched(problem, result):
    """The results that a user takes to the host: all, but of a network the first alone (logits or loss)."""
    if problem.family == "network" and isinstance(result, tuple):
        return result[:1]
    return result


def _repeated(function):
    def run(calls):
        for _ in range(calls):
            function()

    return run


def samples(run, seconds, most=None, clock=time.perf_counter):
    """Seconds per call of samples during `seconds`, at least `ROUNDS` of them.

    run: a function of a number of calls, which it makes, and returns when all is done. A sample takes
    `SAMPLE` seconds at least, or `MOST_CALLS` calls; with `most`, it is one call, and there are that many.
    """
    gc.disable()
    try:
        start = clock()
        run(1)
        estimate = max(clock() - start, 1e-9)
        calls = 1 if most else min(max(1, math.ceil(SAMPLE / estimate)), MOST_CALLS)
        taken, end = [], clock() + seconds
        while len(taken) < ROUNDS or (clock() < end and (most is None or len(taken) < most)):
            start = clock()
            run(calls)
            taken.append((clock() - start) / calls)
    finally:
        gc.enable()
    return taken


def _transfers(implementation, host, result, seconds):
    """Bytes and best seconds of moving the inputs there and the results back, each alone."""
    arrays = [array for array in host.values() if array is not None]

    def send(calls):
        for _ in range(calls):
            _sent(implementation, host)
            implementation.synchronize()

    fetch = _repeated(lambda: implementation.download(result))
    return {
        "in_bytes": sum(array.nbytes for array in arrays),
        "out_bytes": sum(array.nbytes for array in implementation.download(result)),
        "in_seconds": min(samples(send, seconds / 4, MOST_TRANSFERS)),
        "out_seconds": min(samples(fetch, seconds / 4, MOST_TRANSFERS)),
    }


# -- parity --------------------------------------------------------------------------------------------------


def parity(problem, direction, found, wanted):
    """How far the results are from the CPU's, in the precision in force: "ulp_max", "ulp_size",
    "cpu_error_max"; None where one of them is not a number and the other is."""
    own = peers.get("fastconv")
    theirs = own.results(own.prepare(problem, direction, problem.arrays())())
    pairs = [(mine, np.asarray(other)) for mine, other in zip(found, theirs)]
    furthest = [ulps(mine.reshape(other.shape), other) for mine, other in pairs]
    sizes = [_of_size(mine.reshape(other.shape), other) for mine, other in pairs]
    error = judge(theirs, wanted, problem, direction).get("error_max")
    known = None not in furthest
    return {
        "ulp_max": max(furthest) if known else None,
        "ulp_size": max(sizes) if known else None,
        "cpu_error_max": error,
    }


def ulps(a, b):
    """The largest number of steps from one floating-point number to the next between elements of a and b.

    Of equal signs and exponents it is the difference in units of the last place. None if one element is not
    a number and its counterpart is.
    """
    if a.size == 0:
        return 0
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return None
    numbers = ~np.isnan(a)
    a, b = (_ordered(np.atleast_1d(array)[np.atleast_1d(numbers)]) for array in (a, b))
    return int(np.where(a > b, a - b, b - a).max(initial=0))


def _ordered(array):
    """Whole numbers (uint64) in the order of the floating-point ones, neighbours of neighbours."""
    bits = 8 * array.dtype.itemsize
    raw = (array + 0).view(f"u{array.dtype.itemsize}").astype(np.uint64)  # + 0: one zero only
    sign = np.uint64(1 << (bits - 1))
    below = np.uint64((1 << bits) - 1) - raw + np.uint64(1)
    return np.where(raw & sign, below, raw + sign)


def _of_size(a, b):
    """The largest difference in units of the last place of a number of the results' size."""
    if b.size == 0:
        return 0.0
    wide = b.astype(np.float64)
    size = math.sqrt(np.nanmean(wide**2)) or 1.0
    return float(np.nanmax(np.abs(a - wide)) / np.spacing(b.dtype.type(size)))


# -- the device ----------------------------------------------------------------------------------------------

LARGE = 64 << 20  # bytes that are moved: far beyond all caches and the cost of starting
LARGE_SIMULATED = 1 << 20


def describe(implementation, seconds):
    """What the device is and what it can do at best: "device" of a report without results."""
    from numba import cuda

    simulator = _simulated()
    large = LARGE_SIMULATED if simulator else LARGE
    host, pinned = np.ones(large, np.uint8), cuda.pinned_array(large, np.uint8)
    pinned[:] = 1
    here, there = cuda.to_device(host), cuda.device_array(large, np.uint8)
    small = implementation.upload(np.ones(1, np.float32))
    relu = fastconv.cuda.relu

    def rate(function, moved=large):
        def run(calls):
            for _ in range(calls):
                function()
            cuda.synchronize()

        run(1)
        return moved / min(samples(run, seconds / 4, MOST_TRANSFERS)) / 1e9

    def queued(calls):
        for _ in range(calls):
            relu(small)
        cuda.synchronize()

    def answered(calls):
        for _ in range(calls):
            relu(small)
            cuda.synchronize()

    queued(1)
    return {
        **_named(cuda, simulator),
        "to_device_gbytes": rate(lambda: there.copy_to_device(host)),
        "to_host_gbytes": rate(lambda: there.copy_to_host(host)),
        "pinned_to_device_gbytes": rate(lambda: there.copy_to_device(pinned)),
        "pinned_to_host_gbytes": rate(lambda: there.copy_to_host(pinned)),
        "copy_gbytes": rate(lambda: there.copy_to_device(here), 2 * large),
        "call_seconds": min(samples(queued, seconds / 4)),
        "answer_seconds": min(samples(answered, seconds / 4)),
    }


def _simulated():
    from numba.core import config

    return bool(config.ENABLE_CUDASIM)


def _named(cuda, simulator):
    if simulator:
        nothing = dict.fromkeys(("compute_capability", "multiprocessors", "memory_bytes"))
        return {"name": "numba's CUDA simulator", "simulator": True, **nothing}
    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return {
        "name": name,
        "simulator": False,
        "compute_capability": ".".join(map(str, device.compute_capability)),
        "multiprocessors": device.MULTIPROCESSOR_COUNT,
        "memory_bytes": int(cuda.current_context().get_memory_info()[1]),
    }
