"""The machine's ceilings, measured: multiply-adds, the register tile, copying memory."""

import threading
import time

import numpy as np

from .._cpu import isa

BURST = 1e-3  # seconds: short enough to fit between interruptions
KC = 128  # panels of 128 x (MR + NR) elements fill half a 32 KB first-level cache


def ceilings(dtype, threads, seconds=0.2):
    """What this machine can do at best with the instruction-set level in force: a dictionary.

    fma_gflops: multiply-adds on registers alone, all threads together, two operations each; the "peak" that
        results are a share of. A direct sum cannot exceed it, Winograd can.
    tile_gflops: the register tile of convolution on packed panels that stay in the first-level cache, times
    the
        threads: what is left of the peak once operands are loaded.
    copy_gbytes: bytes read plus written per second by copying large arrays, all threads together; the slope
    of
        the roofline.
    Each is the best of many short bursts during `seconds`.
    """
    kernels, size = isa.active(), np.dtype(dtype).itemsize
    return {
        "dtype": np.dtype(dtype).name,
        "threads": threads,
        "isa": kernels.build_info()["isa"],
        "fma_gflops": _best(lambda n: kernels.fma_peak(size, n, threads), 10000, seconds),
        "tile_gflops": threads * _best(lambda n: kernels.tile_gflops(size, KC, n), 100, seconds),
        "copy_gbytes": _copy(threads, seconds),
    }


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


def _copy(threads, seconds, size=64 << 20):
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
