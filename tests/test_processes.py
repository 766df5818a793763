"""Fork, many threads at once, the GIL, and threads that change what others read."""

import os
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from promises import CONVOLUTIONS, DTYPES, SMALL, algorithms, ids, python, same_results

import fastconv as fc
from fastconv.testing.operations import (
    Activation,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Columns,
    Convolution,
    Linear,
    LocalResponseNorm,
    Loss,
    Maxout,
    MaxPool,
    Softmax,
    Transposed,
)

pytestmark = pytest.mark.usefixtures("one_thread")


WORK = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")         # Python 3.12 on: fork in a process with threads
import numpy as np
import fastconv as fc

fc.set_num_threads(2)
rng = np.random.default_rng(0)
x, w = rng.standard_normal((4, 16, 40, 40)).astype("f4"), rng.standard_normal((24, 16, 3, 3)).astype("f4")

def work():
    y = fc.conv2d(x, w, padding=1)
    dx, dweight, dbias = fc.conv2d_backward(y, x, w, padding=1)
    p = fc.max_pool2d(y, 2)
    s = fc.softmax(p.reshape(4, -1))
    z = fc.linear(y.reshape(96, -1), y.reshape(96, -1))
    return b"".join(a.tobytes() for a in (y, dx, dweight, dbias, p, s, z))

expected = work()

def child_is_right(fork=os.fork):
    pid = fork()
    if pid == 0:
        try:
            os._exit(0 if work() == expected and work() == expected else 3)
        finally:
            os._exit(4)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
"""


def worked(code, **environment):
    return python(WORK + textwrap.dedent(code), **environment)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@needs_fork
def test_fork_after_kernels_ran():
    worked(
        """
        for _ in range(3):
            child_is_right()
            assert work() == expected
        """
    )


@needs_fork
def test_fork_of_a_fork():
    worked(
        """
        pid = os.fork()
        if pid == 0:
            assert work() == expected
            child_is_right()
            child_is_right()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """
    )


@needs_fork
def test_fork_from_another_thread():
    """Kernels ran in the main thread and in others; a thread forks that ran some, and one that ran none."""
    worked(
        """
        failures = []
        def job(first):
            try:
                if first:
                    assert work() == expected
                child_is_right()
                assert work() == expected
            except BaseException as failure:
                failures.append(failure)
        for first in (True, False):
            thread = threading.Thread(target=job, args=(first,))
            thread.start()
            thread.join()
        assert not failures, failures
        assert work() == expected
        child_is_right()
        """
    )


@needs_fork
def test_multiprocessing_by_fork():
    worked(
        """
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(3) as pool:
            results = [pool.apply_async(work) for _ in range(6)]
            assert all(r.get(60) == expected for r in results)
        assert work() == expected
        """
    )


@needs_fork
def test_fork_while_another_thread_has_ended_its_calls():
    """Threads with OpenMP teams of their own are alive, but outside a call, when the process forks."""
    worked(
        """
        ready, go = threading.Barrier(4), threading.Event()
        def idle():
            assert work() == expected
            ready.wait()
            go.wait()
            assert work() == expected
        threads = [threading.Thread(target=idle) for _ in range(3)]
        for thread in threads:
            thread.start()
        ready.wait()
        child_is_right()
        child_is_right()
        go.set()
        for thread in threads:
            thread.join()
        """
    )


def test_many_threads_at_once():
    """Every case of `SMALL` in eight threads, each in its own order, with two OpenMP threads each."""
    jobs = []
    for case in SMALL + CONVOLUTIONS[:2]:
        for dtype in DTYPES:
            for algorithm in algorithms(case):
                inputs = case.inputs(dtype)
                jobs.append((case, inputs, algorithm, case.run(fc, inputs, algorithm)))
    failures = []

    def work(seed):
        try:
            for i in np.random.default_rng(seed).permutation(len(jobs)):
                case, inputs, algorithm, expected = jobs[i]
                same_results(case.run(fc, inputs, algorithm), expected, case.name())
        except BaseException as failure:
            failures.append(failure)

    with fc.num_threads(2):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]


LONG = (  # of some tens of milliseconds in one thread
    Convolution(2, (8, 64, 60, 60), (64, 64, 3, 3), padding=1),
    Transposed(2, (8, 64, 28, 28), (64, 64, 4, 4), stride=2, padding=1),
    Columns((8, 32, 100, 100), 3, padding=1),
    Linear((2000, 1000), 1000),
    MaxPool(2, (8, 64, 160, 160), 3, stride=1),
    AvgPool(2, (8, 64, 160, 160), 3, stride=1),
    AdaptiveAvgPool(2, (8, 64, 160, 160), 7),
    Activation("tanh", (3000, 3000)),
    Activation("relu", (4000, 4000)),
    Softmax("log_softmax", (3000, 3000)),
    Maxout((40, 300, 600), 3),
    Loss("softmax_cross_entropy", (3000, 3000)),
    Loss("nll", (300, 30, 600)),
    Loss("sigmoid_cross_entropy", (3000, 2000), target="reals"),
    Loss("squared_error", (4000, 4000), target="reals"),
    Loss("hinge", (3000, 3000)),
    BatchNorm((16, 64, 100, 100), True),
    LocalResponseNorm((8, 64, 60, 60), 5),
)


class Silence:
    """Within it a second thread looks at the clock all the time, as often as the GIL lets it."""

    def __enter__(self):
        self._ticks, self._stop = [], threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        while not self._ticks:
            time.sleep(0.001)
        return self

    def _watch(self):
        while not self._stop.is_set():
            self._ticks.append(time.perf_counter())
            time.sleep(0.0005)

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def broken(self, start, end):
        """Whether the thread ran in the middle half of this time: what is Python is at the two ends."""
        edge = (end - start) / 4
        return any(start + edge < tick < end - edge for tick in self._ticks)


class Timed:
    """The public functions, noting when each call began and ended."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        function = getattr(fc, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.calls.append((name, start, time.perf_counter()))
            return result

        return timed


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.skipif(CORES < 2, reason="on one core threads take turns when the system says so")
@pytest.mark.parametrize("case", LONG, ids=ids)
def test_the_gil_is_released(case):
    """In every function that a case runs."""
    inputs, released, called = case.inputs(np.dtype(np.float32)), set(), set()
    for _ in range(60):  # a busy machine may leave the other thread no core for a while
        timed = Timed()
        with fc.num_threads(1), Silence() as silence:
            case.run(timed, inputs)
        called |= {name for name, _, _ in timed.calls}
        released |= {name for name, start, end in timed.calls if silence.broken(start, end)}
        if released == called:
            return
    raise AssertionError(f"the GIL is held by {', '.join(sorted(called - released))}")


