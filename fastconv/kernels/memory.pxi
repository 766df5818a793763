# Memory of results and scratch (native/arena.h).
#
# Large results are ordinary arrays that own their data, but the data are blocks of the result arena: NumPy asks a handler for them and tells it when the array
# is gone (native/results.h), so that `resize`, `base`, `flags`, `nbytes`, `sys.getsizeof` and tracemalloc see nothing unusual.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_arena:
        char poisoned
        size_t kept, overruns
    fc_arena fc_scratch
    fc_arena fc_results
    void *fc_arena_take(fc_arena *a, size_t bytes)
    void fc_arena_give(fc_arena *a, void *block)
    void fc_arena_shrink(fc_arena *a, size_t keep, int slots)
    size_t fc_arena_keep(fc_arena *a, size_t keep)
    void fc_arena_survive_fork()

cdef extern from "native/results.h":
    int fc_is_default_handler(object handler)
    object fc_results_capsule()
    object PyArray_Empty(int ndim, cnp.npy_intp *dims, cnp.dtype dtype, int fortran)

cdef object results_handler = fc_results_capsule()
cdef Py_ssize_t results_from = 1 << 62
fc_arena_survive_fork()


cdef object make_array(int ndim, cnp.npy_intp *dims, cnp.dtype dtype):
    cdef double size = cnp.PyDataType_ELSIZE(dtype)
    cdef int i
    for i in range(ndim):
        size *= dims[i]
    Py_INCREF(dtype)  # PyArray_Empty takes this reference
    if size < results_from:
        return PyArray_Empty(ndim, dims, dtype, 0)
    before = cnp.PyDataMem_SetHandler(results_handler)
    try:
        if not fc_is_default_handler(before):
            cnp.PyDataMem_SetHandler(before)
        return PyArray_Empty(ndim, dims, dtype, 0)
    finally:
        cnp.PyDataMem_SetHandler(before)


def empty(tuple shape, cnp.dtype dtype):
    """A fresh C-contiguous array, its values undefined, like np.empty; large ones in blocks that are reused, see keep_results.

    Raises MemoryError when the system refuses. Who has set a NumPy memory handler of their own gets arrays from that.
    """
    cdef cnp.npy_intp dims[64]
    cdef int ndim = 0
    if len(shape) > 64:
        raise ValueError("at most 64 axes")
    for length in shape:
        dims[ndim] = length
        ndim += 1
    return make_array(ndim, dims, dtype)


def like(cnp.ndarray array, tuple shape=None):
    """The same with the shape (unless given) and the dtype of another array, in native byte order."""
    cdef cnp.dtype dtype = cnp.PyArray_DescrFromType(cnp.PyArray_TYPE(array))
    if shape is None:
        return make_array(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), dtype)
    return empty(shape, dtype)


def keep_results(size_t keep, Py_ssize_t smallest):
    """Keep at most `keep` bytes of results that have died, for the results of `smallest` bytes or more to come. Returns what `keep` was; 0 switches reuse off."""
    global results_from
    results_from = smallest if keep else 1 << 62
    with nogil:
        keep = fc_arena_keep(&fc_results, keep)
    return keep


def idle_bytes():
    """Bytes that are kept for the next taker: (of scratch, of results)."""
    return fc_scratch.kept, fc_results.kept


def release_memory():
    """Free whatever is kept between calls."""
    with nogil:
        fc_arena_shrink(&fc_scratch, 0, 0)
        fc_arena_shrink(&fc_results, 0, 0)


def poison_memory(bint on):
    """For tests: from now on hand out scratch and large results full of NaN, with a zone behind them that must stay as it is; or as they come.

    Returns how many blocks have come back since the last call with something written into their zone.
    """
    overruns = fc_scratch.overruns + fc_results.overruns
    fc_scratch.overruns = fc_results.overruns = 0
    fc_scratch.poisoned = fc_results.poisoned = on
    return overruns
