"""A CUDA driver that is none, in C, so that what a call costs the host can be measured, and what it asks of
the driver can be read, without a GPU.

`install()` makes `fastconv.cuda` use it: kernels are not compiled, launches compute nothing. In a process of
its own, since it stays.
"""

import ctypes
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = (
    "init device context attribute load encode launch alloc free upload download wait event order pointer"
).split()
SOURCE = Path(__file__).with_name("dummy_driver.c")


def missing():
    """Why there can be no such driver here, or None."""
    if sys.platform == "win32":
        return "the dummy driver is built for POSIX systems"
    return None if shutil.which("cc") else "there is no C compiler for the dummy driver"


class Dummy:
    """The library, and what it was asked."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "libdummy.so"
            subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-w", "-o", path, SOURCE], check=True)
            self.library = ctypes.CDLL(str(path))
        self._count = ctypes.c_int.in_dll(self.library, "dummy_count")
        self._log = (ctypes.c_int * 4096).in_dll(self.library, "dummy_log")
        self._streams = (ctypes.c_void_p * 4096).in_dll(self.library, "dummy_streams")
        self._alive = ctypes.c_int.in_dll(self.library, "dummy_alive")

    @property
    def alive(self):
        """Allocations that were not given back."""
        return self._alive.value

    def forget(self):
        self._count.value = 0

    @property
    def calls(self):
        """Names of the calls since `forget`."""
        return [NAMES[i] for i in self._log[: self._count.value]]

    @property
    def streams(self):
        """The streams of the launches since `forget`."""
        return {s or 0 for s, name in zip(self._streams[: self._count.value], self.calls) if name == "launch"}


def build(kernel, arch):
    """Stands for the compiler."""
    return b"code", f"_Z{kernel.name}"


def install():
    """The `Dummy` that `fastconv.cuda` drives from now on."""
    import fastconv as fc
    from fastconv.cuda import _cache, _driver, _launch

    dummy = Dummy()
    driver = _driver.Driver(dummy.library)
    _driver.driver.cache_clear()
    real = _driver.driver
    for module in list(sys.modules.values()):
        if getattr(module, "driver", None) is real and module is not _driver:
            module.driver = lambda: driver
    _driver.driver = lambda: driver
    runners = {}
    make = lambda device: runners.setdefault(  # noqa: E731
        device, _launch.Runner(driver, device, build=build, toolchain="dummy")
    )
    from fastconv.cuda import fast

    _launch.runner = fast.runner = make
    _cache.folder = lambda: None
    fc.cuda._available = True
    return dummy