@pytest.mark.skipif(sys.platform == "win32", reason="calls usleep")
def test_a_held_gil_would_be_seen():
    import ctypes

    for library, released in ((ctypes.PyDLL(None), False), (ctypes.CDLL(None), True)):
        with Silence() as silence:
            start = time.perf_counter()
            library.usleep(100_000)
            assert silence.broken(start, time.perf_counter()) == released


def test_other_threads_may_change_what_the_kernels_read():
    """Classes and indices that change during the call are caught where they are used, and nothing crashes."""
    python(
        """
        import threading, time
        import numpy as np
        import fastconv as fc

        rng = np.random.default_rng(0)
        logits, x = rng.standard_normal((300, 50)), rng.standard_normal((3, 4, 40, 40))
        target = rng.integers(0, 50, 300)
        y, indices = fc.max_pool2d(x, 2, return_indices=True)
        m, pieces = fc.maxout(x, 2)
        w = rng.standard_normal((5, 4, 3, 3))
        stop = time.monotonic() + 3
        arrays = (target, indices, pieces)
        wild = np.array([-2**63, -10**9, -2, 10**6, 2**40, 2**63 - 1])

        def meddle(seed):
            rng = np.random.default_rng(seed)
            while time.monotonic() < stop:
                array = arrays[rng.integers(3)]
                at = rng.integers(array.size)
                old = array.flat[at]
                array.flat[at] = wild[rng.integers(6)]
                array.flat[at] = old
                x.shape = (3, 4, 1600) if x.ndim == 4 else (3, 4, 40, 40)
                x.shape = (3, 4, 40, 40)

        threads = [threading.Thread(target=meddle, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        caught = done = 0
        while time.monotonic() < stop:
            for call in (
                lambda: fc.softmax_cross_entropy(logits, target),
                lambda: fc.nll(logits, target),
                lambda: fc.hinge(logits, target),
                lambda: fc.max_pool2d_backward(y, indices, (3, 4, 40, 40)),
                lambda: fc.maxout_backward(m, pieces, 2),
                lambda: fc.conv2d(x, w),
                lambda: fc.conv2d_backward(y[:, :, :18, :18].repeat(2, 1)[:, :5], x, w, stride=2),
                lambda: fc.im2col(x, 3),
                lambda: fc.avg_pool2d(x, 3),
                lambda: fc.relu(x),
            ):
                try:
                    call()
                    done += 1
                except (ValueError, TypeError):
                    caught += 1
        for thread in threads:
            thread.join()
        assert done, (done, caught)
        """
    )
