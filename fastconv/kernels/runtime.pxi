# What this module was built for, what the processor can do, and the OpenMP runtime.

cdef extern from *:
    """
    #if defined(_OPENMP)
    #include <omp.h>
    #define FC_OPENMP _OPENMP
    static int fc_pause_threads(void)
    {
    /* OpenMP 5.0; GCC has it since 9 but claims no more than 4.5. */
    #if _OPENMP >= 201811 || (defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9)
        return omp_pause_resource_all(omp_pause_soft);
    #else
        return 0;
    #endif
    }
    #else
    #define FC_OPENMP 0
    static int fc_pause_threads(void) { return 0; }
    #endif

    #if defined(__x86_64__)
    static int fc_cpu_avx2(void) { __builtin_cpu_init(); return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); }
    static int fc_cpu_avx512(void)
    {
        __builtin_cpu_init();
        return fc_cpu_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
    }
    #else
    static int fc_cpu_avx2(void) { return 0; }
    static int fc_cpu_avx512(void) { return 0; }
    #endif
    #ifndef __VERSION__
    #define __VERSION__ "unknown"
    #endif
    """
    const char *FC_ISA_NAME
    const char *FC_COMPILER "__VERSION__"
    int FC_OPENMP
    int fc_pause_threads() nogil
    int fc_cpu_avx2()
    int fc_cpu_avx512()


def build_info():
    """Level, vector bytes, OpenMP version date (0: built without), compiler and register tiles of this module."""
    return {
        "isa": FC_ISA_NAME.decode(),
        "vector_bytes": VBYTES,
        "openmp": FC_OPENMP,
        "compiler": FC_COMPILER.decode(),
        "tile_float32": (MR_f32, NV_f32 * VBYTES // 4),
        "tile_float64": (MR_f64, NV_f64 * VBYTES // 8),
    }


def cpu_levels():
    """The levels that this processor and operating system can run, slowest first."""
    return ("baseline",) + (("avx2",) if fc_cpu_avx2() else ()) + (("avx512",) if fc_cpu_avx512() else ())


def pause_threads():
    """Hand the OpenMP runtime's idle threads back, so that a fork leaves nothing behind that the child would wait for."""
    with nogil:
        fc_pause_threads()
