"""Every public operation on a device, as the tests and `bench/gpu_report.py` measure and read it: a small
problem each. `python tests/dummy_calls.py own` (or torch, cupy, described: stand-ins for arrays of others)
prints what each asks of a driver that is none, as JSON; with a second argument the microseconds, as a table.
"""

import functools
import json
import sys
import time
from pathlib import Path

import numpy as np

import fastconv as fc


def calls(make):
    """name -> function of no arguments. make(shape, dtype) -> an array on a device, its content anything."""
    f, i = np.float32, np.int64
    x, w, per_channel = make((2, 8, 12, 12), f), make((8, 8, 3, 3), f), make((8,), f)
    flat, deep = make((2, 8, 12), f), make((2, 8, 6, 6, 6), f)
    w1, w3, thin = make((8, 8, 3), f), make((8, 8, 3, 3, 3), f), make((8, 1, 3, 3), f)
    rows, weight, bias = make((16, 32), f), make((10, 32), f), make((10,), f)
    dy, labels, mask = make((16, 10), f), make((16,), i), make((2, 8, 12, 12), np.bool_)
    mean, var = make((8,), f), make((8,), f)
    small, indices = make((2, 8, 6, 6), f), make((2, 8, 6, 6), i)
    pieces, which = make((2, 4, 12, 12), f), make((2, 4, 12, 12), i)
    cols = make((2, 72, 144), f)
    found = {
        "conv1d": lambda: fc.conv1d(flat, w1, per_channel, padding=1),
        "conv2d": lambda: fc.conv2d(x, w, per_channel, padding=1),
        "conv2d, simple": lambda: fc.conv2d(x, w, per_channel, padding=1, algorithm="simple"),
        "conv2d, im2col": lambda: fc.conv2d(x, w, per_channel, padding=1, algorithm="im2col"),
        "conv2d, depthwise": lambda: fc.conv2d(x, thin, per_channel, padding=1, groups=8),
        "conv3d": lambda: fc.conv3d(deep, w3, per_channel, padding=1),
        "conv2d_backward": lambda: fc.conv2d_backward(x, x, w, padding=1),
        "conv_transpose2d": lambda: fc.conv_transpose2d(x, w, per_channel, padding=1),
        "conv_transpose2d_backward": lambda: fc.conv_transpose2d_backward(x, x, w, padding=1),
        "im2col": lambda: fc.im2col(x, 3, padding=1),
        "col2im": lambda: fc.col2im(cols, (12, 12), 3, padding=1),
        "max_pool2d": lambda: fc.max_pool2d(x, 2),
        "max_pool2d, indices": lambda: fc.max_pool2d(x, 2, return_indices=True),
        "max_pool2d_backward": lambda: fc.max_pool2d_backward(small, indices, (2, 8, 12, 12)),
        "avg_pool2d": lambda: fc.avg_pool2d(x, 2),
        "avg_pool2d_backward": lambda: fc.avg_pool2d_backward(small, (2, 8, 12, 12), 2),
        "adaptive_avg_pool2d": lambda: fc.adaptive_avg_pool2d(x, 1),
        "adaptive_avg_pool2d_backward": lambda: fc.adaptive_avg_pool2d_backward(small, (2, 8, 12, 12)),
        "adaptive_max_pool2d": lambda: fc.adaptive_max_pool2d(x, 2),
        "adaptive_max_pool2d_backward": lambda: fc.adaptive_max_pool2d_backward(
            small, indices, (2, 8, 12, 12)
        ),
        "softmax": lambda: fc.softmax(rows),
        "softmax_backward": lambda: fc.softmax_backward(rows, rows),
        "log_softmax": lambda: fc.log_softmax(rows),
        "log_softmax_backward": lambda: fc.log_softmax_backward(rows, rows),
        "maxout": lambda: fc.maxout(x, 2),
        "maxout_backward": lambda: fc.maxout_backward(pieces, which, 2),
        "dropout": lambda: fc.dropout(x, 0.5, rng=GENERATOR),
        "dropout_backward": lambda: fc.dropout_backward(x, mask, 0.5),
        "softmax_cross_entropy": lambda: fc.softmax_cross_entropy(rows, labels),
        "softmax_cross_entropy, soft": lambda: fc.softmax_cross_entropy(rows, rows),
        "nll": lambda: fc.nll(rows, labels),
        "sigmoid_cross_entropy": lambda: fc.sigmoid_cross_entropy(rows, rows),
        "squared_error": lambda: fc.squared_error(rows, rows),
        "hinge": lambda: fc.hinge(rows, labels),
        "linear": lambda: fc.linear(rows, weight, bias),
        "linear_backward": lambda: fc.linear_backward(dy, rows, weight),
        "batch_norm": lambda: fc.batch_norm(x, per_channel, per_channel, mean, var),
        "batch_norm, training": lambda: fc.batch_norm(x, per_channel, per_channel, mean, var, training=True),
        "batch_norm_backward": lambda: fc.batch_norm_backward(x, x, per_channel),
        "local_response_norm": lambda: fc.local_response_norm(x, 3),
        "local_response_norm_backward": lambda: fc.local_response_norm_backward(x, x, 3, 1e-4, 0.75, 1.0),
    }  # fmt: skip
    for name in ("sigmoid", "tanh", "relu", "leaky_relu", "elu"):
        forward, backward = getattr(fc, name), getattr(fc, f"{name}_backward")
        found[name] = lambda forward=forward: forward(x)
        found[f"{name}_backward"] = lambda backward=backward: backward(x, x)
    return found


