"""The CUDA driver through ctypes: contexts, memory in stream order, machine code, tensor maps.

Works in the context that is current on the calling thread, and makes the device's primary one current where
there is none. Memory comes from the device's pool in the order of a stream (cuMemAllocAsync), so that nothing
waits for anything and a CUDA graph can record it.
"""

import ctypes
import functools
import threading

from .._errors import DeviceError
from .maps import Tile

SHARED_BY_DEFAULT = 48 * 1024  # a kernel that wants more must say so to the driver
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
RELEASE_THRESHOLD = 4  # CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
INVALID_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT: none is current on this thread
OUT_OF_MEMORY = 2
ATTRIBUTES = {"multiprocessors": 16, "major": 75, "minor": 76, "shared": 97}
DATA_TYPE = {
    "f16": 6,
    "f32": 7,
    "bf16": 9,
}  # CUtensorMapDataType; float32 is read as stored, tf32 is the tensor core's view
SWIZZLE_128B, PROMOTE_256B = 3, 3

_ADDRESS, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
# Fixed argument types: ctypes then converts without guessing, and addresses are not cut to 32 bits.
PROTOTYPES = {
    "cuLaunchKernelEx": (_ADDRESS,) * 4,
    "cuMemAllocAsync": (_ADDRESS, _SIZE, _ADDRESS),
    "cuMemFreeAsync": (_ADDRESS, _ADDRESS),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _ADDRESS, _SIZE, _ADDRESS),
    "cuMemcpyDtoHAsync_v2": (_ADDRESS, _ADDRESS, _SIZE, _ADDRESS),
    "cuStreamSynchronize": (_ADDRESS,),
    "cuStreamIsCapturing": (_ADDRESS, _ADDRESS),
    "cuStreamWaitEvent": (_ADDRESS, _ADDRESS, ctypes.c_uint),
    "cuEventRecord": (_ADDRESS, _ADDRESS),
    "cuEventDestroy_v2": (_ADDRESS,),
    "cuPointerGetAttribute": (_ADDRESS, _INT, _ADDRESS),
    "cuCtxGetDevice": (_ADDRESS,),
    "cuCtxSetCurrent": (_ADDRESS,),
    "cuMemPoolSetAttribute": (_ADDRESS, _INT, _ADDRESS),
}


