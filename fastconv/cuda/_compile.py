"""Kernel text -> numba -> LTO-IR -> cubin, with no GPU needed. The other of the two modules that import
numba.

Two things that numba-cuda does not do are done here: a tensor map parameter becomes 128 bytes passed by
value in the constant bank, where the TMA unit may read it (an edit of the kernel's LLVM IR), and code is
linked as a whole program always, since without link-time optimisation ptxas serialises wgmma and ignores
setmaxnreg.
"""

import importlib.metadata
import math
import re
import threading
import warnings
from types import SimpleNamespace

TOOLS = ("numba", "numba-cuda", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink", "cuda-toolkit")


_lock = threading.RLock()


def missing():
    """Why kernels cannot be compiled here, or None."""
    try:
        import llvmlite  # noqa: F401
        from numba.cuda import cudadrv  # noqa: F401
        from numba.cuda.extending import intrinsic  # noqa: F401
    except Exception as error:  # a half installed toolchain is as good as none
        return f"numba-cuda cannot be imported: {type(error).__name__}: {error}"
    return None


def versions():
    """What the machine code depends on besides the text: one string for the cache key."""
    found = []
    for tool in TOOLS:
        try:
            found.append(f"{tool} {importlib.metadata.version(tool)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{tool} -")
    return ", ".join(found)


def target(arch):
    """(major, minor, suffix) of compute capability `arch` / 10; sm_90 has its tensor cores only as sm_90a."""
    return (arch // 10, arch % 10, "a" if arch >= 90 else "")


def function(kernel):
    """The Python function of a kernel's text, with its operations bound to intrinsics."""
    from numba import cuda, float32, uint16, uint32, uint64

    from . import _ptx

    scope = dict(
        _ptx.TABLE, cuda=cuda, math=math, float32=float32, uint16=uint16, uint32=uint32, uint64=uint64
    )
    for alias, family, *arguments in kernel.operations:
        scope[alias] = _ptx.operation(family, *arguments)
    exec(compile(kernel.source, f"<{kernel.name}>", "exec"), scope)
    return scope[kernel.name]


def cubin(kernel, arch=None):
    """(machine code, entry name) of a kernel for compute capability `arch` / 10.

    kernel: a generated `gen.kernel.Kernel`, for which arch may be None, the least it can run on, or a
    `simple.launch.Typed`.
    """
    from numba import float32, uint32, uint64

    cc = target(arch or kernel.arch)
    if not hasattr(kernel, "parameters"):
        return _simple(kernel, cc)
    arguments = tuple({"M": uint64, "P": uint64, "I": uint32, "F": float32}[c] for c in kernel.parameters)
    maps = [i for i, c in enumerate(kernel.parameters) if c == "M"]
    return _machine_code(function(kernel), arguments, cc, (kernel.threads, kernel.blocks), maps)


def _simple(kernel, cc):
    """Of a simple kernel. The functions that it calls are compiled for numba's current device: for `cc` here,
    whatever that device is, or if there is none.
    """
    import numba.cuda.dispatcher as dispatcher

    of_now = dispatcher.get_current_device
    with _lock:
        dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=cc[:2])
        try:
            return _machine_code(kernel.function, kernel.types, cc, None, [])
        finally:
            dispatcher.get_current_device = of_now


def _machine_code(function, arguments, cc, bounds, maps):
    """bounds: (threads a block, blocks an SM) or None; maps: numbers of parameters that are tensor maps."""
    from numba import types
    from numba.cuda import compiler
    from numba.cuda.core.compiler_lock import global_compiler_lock
    from numba.cuda.cudadrv import driver, nvrtc, nvvm

    with global_compiler_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba warns that small grids are slow: nothing is launched here
        compiled = compiler.compile_cuda(
            function, types.void, arguments, debug=False, lineinfo=False, fastmath=False,
            nvvm_options={"fastmath": False, "opt": 3}, cc=cc, max_registers=None, lto=True,
        )  # fmt: skip
        library, entry = compiled.library, compiled.fndesc.llvm_func_name
        body = library.get_function(entry)
        library._entry_name = entry
        compiler.kernel_fixup(body, False)
        if bounds is not None:
            nvvm.set_launch_bounds(body, bounds)
        if not maps:
            code = bytes(library.get_cubin(cc=cc).code)
        else:
            text = by_value(library.get_llvm_str(), entry, maps)
            ltoir = nvvm.compile_ir([text], arch=nvrtc.get_arch_option(*cc), opt=3, **{"gen-lto": None})
            linker = driver._Linker(cc=cc, lto=True)
            linker.add_ltoir(ltoir)
            code = bytes(linker.complete().code)
    names = re.findall(rb"\.text\.([\w$]+)", code)
    return code, max(names, key=len).decode()


def by_value(text, entry, maps):
    """LLVM IR in which the 64-bit parameters `maps` of function `entry` are 128 bytes passed by value.

    The pointer to the bytes takes the place of the old value. Without the grid_constant annotation the
    compiler would copy them to the stack, where the TMA unit cannot read them.
    """
    found = re.search(rf'define void @"?{re.escape(entry)}"?\(([^)]*)\)', text)
    if found is None:
        raise RuntimeError(f"{entry}: its definition was not found in the LLVM IR")
    parameters = [p.strip() for p in found[1].split(",")]
    casts = []
    for i in maps:
        kind, old = parameters[i].split()[0], parameters[i].split()[-1]
        if kind != "i64":
            raise RuntimeError(f"{entry}: parameter {i} is {kind}, need i64")
        new = f'{old[:-1]}.bytes"' if old.endswith('"') else f"{old}.bytes"
        parameters[i] = f"[128 x i8]* byval align 64 {new}"
        casts.append(f"  {old} = ptrtoint [128 x i8]* {new} to i64\n")
    header = found[0].replace(found[1], ", ".join(parameters))
    rest = text[found.end() :]
    start = rest.index("{") + 1
    label = re.match(r"\s*\S+:\s*\n", rest[start:])
    start += label.end() if label else 0
    text = text[: found.start()] + header + rest[:start] + "".join(casts) + rest[start:]
    # the annotations name the function by its type
    old = re.search(rf'void \(([^)]*)\)\* @"?{re.escape(entry)}"?', text)
    kinds = [k.strip() for k in old[1].split(",")]
    for i in maps:
        kinds[i] = "[128 x i8]*"
    text = text.replace(f"void ({old[1]})*", f"void ({', '.join(kinds)})*")
    whole = re.search(rf'void \([^)]*\)\* @"?{re.escape(entry)}"?', text)[0]
    annotations = re.search(r"!nvvm\.annotations = !\{([^}]*)\}", text)
    numbers = ", ".join(f"i32 {i + 1}" for i in maps)
    return (
        text.replace(annotations[0], f"!nvvm.annotations = !{{{annotations[1]}, !9001}}")
        + f'\n!9001 = !{{{whole}, !"grid_constant", !9002}}\n!9002 = !{{{numbers}}}\n'
    )