GENERATOR = np.random.default_rng(0)
# what issue 4 wants to cost the host less than 10 us: small operations, each with one backend call
QUICK = (
    "relu", "conv2d", "conv2d, depthwise", "max_pool2d", "avg_pool2d", "softmax", "linear", "batch_norm",
    "softmax_cross_entropy", "nll", "hinge", "squared_error", "sigmoid_cross_entropy",
)  # fmt: skip


def best(function, times=100, samples=25):
    """Seconds of a call: the least of short loops, so that other work on the machine disturbs few."""
    took = []
    for _ in range(samples):
        start = time.perf_counter()
        for _ in range(times):
            function()
        took.append(time.perf_counter() - start)
    return min(took) / times


def maker(kind, driver):
    """make(shape, dtype) for arrays of a kind, and the stream on which their library works."""
    import foreign_arrays as foreign

    if kind == "own":
        return lambda shape, dtype: fc.cuda.to_device(np.ones(shape, dtype)), 1
    if kind in ("torch", "cupy"):
        sys.modules[kind] = getattr(foreign, kind)(driver)
    of = {"torch": foreign.Tensor, "cupy": foreign.Cupy, "described": foreign.Described}[kind]
    return functools.partial(of, driver), {"torch": 7, "cupy": 9}.get(kind, 1)


def results_of(result):
    return [r for r in (result if isinstance(result, tuple) else (result,)) if r is not None]


def facts(dummy, kind, driver):
    """name -> what a warm call asks of the driver, and for the quick ones the seconds it takes the host."""
    from fastconv.cuda import _arrays, _backend

    make, stream = maker(kind, driver)
    like = make((2,), np.float32)
    of = _arrays.kind_of(like)
    counted = []
    for name in _backend.__all__:
        function = getattr(_backend, name)
        setattr(_backend, name, lambda *a, f=function: (counted.append(1), f(*a))[1])
    found = {}
    for name, call in calls(make).items():
        call(), call()
        dummy.forget()
        call()
        at_once = dummy.calls
        with fc.cuda.deferred_checks():
            call(), call()
            alive = dummy.alive
            counted.clear()
            dummy.forget()
            result = call()
            asked, streams = dummy.calls, dummy.streams
            kept = results_of(result)
            shapes = [(tuple(r.shape), np.dtype(str(r.dtype).removeprefix("torch."))) for r in kept]
            number = len(kept)
            del result, kept
            found[name] = {
                "calls": asked, "at once": at_once, "streams": sorted(streams), "stream": stream,
                "left": dummy.alive - alive, "results": number, "backend calls": len(counted),
            }  # fmt: skip
            if name in QUICK:
                makes = sum(best(lambda s=s, d=d: of.empty(like, s, d, 0, stream)) for s, d in shapes)
                whole = best(call)
                found[name].update(seconds=whole - makes, whole=whole)
    return found


def main():
    import dummy_driver

    dummy = dummy_driver.install()
    from fastconv.cuda import _driver

    found = facts(dummy, sys.argv[1], _driver.driver())
    if len(sys.argv) == 2:
        print(json.dumps(found))
        return
    for name in QUICK:
        of = found[name]
        alone = f"without its results {of['seconds'] * 1e6:6.2f} us"
        print(f"{name:24}{of['whole'] * 1e6:8.2f} us, {alone}", *of["calls"])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
