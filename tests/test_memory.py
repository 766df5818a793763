"""Memory of results: large ones are reused once they are dead, never before, and are ordinary arrays otherwise."""

import ctypes
import gc
import os
import pickle
import queue
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import fastconv as fc
from fastconv._cpu import arrays, isa

memory = isa.memory()
F32 = np.dtype(np.float32)
SHAPE = (64, 128, 128)  # 4 MiB of float32
LINUX = sys.platform.startswith("linux")


@pytest.fixture(autouse=True)
def own_bound():
    """64 MiB may be idle, and nothing is when a test begins."""
    gc.collect()
    before = memory.keep_results(64 << 20, arrays.LARGE)
    memory.release_memory()
    yield
    memory.keep_results(before, arrays.LARGE)
    memory.release_memory()


def address(array):
    return array.__array_interface__["data"][0]


def large(value=None):
    array = arrays.empty(SHAPE, F32)
    if value is not None:
        array[...] = value
    return array


# -- reuse -----------------------------------------------------------------------------------------------------


def test_a_dead_result_is_reused():
    x = np.ones(SHAPE, np.float32)
    y = fc.relu(x)
    where = address(y)
    del y
    assert memory.idle_bytes()[1] >= x.nbytes
    y = fc.relu(x)
    assert address(y) == where and (y == 1).all()
    assert memory.idle_bytes()[1] == 0


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y[1],
        lambda y: y.reshape(-1)[5:7],
        lambda y: y.T,
        lambda y: memoryview(y),
        lambda y: np.frombuffer(y, np.uint8),
        lambda y: np.lib.stride_tricks.as_strided(y, (2,), (4,)),
    ],
)
def test_a_living_view_keeps_its_block(view):
    y = large(3)
    where, kept = address(y), view(y)
    before = np.asarray(kept).copy()
    del y
    others = [large(7) for _ in range(3)]
    assert all(address(other) != where for other in others)
    assert np.array_equal(np.asarray(kept), before)
    del kept, others
    gc.collect()
    assert where in [address(array) for array in [large() for _ in range(4)]]


def test_nearly_the_same_size_shares_a_block_but_a_small_result_takes_no_large_one():
    y = large()
    where = address(y)
    del y
    small = arrays.empty((1 << 17,), F32)  # 512 KiB would sit on 4 MiB
    assert address(small) != where
    assert address(arrays.empty((SHAPE[0] * SHAPE[1] * SHAPE[2] - 100,), F32)) == where


