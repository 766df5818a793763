"""Compiles every simple kernel to PTX without a GPU, prints a line of JSON for each; run by `test_cuda_ptx`.

Arguments: the compute capability (90), the dtypes.

Kernels are recorded as the backend launches them: every public operation is called on arrays that have shapes
and addresses, but no memory behind them.
"""

import contextlib
import itertools
import json
import re
import sys
import types as python_types

import numpy as np
from numba import cuda

import fastconv as fc
from fastconv._arguments import BFLOAT16, is_half, native_dtype
from fastconv.cuda import _arrays, _checks, _compile, _replay, fast, select
from fastconv.cuda.simple import launch


class Ghost:
    """An array on a device that is not there: numba's marks, and an address that nobody looks at."""

    __cuda_ndarray__ = True
    addresses = itertools.count(1 << 20, 1 << 20)

    def __init__(self, shape, dtype):
        self.shape = tuple(np.atleast_1d(shape).tolist()) if shape != () else ()
        self.dtype = np.dtype("V2") if dtype is BFLOAT16 else np.dtype(dtype)
        self.strides = np.empty(self.shape, self.dtype).strides
        self.ndim, self.size, self.stream = len(self.shape), int(np.prod(self.shape)), 0
        self.__cuda_array_interface__ = {
            "shape": self.shape, "typestr": self.dtype.str, "data": (next(self.addresses), False),
            "version": 3,
        }  # fmt: skip
        device = python_types.SimpleNamespace(id=0)
        self.gpu_data = python_types.SimpleNamespace(context=python_types.SimpleNamespace(device=device))

    def reshape(self, *shape):
        return Ghost(shape[0] if isinstance(shape[0], tuple) else shape, self.dtype)


recorded = {}  # (kernel, signature) -> letters of the parameters, in the order of the launches


def record(kernel, call, size, *arguments):
    assert size > 0, kernel.__name__
    signature = kernel.signature(arguments)
    recorded[kernel, signature] = [letter for letter, _ in launch.parameters(arguments, signature)]


KINDS = {"P": ["u64", "b64"], "L": ["u64", "b64", "u8", "b8"], "F": ["f32"], "D": ["f64"]}


def as_launched(ptx, letters):
    """Whether an entry has the parameters that a launch writes: so many, of these types."""
    (head,) = re.findall(r"\.entry [\w$]+\(([^)]*)\)", ptx)
    found = re.findall(r"\.param \.(?:align \d+ \.)?(\w+)", head)
    return len(found) == len(letters) and all(k in KINDS[letter] for k, letter in zip(found, letters))


def stand_in():
    """Everything that would ask for a GPU does without."""
    launch.Kernel.launch = record
    fc.cuda._available = True
    _arrays.current_device = lambda: 0
    _arrays.on_device = lambda device: contextlib.nullcontext()
    _arrays._Numba.empty = lambda self, like, shape, dtype, device, stream: Ghost(tuple(shape), dtype)
    _arrays.to_device = lambda a: Ghost(a.shape, a.dtype)
    _arrays.sent = lambda host, device, stream: Ghost(host.shape, host.dtype)
    _checks.Flag.check = lambda self, values: None
    _replay.Plan = lambda *recorded: _replay.UNPLANNED  # every call is as the first
    fast._current = lambda: (None, select.Device(0))


