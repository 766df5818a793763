"""Machine code on disk, so that a kernel is compiled once for all processes.

An entry is a file named by sha256(kernel, what makes its code, tools, arch) that holds a checksum, the entry
name and the cubin. It is written beside its place and renamed, so that readers see all of it or nothing,
however many processes write at once; one that is damaged is built again. The folder is FASTCONV_CUDA_CACHE,
else fastconv/cuda in XDG_CACHE_HOME or ~/.cache; where it cannot be written, or there is no home, the kernels
live in memory only.
"""

import contextlib
import hashlib
import os
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

MAGIC = b"fastconv cubin 1\n"

_memory, _lock = {}, threading.Lock()


def folder():
    """Where entries live; None where there is no such place."""
    given = os.environ.get("FASTCONV_CUDA_CACHE", "").strip()
    if given:
        return Path(given)
    try:
        home = os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache"
    except RuntimeError:  # no home directory can be told
        return None
    return Path(home) / "fastconv" / "cuda"


@lru_cache(1)
def toolchain():
    """Everything besides the kernel that decides the machine code.

    The modules that make it, and the tools' versions.
    """
    from . import _compile

    here = Path(__file__).parent
    parts = [(here / name).read_bytes() for name in ("_ptx.py", "_compile.py")]
    return hashlib.sha256(b"\0".join([*parts, _compile.versions().encode()])).hexdigest()


def key(kernel, arch, toolchain):
    """The name of an entry."""
    return hashlib.sha256(f"{kernel.digest} {arch} {toolchain}".encode()).hexdigest()


def read(path):
    """(cubin, entry name) of a file, or None if there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 32:
        return None
    checksum, body = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    name, newline, code = body.partition(b"\n")
    if hashlib.sha256(body).digest() != checksum or not newline:
        return None
    return code, name.decode()


def write(path, code, name):
    """Put an entry in place at once; a folder that cannot be written is no error."""
    body = name.encode() + b"\n" + code
    data = MAGIC + hashlib.sha256(body).digest() + body
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def cubin(kernel, arch, build=None, tools=None, anew=False):
    """(cubin, entry name) of a kernel for compute capability arch / 10: from memory, from disk, or built
    now, which `anew` asks for.

    kernel: anything with a `digest` that build(kernel, arch) -> (cubin, entry name) knows, by default
    `_compile.cubin`.
    """
    if build is None:
        from ._compile import cubin as build
    with _lock:
        name = key(kernel, arch, tools or toolchain())
        found = None if anew else _memory.get(name)
        if found is None:
            place = folder()
            path = None if place is None else place / f"{name}.cubin"
            found = None if anew or path is None else read(path)
            if found is None:
                found = build(kernel, arch)
                if path is not None:
                    write(path, *found)
            _memory[name] = found
        return found
