"""The device as the tests see it: `fastconv.cuda` behind a namespace that takes and returns NumPy arrays.

On hardware, or in numba's simulator (NUMBA_ENABLE_CUDASIM=1 before numba is imported). Arrays keep their
layout on the way there: strides, also negative ones, and the bytes between the elements.
"""

import numpy as np

import fastconv as fc
from fastconv import testing


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

    def __getattr__(self, name):
        function = getattr(self._namespace, name)
        if name in ("algorithms", "plan"):
            return function

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
                out[...] = fc.cuda.to_host(result)
                return out
            if name == "batch_norm" and kwargs.get("training"):
                for array in args[3:5]:
                    if array is not None:
                        device, host = next(pair for pair in there.values() if pair[0] is array)
                        host[...] = fc.cuda.to_host(device)
            if isinstance(result, tuple):
                return tuple(None if r is None else fc.cuda.to_host(r) for r in result)
            return fc.cuda.to_host(result)

        return there_and_back
