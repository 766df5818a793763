"""Stand-ins for arrays of other libraries on a device: what `fastconv` uses of them, around memory that
`tests/dummy_driver.py` gives. Their attributes cost Python calls, as the libraries' own do.
"""

import types

import numpy as np

from fastconv._arguments import contiguous_strides


LAYOUTS = {}  # (shape, dtype) -> what an array of a library in C has at once


def layout(shape, dtype):
    key = tuple(shape), dtype
    if key not in LAYOUTS:
        of = np.dtype(dtype)
        size = int(np.prod(key[0]))
        strides = contiguous_strides(key[0], of.itemsize)
        LAYOUTS[key] = key[0], of, len(shape), size, strides, size * of.itemsize
    return LAYOUTS[key]


class Memory:
    """Bytes from a driver, given back with the object."""

    def __init__(self, driver, shape, dtype):
        self.shape, self.dtype, self.ndim, self.size, self.strides, self.nbytes = layout(shape, dtype)
        self.driver, self.pointer = driver, driver.allocate(self.nbytes or 1, 1)

    def __del__(self):
        self.driver.free(self.pointer, 1)


class Described(Memory):
    """An array of a library that has the CUDA array interface alone."""

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False), "version": 3,
            "strides": None, "stream": None,
        }  # fmt: skip


NAMES = ("float16", "float32", "float64", "int64", "uint8", "bool")
TORCH = {np.dtype(name): f"torch.{name}" for name in NAMES}


class Tensor(Memory):
    """torch.Tensor on "cuda"."""

    __module__ = "torch"
    requires_grad, is_cuda = False, True
    device = types.SimpleNamespace(index=0)

    def __init__(self, driver, shape, dtype):
        super().__init__(driver, shape, dtype)
        self.numpy_dtype, self.dtype = self.dtype, TORCH[self.dtype]

    def data_ptr(self):
        return self.pointer

    def stride(self):
        return tuple([step // self.numpy_dtype.itemsize for step in self.strides])

    def element_size(self):
        return self.numpy_dtype.itemsize

    def numel(self):
        return self.size


def torch(driver, stream=7):
    """A module that makes such tensors; its current stream has this handle."""
    library = types.ModuleType("torch")
    library.empty = lambda shape, dtype, device: Tensor(driver, shape, dtype)
    library.device = lambda kind, index: (kind, index)
    for name in NAMES:
        setattr(library, name, name)
    current = types.SimpleNamespace(cuda_stream=stream)
    library.cuda = types.SimpleNamespace(current_stream=lambda device: current)
    return library


class Cupy(Memory):
    """cupy.ndarray."""

    __module__ = "cupy"
    device = types.SimpleNamespace(id=0)

    def __init__(self, driver, shape, dtype):
        super().__init__(driver, shape, dtype)
        self.data = types.SimpleNamespace(ptr=self.pointer)

    __cuda_array_interface__ = Described.__cuda_array_interface__


def cupy(driver, stream=9):
    """A module that makes such arrays; its current stream has this handle."""
    library = types.ModuleType("cupy")
    library.empty = lambda shape, dtype: Cupy(driver, shape, dtype)
    current = types.SimpleNamespace(ptr=stream)

    class Device:
        def __init__(self, ordinal):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            return False

    library.cuda = types.SimpleNamespace(Device=Device, get_current_stream=lambda: current)
    return library
