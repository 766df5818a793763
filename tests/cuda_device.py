"""The device as the tests see it: `fastconv.cuda` behind a namespace that takes and returns NumPy arrays.

On hardware, or in numba's simulator (NUMBA_ENABLE_CUDASIM=1 before numba is imported). Arrays keep their
layout on the way there: strides, also negative ones, and the bytes between the elements.
"""

import numpy as np
from emulator.operations import from_bits, to_bits

import fastconv as fc
from fastconv import _arithmetic, testing
from fastconv.testing import bounds
from fastconv.testing.operations import widened


def strided(array):
    """A device array of the same values and strides, in memory of its own, NaN between the elements."""
    if array.size == 0 or array.ndim == 0:
        return fc.cuda.to_device(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride % array.itemsize for stride in array.strides):
        array = array.copy()
    reach = [(size - 1) * stride // array.itemsize for size, stride in zip(array.shape, array.strides)]
    offset = -sum(r for r in reach if r < 0)
    host = testing.poisoned(offset + sum(r for r in reach if r > 0) + 1, array.dtype)
    np.lib.stride_tricks.as_strided(host[offset:], array.shape, array.strides)[...] = array
    return fc.cuda.to_device(host).view(array.shape, array.strides, offset * array.itemsize)


class Device:
    """`fc.cuda` with copies to the device before every call, and from it afterwards.

    Running statistics are copied back, since they are written to.
    """

    def __init__(self, namespace=None):
        self._namespace = fc.cuda if namespace is None else namespace

    def sent(self, array):
        return strided(array)

    def fetched(self, array):
        return fc.cuda.to_host(array)

    def __getattr__(self, name):
        function = getattr(self._namespace, name)
        if name in ("algorithms", "plan"):
            return function
        strided, fetched = self.sent, self.fetched

        def there_and_back(*args, out=None, **kwargs):
            there = {}

            def send(value):
                if isinstance(value, (np.ndarray, np.generic)):
                    return there.setdefault(id(value), (strided(np.asarray(value)), value))[0]
                return value

            args, kwargs = [send(a) for a in args], {k: send(v) for k, v in kwargs.items()}
            if out is not None:
                kwargs["out"] = send(out)
            result = function(*args, **kwargs)
            if out is not None:
                assert result is kwargs["out"]
                out[...] = fetched(result)
                return out
            if name == "batch_norm" and kwargs.get("training"):
                for array in args[3:5]:
                    if array is not None:
                        device, host = next(pair for pair in there.values() if pair[0] is array)
                        host[...] = fetched(device)
            if isinstance(result, tuple):
                return tuple(None if r is None else fetched(r) for r in result)
            return fetched(result)

        return there_and_back


class Short(Device):
    """The same in 16 bits: float32 arrays are converted on the device, results of 16 bits come as float32."""

    def __init__(self, dtype):
        super().__init__()
        self._dtype = dtype

    def sent(self, array):
        there = strided(array)
        return fc.cuda.to_device(there, self._dtype) if array.dtype == np.float32 else there

    def fetched(self, array):
        return _arithmetic.to_host(array)


def check_short(case, dtype, kind):
    """Run a case in 16 bits; what it may be off is float32's bound and one rounding.

    dtype: "float16" or "bfloat16". Raises AssertionError.
    """
    word = {"float16": "f16", "bfloat16": "bf16"}[dtype]
    inputs = {
        name: from_bits(to_bits(a, word), word).reshape(a.shape)
        if a is not None and a.dtype == np.float32
        else a
        for name, a in case.inputs(np.dtype(np.float32), kind).items()
    }
    wide = widened(inputs)
    expected = case.run(fc.reference, wide)
    limits = case.bounds(wide, expected, np.dtype(np.float32), kind)
    results = case.run(Short(dtype), inputs, "auto")
    for name, error in limits.items():
        found = np.asarray(results[name])
        limit = bounds.rounded(expected[name], error, dtype) if found.dtype.kind == "f" else error
        testing.compare(found, expected[name], limit, f"{case.name()} {dtype} {kind}: {name}")
