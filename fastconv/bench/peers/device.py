"""What computes on a GPU: fastconv by each of its precisions, cuDNN through PyTorch, and CuPy.

These take host arrays in `upload`, compute in the call that `prepare` returns, and give results back in
`download`; `on_device.py` times each of the three, and all of them together.
"""

import contextlib
import importlib
from importlib import metadata

import numpy as np

import fastconv

from ..._errors import DeviceError
from .. import networks
from ..problems import hidden
from .base import Implementation, Refused, elementwise
from .ours import Fastconv
from .pytorch import Torch, images_only

TF32_ROUNDING = 2.0**-10  # of factors with 10 bits behind the point: what single-pass TF32 may err by


class OnDevice(Implementation):
    """An implementation on a GPU.

    rounding: relative error of the factors of a product, beside that of the dtype; arrays: the library whose
    arrays it computes on.
    """

    rounding = 0.0
    arrays = ""

    def upload(self, array):
        """A host array on the device; None stays None."""
        raise NotImplementedError

    def synchronize(self):
        """Wait for the device."""
        raise NotImplementedError

    def download(self, result):
        """Results as NumPy arrays, in the order of `expected`; waits for the device."""
        return [
            self._host(r)
            for r in (result if isinstance(result, (tuple, list)) else [result])
            if r is not None
        ]

    results = download

    def _host(self, array):
        raise NotImplementedError

    def many(self):
        """A context around calls in a row, in which they do not wait for the device."""
        return contextlib.nullcontext()


class FastconvCuda(OnDevice, Fastconv):
    """The public functions on device arrays, with one precision. Arrays are PyTorch's or CuPy's where these
    can reach the device, since their memory comes from a pool, and numba's otherwise."""

    namespace = "fastconv.cuda"
    packages = ("numba",)

    def __init__(self, precision="fast"):
        self.algorithm, self.precision = "auto", precision
        self.name = "fastconv_cuda" if precision == "fast" else f"fastconv_cuda:{precision}"
        self.title = f"fastconv on the GPU, {precision}"
        self.rounding = TF32_ROUNDING if precision == "tf32" else 0.0

    def setup(self, threads):
        fastconv.set_num_threads(threads)
        fastconv.set_precision(self.precision)
        fastconv.cuda.backend("bench")  # raises DeviceError without a GPU
        self.library = _library()
        self.arrays = "numba" if self.library is None else self.library.__name__

    def versions(self):
        packages = ["numba-cuda", *([self.arrays] if self.arrays not in ("", "numba") else [])]
        found = super().versions()
        for package in packages:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(package)
        return found

    def upload(self, array):
        if array is None:
            return None
        if self.arrays == "torch":
            return self.library.from_numpy(array).cuda()
        return fastconv.cuda.to_device(array) if self.library is None else self.library.asarray(array)

    def synchronize(self):
        fastconv.cuda.synchronize()

    def _host(self, array):
        return np.asarray(fastconv.cuda.to_host(array))

    def many(self):
        return fastconv.cuda.deferred_checks()

    def _plan(self, problem, direction):
        op = problem.op if direction == "forward" else f"{problem.op}_{direction}"
        how = {} if problem.transposed else {"activation": problem.problem.activation}
        arrays = (hidden(shape, problem.dtype) for shape in (problem.x_shape, problem.weight_shape))
        return fastconv.cuda.plan(op, *arrays, **problem.options, **how)

    def norm(self, problem, direction, x, dy, weight=None, bias=None):
        fc = self.fc
        if problem.op == "local_response_norm" or direction == "backward":
            return super().norm(problem, direction, x, dy, weight, bias)
        mean, var = (self.upload(make(x.shape[1], problem.dtype)) for make in (np.zeros, np.ones))
        return lambda: fc.batch_norm(x, weight, bias, mean, var, training=True)

    def network(self, problem, direction, x, target):
        return networks.call(problem, direction, x, target, lambda model: model.to("cuda"))


def _library():
    """torch or cupy, if it is installed and reaches a device, or None."""
    with contextlib.suppress(Exception):  # whatever half of an installation raises, numba's arrays remain
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            return torch
    with contextlib.suppress(Exception):
        cupy = importlib.import_module("cupy")
        if cupy.cuda.runtime.getDeviceCount():
            return cupy
    return None