class Driver:
    """The functions of libcuda that are needed. `library` replaces it in tests."""

    def __init__(self, library=None):
        if library is None:
            try:
                library = ctypes.CDLL("libcuda.so.1")
            except OSError as error:
                raise DeviceError(f"fastconv.cuda: the CUDA driver cannot be loaded ({error})") from None
        self.library = library
        self.check("cuInit", 0)
        for name, types in PROTOTYPES.items():
            function = getattr(library, name, None)
            if function is None:
                raise DeviceError(f"fastconv.cuda: the CUDA driver has no {name} (need CUDA 12 or later)")
            function.argtypes = types
            setattr(self, name, function)
        count = ctypes.c_int()
        self.check("cuDeviceGetCount", ctypes.byref(count))
        self.devices = count.value
        self._primary, self._lock, self._threads = {}, threading.RLock(), _Thread()

    def check(self, name, *arguments):
        """Call a driver function; DeviceError when it fails."""
        status = getattr(self.library, name)(*arguments)
        if status:
            raise failure(name, status)

    def attributes(self, device=0):
        """Of a device: multiprocessors, major, minor, shared (bytes a block may ask for)."""
        handle, value = ctypes.c_int(), ctypes.c_int()
        self.check("cuDeviceGet", ctypes.byref(handle), device)
        found = {}
        for name, number in ATTRIBUTES.items():
            self.check("cuDeviceGetAttribute", ctypes.byref(value), number, handle)
            found[name] = value.value
        return found

    # -- contexts --------------------------------------------------------------------------------------------

    def primary(self, device):
        """The primary context of a device, kept for the life of the process."""
        with self._lock:
            found = self._primary.get(device)
            if found is None:
                handle, context, pool = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
                self.check("cuDeviceGet", ctypes.byref(handle), device)
                self.check("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
                # memory that was freed stays in the pool: by default every synchronisation gives it back
                self.check("cuDeviceGetDefaultMemPool", ctypes.byref(pool), handle)
                everything = ctypes.c_uint64(2**64 - 1)
                self.check("cuMemPoolSetAttribute", pool, RELEASE_THRESHOLD, ctypes.byref(everything))
                found = self._primary[device] = context.value
            return found

    def current_device(self):
        """The ordinal of the current device: the first one, where this thread has no context yet."""
        if self._threads.ready:
            return 0  # the only one
        device = ctypes.c_int()
        status = self.cuCtxGetDevice(ctypes.byref(device))
        if status == INVALID_CONTEXT:
            self.check("cuCtxSetCurrent", self.primary(0))
            device.value = 0
        elif status:
            raise failure("cuCtxGetDevice", status)
        else:
            self.primary(device.value)  # its pool keeps what was freed, whoever made the context
        # with one device there is nothing to be asked again: a context, once current, is of that one
        self._threads.ready = self.devices == 1
        return device.value

    def again(self, status):
        """Whether a call failed for want of a context, which this thread has from now on."""
        if status != INVALID_CONTEXT:
            return False
        self._threads.ready = False
        self.current_device()
        return True

    @property
    def ready(self):
        """Whether this thread has a context of the only device there is."""
        return self._threads.ready

    def on_device(self, device):
        """A context manager: the driver works on a device inside."""
        if self._threads.ready or device is None or self.current_device() == device:
            return HERE
        return _Elsewhere(self, device)

    def device_of(self, pointer):
        """The ordinal of the device that an address belongs to; DeviceError if it belongs to none."""
        ordinal = ctypes.c_int()
        status = self.cuPointerGetAttribute(ctypes.byref(ordinal), DEVICE_ORDINAL, pointer)
        if status and self.again(status):
            status = self.cuPointerGetAttribute(ctypes.byref(ordinal), DEVICE_ORDINAL, pointer)
        if status:
            raise DeviceError(
                f"an array names the address {pointer:#x}, which is on no CUDA device (CUDA error {status})"
            )
        return ordinal.value

    # -- memory and streams ----------------------------------------------------------------------------------

    def allocate(self, nbytes, stream):
        """The address of so many bytes (not 0), in the order of a stream; a multiple of 256."""
        address = ctypes.c_uint64()
        status = self.cuMemAllocAsync(ctypes.byref(address), nbytes, stream)
        if status and self.again(status):
            status = self.cuMemAllocAsync(ctypes.byref(address), nbytes, stream)
        if status == OUT_OF_MEMORY:
            raise MemoryError(f"the device has no {nbytes} bytes left")
        if status:
            raise failure("cuMemAllocAsync", status)
        return address.value

    def free(self, address, stream):
        """Give memory back once the work that is queued on the stream now is done.

        Whatever fails is no error: the stream may be gone, or the context at the end of the process.
        """
        status = self.cuMemFreeAsync(address, stream)
        if status and self.again(status):
            status = self.cuMemFreeAsync(address, stream)
        if status:
            self.cuMemFree_v2(address)

    def upload(self, address, host, nbytes, stream):
        """Copy from the host (an address), which is free again on return."""
        self.check("cuMemcpyHtoDAsync_v2", address, host, nbytes, stream)
        self.check("cuStreamSynchronize", stream)

    def download(self, host, address, nbytes, stream):
        """Copy to the host (an address), after all that is queued on the stream; waits for it."""
        self.check("cuMemcpyDtoHAsync_v2", host, address, nbytes, stream)
        self.check("cuStreamSynchronize", stream)

    def order(self, first, then):
        """What is queued on stream `then` from now on waits for what is queued on `first`; the host does not.

        Nothing happens while a CUDA graph records `then`: what others did is done before it is replayed.
        """
        capturing = ctypes.c_int()
        self.check("cuStreamIsCapturing", then, ctypes.byref(capturing))
        if capturing.value:
            return
        event = ctypes.c_void_p()
        self.check("cuEventCreate", ctypes.byref(event), NO_TIMING)
        try:
            self.check("cuEventRecord", event, first)
            self.check("cuStreamWaitEvent", then, event, 0)
        finally:
            self.cuEventDestroy_v2(event)

    def synchronize(self):
        """Wait for all work of the current device."""
        self.current_device()
        self.check("cuCtxSynchronize")

    # -- machine code and tensor maps ------------------------------------------------------------------------

    def load(self, code, name, shared, device=0):
        """A launchable handle of the kernel `name` in a cubin, allowed `shared` bytes of dynamic shared
        memory.
        """
        module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        self.check(
            "cuLibraryLoadData", ctypes.byref(module), ctypes.c_char_p(code), None, None, 0, None, None, 0
        )
        self.check("cuLibraryGetKernel", ctypes.byref(kernel), module, ctypes.c_char_p(name.encode()))
        if shared > SHARED_BY_DEFAULT:
            self.check("cuKernelSetAttribute", MAX_DYNAMIC_SHARED, shared, kernel, device)
        return kernel.value

    def encode(self, tensor, target):
        """Write the 128 bytes of a tensor map (`maps.Tile`, `maps.Im2col`) with a real address to `target`.
        """
        reason = tensor.refused()
        if reason is not None:
            raise DeviceError(f"tensor map: {reason}")
        address, kind = ctypes.c_void_p(tensor.address), DATA_TYPE[tensor.dtype]
        tail = (0, SWIZZLE_128B, PROMOTE_256B, 0)  # no interleave; outside of the array is zero
        if isinstance(tensor, Tile):
            sizes, strides = (tensor.columns, tensor.rows), (tensor.stride,)
            rank, box, step = 2, array(ctypes.c_uint32, tensor.box), array(ctypes.c_uint32, (1, 1))
            self.check(
                "cuTensorMapEncodeTiled", target, kind, rank, address, array(ctypes.c_uint64, sizes),
                array(ctypes.c_uint64, strides), box, step, *tail,
            )  # fmt: skip
        else:
            rank = len(tensor.sizes)
            step = array(ctypes.c_uint32, (1, *tensor.traversal, 1))
            self.check(
                "cuTensorMapEncodeIm2col", target, kind, rank, address, array(ctypes.c_uint64, tensor.sizes),
                array(ctypes.c_uint64, tensor.strides), array(ctypes.c_int, tensor.lower),
                array(ctypes.c_int, tensor.upper),
                tensor.channels, tensor.pixels, step, *tail,
            )  # fmt: skip


class _Thread(threading.local):
    """What is known of the calling thread: whether the only device there is has a context current on it."""

    ready = False


class _Here:
    """A context manager that does nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return False


HERE = _Here()


class _Elsewhere:
    """The primary context of another device, inside."""

    def __init__(self, driver, device):
        self.driver, self.device, self.before = driver, device, ctypes.c_void_p()

    def __enter__(self):
        self.driver.check("cuCtxGetCurrent", ctypes.byref(self.before))
        self.driver.check("cuCtxSetCurrent", self.driver.primary(self.device))

    def __exit__(self, *exception):
        self.driver.check("cuCtxSetCurrent", self.before)
        return False


@functools.lru_cache(maxsize=1)
def driver():
    """The `Driver` of this process. Raises DeviceError where there is none."""
    return Driver()


def array(kind, values):
    return (kind * len(values))(*values)


def failure(name, status):
    return DeviceError(f"{name} failed with CUDA error {status}")