def launch_everything(dtype):
    """Every public operation, forward and backward."""
    from fastconv import _arithmetic, nn, optim

    def ghost(*shape, of=dtype):
        return Ghost(shape, of)

    x, w, bias = ghost(2, 4, 6, 6), ghost(4, 2, 3, 3), ghost(4)
    for algorithm in ("simple", "im2col"):
        y = fc.conv2d(x, w, bias, groups=2, activation="tanh", algorithm=algorithm)
        fc.conv2d_backward(y, x, w, groups=2, algorithm=algorithm)
    fc.col2im(fc.im2col(x, 3), (6, 6), 3)
    pooled, indices = fc.max_pool2d(x, 2, return_indices=True)
    fc.max_pool2d_backward(pooled, indices, x.shape)
    fc.avg_pool2d_backward(fc.avg_pool2d(x, 2), x.shape, 2)
    fc.elu_backward(x, fc.elu(x))
    fc.softmax_backward(x, fc.softmax(x, 1), 1)
    best, pieces = fc.maxout(x, 2)
    fc.maxout_backward(best, pieces, 2)
    fc.dropout_backward(x, fc.dropout(x, rng=np.random.default_rng(0))[1], 0.5)
    half = np.random.default_rng(0)
    half.random(1, np.float32)
    fc.dropout(x, rng=half)
    scores, labels, weight = ghost(5, 3), ghost(5, of=np.int64), ghost(3)
    fc.softmax_cross_entropy(scores, labels, weight=weight)
    fc.softmax_cross_entropy(scores, scores)
    fc.nll(scores, ghost(5, of=np.uint8))
    fc.hinge(scores, labels)
    fc.sigmoid_cross_entropy(scores, scores, weight=weight)
    fc.squared_error(scores, scores)
    fc.linear_backward(ghost(5, 7), scores, ghost(7, 3))
    fc.linear(scores, ghost(7, 3), ghost(7))
    fc.batch_norm(x, bias, bias, ghost(4), ghost(4), training=True)
    fc.batch_norm_backward(x, x, bias)
    fc.local_response_norm_backward(x, fc.local_response_norm(x, 3), 3, 1e-4, 0.75, 1.0)
    _arithmetic.concatenate([x, x], 1)
    _arithmetic.split(x, [1, 3], 1)
    _arithmetic.take(x, labels)
    _arithmetic.full_like(x, 1.0)
    _arithmetic.count_right(scores, labels)
    _arithmetic.add(x, x, 0.5)
    for kind, options in (
        ("SGD", {"lr": 1}), ("SGD", {"lr": 1, "momentum": 0.5, "weight_decay": 0.1}),
        ("SGD", {"lr": 1, "momentum": 0.5, "nesterov": True}), ("Adagrad", {}), ("Adadelta", {}),
        ("Adam", {}),
        ("RMSprop", {}), ("RMSprop", {"centered": True}), ("RMSprop", {"momentum": 0.5}),
        ("RMSprop", {"centered": True, "momentum": 0.5}),
    ):  # fmt: skip
        parameter = nn.Parameter(ghost(3, 4))
        parameter.grad = ghost(3, 4)
        getattr(optim, kind)([parameter], **options).step()


# whatever computes in 16 bits
SHORT = re.compile(r"^\s*(?:@\S+\s+)?(?:add|sub|mul|fma|div|min|max|neg|abs|set)\S*f16", re.M)


def _probe(x):
    x[0] = 1


def main():
    import numba.cuda.dispatcher

    capability = tuple(int(digit) for digit in sys.argv[1])
    try:
        from numba.cuda import types

        probe = types.void(types.Array(types.float32, 1, "A"))
        cuda.compile(_probe, probe, device=False, abi="numba", output="ptx", cc=capability)
    except Exception as error:
        print(json.dumps({"missing": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}))
        return
    stand_in()
    for dtype in sys.argv[2:]:
        launch_everything(native_dtype(dtype))
    # a function that kernels call is compiled for the current device, of which there is none
    numba.cuda.dispatcher.get_current_device = lambda: python_types.SimpleNamespace(
        compute_capability=capability
    )
    for (kernel, signature), letters in recorded.items():
        ptx, _ = cuda.compile(
            kernel.variant(signature),
            launch.types_of(signature),
            device=False,
            abi="numba",
            output="ptx",
            cc=capability,
        )
        double = any("float64" in str(kind) for kind in signature)
        half = any(type(of) is tuple and is_half(of[0]) for of in signature)
        facts = {
            "name": kernel.__name__,
            "double": double,
            "half": half,
            "short arithmetic": len(SHORT.findall(ptx)),
            "f64": ptx.count(".f64"),
            "entry": ptx.count(".entry"),
            "parameters": as_launched(ptx, letters),
        }
        print(json.dumps({**facts, "target": f".target sm_{sys.argv[1]}" in ptx, "local": ".local" in ptx}))
    code, name = _compile.cubin(launch.Typed(*next(iter(recorded))), int(sys.argv[1]))
    print(json.dumps({"cubin": code[:4] == b"\x7fELF" and name.encode() in code}))
    launched = {kernel.__name__ for kernel, _ in recorded}
    print(json.dumps({"not launched": sorted({k.__name__ for k in launch.KERNELS} - launched)}))


if __name__ == "__main__":
    main()