r = np.random.default_rng(0)
X = r.standard_normal((4, 64, 56, 56)).astype(np.float32)
V = np.ones(64, np.float32)
ROWS, MATRIX = np.ones((512, 600), np.float32), np.ones((300, 600), np.float32)
FILTERS, WIDE = np.ones((64, 64, 3, 3), np.float32), np.ones((64, 64, 5, 5), np.float32)
LABELS = np.zeros(512, np.int64)
SMALL, PLACES = fc.max_pool2d(X, 2, return_indices=True)
PIECES = fc.maxout(X, 2)[1]
OPERATIONS = {
    "conv2d": lambda: [fc.conv2d(X, FILTERS, padding=1), fc.conv2d(X, FILTERS, padding=1, algorithm="im2col")],
    "conv2d_backward": lambda: fc.conv2d_backward(X, X, FILTERS, padding=1, output_mask=(True, False, False)),
    "conv2d_backward_weight": lambda: fc.conv2d_backward(X, X, WIDE, padding=2, output_mask=(False, True, False)),
    "im2col": lambda: [fc.im2col(X, 3)],
    "max_pool2d": lambda: fc.max_pool2d(X, 2, return_indices=True),
    "max_pool2d_backward": lambda: [fc.max_pool2d_backward(SMALL, PLACES, X.shape)],
    "avg_pool2d": lambda: [fc.avg_pool2d(X, 2), fc.avg_pool2d_backward(SMALL, X.shape, 2)],
    "activations": lambda: [fc.sigmoid(X), fc.tanh_backward(X, X), fc.dropout(X)[0]],
    "softmax": lambda: [fc.softmax(X, 1), fc.log_softmax_backward(X, X, 1)],
    "maxout": lambda: [*fc.maxout(X, 2), fc.maxout_backward(X[:, :32], PIECES, 2)],
    "linear": lambda: [fc.linear(ROWS, MATRIX), *fc.linear_backward(ROWS[:, :300], ROWS, MATRIX)[:2]],
    "softmax_cross_entropy": lambda: fc.softmax_cross_entropy(ROWS, LABELS)[1:],
    "nll": lambda: fc.nll(ROWS, LABELS)[1:],
    "hinge": lambda: fc.hinge(ROWS, LABELS)[1:],
    "sigmoid_cross_entropy": lambda: fc.sigmoid_cross_entropy(ROWS, ROWS, reduction="none"),
    "squared_error": lambda: fc.squared_error(ROWS, ROWS, reduction="none"),
    "batch_norm": lambda: [fc.batch_norm(X, V, V, V * 0, V * 1, True), fc.batch_norm_backward(X, X, V)[0]],
    "local_response_norm": lambda: [fc.local_response_norm(X, 5)],
    "local_response_norm_backward": lambda: [fc.local_response_norm_backward(X, X, 5, 1e-4, 0.75, 1.0)],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_takes_its_large_results_from_the_pool(operation):
    results = [array for array in OPERATIONS[operation]() if array is not None]
    assert all(array.nbytes >= arrays.LARGE for array in results)
    size, idle = sum(array.nbytes for array in results), memory.idle_bytes()[1]
    del results
    assert memory.idle_bytes()[1] - idle >= size


# -- ordinary arrays ---------------------------------------------------------------------------------------------


def test_results_are_ordinary_arrays():
    small = [arrays.empty(shape, np.dtype(np.float64)) for shape in ((3, 4), (), (0, 5))]
    for array in (large(), *small):
        flags = array.flags
        assert flags.owndata and flags.carray and array.base is None
        assert sys.getsizeof(array) >= array.nbytes
    assert address(large()) % 64 == 0
    assert arrays.zeros(SHAPE, F32).any() == False  # noqa: E712, it is an array's answer


def test_resize_keeps_what_is_there():
    array = large(5)
    array.resize((2 * SHAPE[0], *SHAPE[1:]), refcheck=False)
    assert (array[: SHAPE[0]] == 5).all() and (array[SHAPE[0] :] == 0).all()
    array.resize((10,), refcheck=False)
    assert (array == 5).all() and sys.getsizeof(array) < 1000
    del array
    assert memory.idle_bytes()[1] >= 3 * 4 << 20  # 4 MiB and 8 MiB came back


def test_pickle_and_copies():
    array = large(2)
    array[3, 4, 5] = np.nan
    for other in (pickle.loads(pickle.dumps(array, 5)), array.copy(), np.array(array)):
        assert np.array_equal(other, array, equal_nan=True) and other.flags.writeable
    array.shape = (-1,)
    assert array.size == np.prod(SHAPE)


def test_tracemalloc_sees_results():
    tracemalloc.start()
    try:
        array = large()
        assert tracemalloc.get_traced_memory()[0] >= array.nbytes
        del array
        array = large()  # a reused one too
        assert tracemalloc.get_traced_memory()[0] >= array.nbytes
        del array
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


def test_poison():
    large(1)
    memory.poison_memory(True)
    try:
        assert np.isnan(large()).all() and (arrays.empty(SHAPE, np.dtype(np.int64)) == -1).all()
    finally:
        memory.poison_memory(False)


def test_writing_behind_a_poisoned_block_is_noticed():
    before = memory.poison_memory(True)
    try:
        within, beyond = large(), large()
        within[...] = 0
        ctypes.memset(beyond.ctypes.data + beyond.nbytes + 100_000, 0, 1)
        del within
        assert memory.poison_memory(True) == 0
        del beyond
        assert memory.poison_memory(True) == 1 and memory.poison_memory(True) == 0
    finally:
        memory.poison_memory(False)
    assert before == 0


# -- bounds ------------------------------------------------------------------------------------------------------


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_bound_is_kept_and_the_oldest_goes_first():
    held = [large(i) for i in range(40)]  # 160 MiB
    places = [address(array) for array in held]
    before = resident() if LINUX else None
    while held:
        del held[0]
        assert memory.idle_bytes()[1] <= 64 << 20
    idle = memory.idle_bytes()[1]
    assert idle > 48 << 20
    if LINUX:
        assert before - resident() > 80 << 20  # the rest is the system's again
    assert address(large()) == places[-1]
    memory.keep_results(16 << 20, arrays.LARGE)
    assert memory.idle_bytes()[1] <= 16 << 20
    memory.release_memory()
    assert memory.idle_bytes() == (0, 0)


def test_switched_off():
    memory.keep_results(0, arrays.LARGE)
    large(1)
    assert memory.idle_bytes()[1] == 0
    kept = large(2)
    memory.keep_results(64 << 20, arrays.LARGE)
    del kept  # made by np.empty's allocator, and given back to it
    assert memory.idle_bytes()[1] == 0


def test_what_is_larger_than_the_bound_is_not_kept():
    memory.keep_results(2 << 20, arrays.LARGE)
    large(1)
    assert memory.idle_bytes()[1] == 0


def test_refusal_is_a_memory_error():
    large(1)
    assert memory.idle_bytes()[1]
    with pytest.raises(MemoryError):
        fc.relu(np.broadcast_to(np.float32(1), (1 << 45,)))
    assert memory.idle_bytes() == (0, 0)  # was offered to the system first
    assert (fc.relu(np.ones(SHAPE, np.float32)) == 1).all()


def fresh(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


READ = """
import fastconv as fc
from fastconv._cpu import arrays, isa
print(isa.memory().keep_results(1, 1), fc.show_config('dicts')['keep_mb'])
"""


@pytest.mark.parametrize("text, bound", [("0", 0), ("7", 7), (" 100000 ", 100000)])
def test_the_switch(text, bound):
    run = fresh(READ, FASTCONV_KEEP_MB=text)
    assert run.stdout.split() == [str(bound << 20), str(bound)], run.stderr


def test_the_switch_unset_is_bounded():
    amount, megabytes = map(int, fresh(READ, FASTCONV_KEEP_MB="").stdout.split())
    assert 0 < amount <= 512 << 20 and megabytes == amount >> 20


@pytest.mark.parametrize("text", ["-1", "1.5", "much", "9" * 12])
def test_nonsense_in_the_switch(text):
    run = fresh("import fastconv; import fastconv._cpu", FASTCONV_KEEP_MB=text)
    assert run.returncode and f"ValueError: FASTCONV_KEEP_MB={text!r}" in run.stderr


# -- threads, forks, the end ---------------------------------------------------------------------------------------


def test_blocks_pass_between_threads():
    """Arrays made in one thread die in another, while others make more; none ever shares a byte with another."""
    memory.keep_results(24 << 20, arrays.LARGE)
    ways, wrong = queue.Queue(), []

    def make(seed):
        for i in range(60):
            array = arrays.empty((1 + (i + seed) % 3, 1 << 18), F32)
            array[...] = seed * 1000 + i
            ways.put((seed * 1000 + i, array))

    def drop():
        while True:
            value, array = ways.get()
            if array is None:
                return
            if not (array == value).all():
                wrong.append(value)

    makers = [threading.Thread(target=make, args=(seed,)) for seed in range(4)]
    droppers = [threading.Thread(target=drop) for _ in range(3)]
    for thread in makers + droppers:
        thread.start()
    for thread in makers:
        thread.join()
    for _ in droppers:
        ways.put((0, None))
    for thread in droppers:
        thread.join()
    gc.collect()
    assert not wrong and memory.idle_bytes()[1] <= 24 << 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_while_threads_make_and_drop_results():
    code = """
import os, sys, threading, warnings
import numpy as np
from fastconv._cpu import arrays
warnings.simplefilter("ignore")
F32 = np.dtype(np.float32)
stop = False
def churn():
    while not stop:
        arrays.empty((1 << 19,), F32)
threads = [threading.Thread(target=churn) for _ in range(3)]
for t in threads: t.start()
mine = arrays.empty((1 << 20,), F32); mine[...] = 4
codes = []
for i in range(20):
    pid = os.fork()
    if not pid:
        y = [arrays.empty((1 << 19,), F32) for _ in range(8)]
        for k, a in enumerate(y): a[...] = k
        ok = all((a == k).all() for k, a in enumerate(y)) and (mine == 4).all()
        mine[...] = 5
        os._exit(0 if ok else 1)
    codes.append(os.waitpid(pid, 0)[1])
stop = True
for t in threads: t.join()
print(codes == [0] * 20, (mine == 4).all())
"""
    run = fresh(code)
    assert run.stdout.split() == ["True", "True"], run.stderr


def test_results_that_outlive_the_interpreter():
    code = """
import atexit, sys, threading
import numpy as np, fastconv as fc
x = np.ones((64, 128, 128), np.float32)
kept = [fc.relu(x) for _ in range(4)]
circle = [fc.relu(x)]; circle.append(circle)
sys.forever = fc.relu(x)
atexit.register(lambda: fc.relu(x))
class Late:
    def __del__(self): self.y[...] = 1
late = Late(); late.y = fc.relu(x); late.me = late
print("done")
"""
    run = fresh(code)
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")