class CuDNN(OnDevice, Torch):
    """PyTorch on the GPU, which computes convolutions by cuDNN, the fastest of its algorithms by trial."""

    name, title = "cudnn", "cuDNN, NCHW"
    arrays, tf32 = "torch", False

    def __init__(self):
        self.rounding = TF32_ROUNDING if self.tf32 else 0.0

    def setup(self, threads):
        super().setup(threads)
        torch = self.torch
        if not torch.cuda.is_available():
            raise DeviceError("torch reports no CUDA device")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.tf32

    def prepare(self, problem, direction, arrays):
        if self.last:
            images_only(problem, arrays)
        return Implementation.prepare(self, problem, direction, arrays)

    def upload(self, array):
        if array is None:
            return None
        there = self.torch.from_numpy(array).cuda()
        formats = {4: self.torch.channels_last, 5: self.torch.channels_last_3d}
        return (
            there.contiguous(memory_format=formats[there.ndim])
            if self.last and there.ndim in formats
            else there
        )

    def synchronize(self):
        self.torch.cuda.synchronize()

    def _host(self, array):
        return array.detach().cpu().contiguous().numpy()


class CuDNNTf32(CuDNN):
    name, title, tf32 = "cudnn_tf32", "cuDNN, NCHW, TF32", True


class CuDNNLast(CuDNN):
    name, title, last = "cudnn_last", "cuDNN, channels_last", True


class CuDNNLastTf32(CuDNN):
    name, title, tf32, last = "cudnn_last_tf32", "cuDNN, channels_last, TF32", True, True


class CuPy(OnDevice):
    """CuPy: convolution as columns and one product, the rest as its array expressions."""

    name, title = "cupy", "CuPy"
    arrays = "cupy"
    packages = ("cupy",)

    def versions(self):
        return {
            "cupy": importlib.import_module("cupy").__version__
        }  # its wheels are named after CUDA's version

    def setup(self, threads):
        self.cupy = importlib.import_module("cupy")
        if not self.cupy.cuda.is_available():
            raise DeviceError("cupy reports no CUDA device")

    def upload(self, array):
        return None if array is None else self.cupy.asarray(array)

    def synchronize(self):
        self.cupy.cuda.Device().synchronize()

    def _host(self, array):
        return self.cupy.asnumpy(array)

    def conv(self, problem, direction, x, weight, bias, dy):
        p, cupy = problem.problem, self.cupy
        options = problem.options
        if problem.transposed or p.groups > 1 or not p.batched or p.activation:
            raise Refused("ordinary convolution of a batch without groups only")
        if options.get("padding_mode", "zeros") != "zeros" or direction == "backward_input":
            return None
        ndim = problem.ndim
        axes, widths = tuple(range(2, 2 + ndim)), ((0, 0), (0, 0), *options["padding"])
        window = tuple(d * (k - 1) + 1 for d, k in zip(options["dilation"], p.kernel[-ndim:]))
        every = (slice(None), slice(None), *(slice(None, None, s) for s in options["stride"]))
        every += tuple(slice(None, None, d) for d in options["dilation"])
        y_axes = (0, *axes)

        def columns():
            whole = cupy.pad(x, widths) if any(map(any, options["padding"])) else x
            return cupy.lib.stride_tricks.sliding_window_view(whole, window, axes)[every]

        taps = tuple(range(2 + ndim, 2 + 2 * ndim))
        if direction == "forward":

            def forward():
                y = cupy.moveaxis(
                    cupy.tensordot(columns(), weight, ((1, *taps), tuple(range(1, 2 + ndim)))), -1, 1
                )
                y = cupy.ascontiguousarray(y)
                return y if bias is None else y + bias.reshape(-1, *(1,) * ndim)

            return forward
        return lambda: (cupy.tensordot(dy, columns(), (y_axes, y_axes)), dy.sum(axis=y_axes))

    def linear(self, problem, direction, x, weight, bias, dy):
        if direction == "forward":
            return lambda: x @ weight.T + bias
        return lambda: (dy @ weight, dy.T @ x, dy.sum(axis=0))

    def activation(self, problem, direction, x, dy):
        return elementwise(self.cupy, problem, direction, x, dy)


PRECISIONS = ("fast", "strict", "tf32")
DEVICE_PEERS = (CuDNN, CuDNNTf32, CuDNNLast, CuDNNLastTf32, CuPy)
OURS = tuple("fastconv_cuda" if p == "fast" else f"fastconv_cuda:{p}" for p in PRECISIONS)
