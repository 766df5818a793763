"""The machine's ceilings, measured: multiply-adds, the register tile, copying memory."""

import threading
import time

import numpy as np

import fastconv

from .._cpu import isa

BURST = 1e-3  # seconds: short enough to fit between interruptions
KC = 128  # panels of 128 x (MR + NR) elements fill half a 32 KB first-level cache
SIZES = tuple(1 << power for power in range(17, 27))  # bytes read and written: 128 KiB to 64 MiB


def ceilings(dtype, threads, seconds=0.2):
    """What this machine can do at best with the instruction-set level in force: a dictionary.

    fma_gflops: multiply-adds on registers alone, all threads together, two operations each; the "peak" that
        results are a share of. A direct sum cannot exceed it, Winograd can.
    tile_gflops: the register tile of convolution on packed panels that stay in the first-level cache, times
        the threads: what is left of the peak once operands are loaded.
    copy_gbytes: bytes read plus written per second by copying large arrays, all threads together; the slope
        of the roofline.
    copies: the same for arrays that fit into caches: [bytes read plus written, GB/s] of sizes that grow.
    call_seconds: relu of one element, the shortest call.
    Each is the best of many short bursts during `seconds`, `copies` during as many for half of the sizes.
    """
    kernels, size = isa.active(), np.dtype(dtype).itemsize
    large = _copy(threads, seconds)
    return {
        "dtype": np.dtype(dtype).name,
        "threads": threads,
        "isa": kernels.build_info()["isa"],
        "fma_gflops": _best(lambda n: kernels.fma_peak(size, n, threads), 10000, seconds),
        "tile_gflops": threads * _best(lambda n: kernels.tile_gflops(size, KC, n), 100, seconds),
        "copy_gbytes": large,
        "copies": _copies(kernels, dtype, threads, seconds / 2) + [[2 * threads * LARGE, large]],
        "call_seconds": _call(dtype),
    }


def better(first, second):
    """The better of two measurements of the same ceilings, one by one: other work had disturbed the other."""
    least = {"call_seconds": min(first["call_seconds"], second["call_seconds"])}
    rates = {key: max(first[key], second[key]) for key in ("fma_gflops", "tile_gflops", "copy_gbytes")}
    copies = [[size, max(rate, other)] for (size, rate), (_, other) in zip(first["copies"], second["copies"])]
    return {**first, **rates, "copies": copies, **least}


def _best(rate, repeats, seconds):
    """The highest rate of bursts of about BURST seconds."""
    start = time.perf_counter()
    rate(repeats)
    took = time.perf_counter() - start
    repeats = max(1, int(repeats * BURST / max(took, 1e-6)))
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = max(best, rate(repeats))
    return best


LARGE = 64 << 20


def _copy(threads, seconds, size=LARGE):
    """GB/s of copying, read and written, from arrays far larger than any cache."""
    pairs = [(np.ones(size // 8), np.empty(size // 8)) for _ in range(threads)]
    best, rounds, end = 0.0, 0, time.perf_counter() + seconds
    while rounds < 5 or time.perf_counter() < end:
        workers = [threading.Thread(target=np.copyto, args=pair[::-1]) for pair in pairs]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, 2e-9 * threads * size / (time.perf_counter() - start))
        rounds += 1
    return best


def _copies(kernels, dtype, threads, seconds):
    """[bytes, GB/s] of each of `SIZES`: the better of NumPy's copying, which is one thread's, and relu's."""
    found = []
    for size in SIZES:
        x = np.ones(size // 2 // np.dtype(dtype).itemsize, dtype)
        y = np.zeros_like(x)
        best, rounds, end = np.inf, 0, time.perf_counter() + seconds / len(SIZES)
        while rounds < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            kernels.activation(x, y, "relu", 0.0, threads)
            between = time.perf_counter()
            np.copyto(y, x)
            best = min(best, between - start, time.perf_counter() - between)
            rounds += 1
        found.append([size, 1e-9 * size / best])
    return found


def _call(dtype):
    """Seconds of a call that computes one element."""
    x, best = np.zeros(1, dtype), np.inf
    for _ in range(1000):
        start = time.perf_counter()
        fastconv.relu(x)
        best = min(best, time.perf_counter() - start)
    return best
