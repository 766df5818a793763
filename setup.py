"""Build of the compiled kernels: one Cython source, one extension module per instruction-set level.

Metadata lives in pyproject.toml. Switches, all read from the environment:
FASTCONV_BUILD_ISA    comma-separated levels to build (default: every level of this architecture)
FASTCONV_NO_OPENMP    build without threads
FASTCONV_DEBUG        bounds checks in Cython code, undefined-behaviour traps in C
"""

import copy
import glob
import os
import platform
import tempfile
from distutils.errors import CompileError, LinkError

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = bool(os.environ.get("FASTCONV_DEBUG"))

AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"]
AVX512 = AVX2 + ["-mavx512f", "-mavx512cd", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
LEVELS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    LEVELS.update(avx2=AVX2, avx512=AVX512)

wanted = os.environ.get("FASTCONV_BUILD_ISA")
if wanted:
    unknown = set(wanted.split(",")) - set(LEVELS)
    if unknown:
        raise SystemExit(f"FASTCONV_BUILD_ISA: {sorted(unknown)} unknown, this architecture has {list(LEVELS)}")
    # The baseline module answers which levels the processor can run, so it is always built.
    LEVELS = {name: flags for name, flags in LEVELS.items() if name in wanted.split(",") or name == "baseline"}


class BuildKernels(build_ext):
    """Compile the same C file once per level, each into its own build folder."""

    def build_extensions(self):
        self.openmp = not os.environ.get("FASTCONV_NO_OPENMP") and self._compiles("-fopenmp")
        super().build_extensions()

    def build_extension(self, ext):
        command = copy.copy(self)  # levels are built in parallel; each needs its own folder for the same .o name
        command.build_temp = os.path.join(self.build_temp, ext.name)
        if self.openmp:
            ext.extra_compile_args = ext.extra_compile_args + ["-fopenmp"]
            ext.extra_link_args = ext.extra_link_args + ["-fopenmp"]
        build_ext.build_extension(command, ext)

    def _compiles(self, flag):
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as f:
                f.write("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([source], output_dir=folder, extra_postargs=[flag])
                self.compiler.link_executable(objects, os.path.join(folder, "probe"), extra_postargs=[flag])
            except (CompileError, LinkError):
                return False
        return True


def kernel_module(level, flags):
    # -O2: the hot loops are written with vector types, so -O3 buys nothing but code size (measured in CPU notes).
    # -ffp-contract=fast lets a*b+c become one FMA; -fno-math-errno and -fno-trapping-math allow vector selects.
    # Never -ffast-math: it would break NaN handling and flush denormals process-wide.
    args = ["-O2", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing"]
    args += ["-Wno-unused-function", "-Wno-psabi", *flags]
    if DEBUG:
        args += ["-g", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    else:
        args.append("-g0")  # Python's own flags ask for -g: four fifths of a wheel would be debugging information
    name = f"_kernels_{level}"
    return Extension(
        f"fastconv.{name}",
        ["fastconv/_kernels.pyx"],
        include_dirs=["fastconv", numpy.get_include()],
        define_macros=[
            ("PyInit__kernels", f"PyInit_{name}"),
            ("FC_ISA_NAME", f'"{level}"'),
            ("NPY_NO_DEPRECATED_API", "NPY_1_22_API_VERSION"),
            ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION"),  # memory handlers
            *([("FC_DEBUG", "1")] if DEBUG else []),
        ],
        extra_compile_args=args,
        depends=glob.glob("fastconv/native/*.h") + glob.glob("fastconv/kernels/*.pxi"),
    )


def extensions():
    modules = [kernel_module(level, flags) for level, flags in LEVELS.items()]
    # Translate once: a single _kernels.c serves every level.
    (translated,) = cythonize(
        [Extension("fastconv._kernels", ["fastconv/_kernels.pyx"])],
        include_path=["fastconv"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": True,
        },
    )
    for module in modules:
        module.sources = list(translated.sources)
    return modules


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildKernels},
    options={"build_ext": {"parallel": os.cpu_count()}},
)
