# Arrays as the kernels see them. A View is made once per call, with the GIL held.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_view:
        const char *data
        ix size
        int ndim
        int swap
        int direct
        ix shape[64]
        ix stride[64]
    void fc_view_normalise(fc_view *v, ix itemsize)
    const float *view_fetch_f32(const fc_view *v, ix start, ix count, float *buffer)
    const double *view_fetch_f64(const fc_view *v, ix start, ix count, double *buffer)
    void copy_row_f32(float *dst, const char *src, ix count, ix stride, int swap)
    void copy_row_f64(double *dst, const char *src, ix count, ix stride, int swap)
    void *fc_scratch_take(size_t size)
    void fc_scratch_give(void *block)
    const int MR_f32, MR_f64, NV_f32, NV_f64, VBYTES


cdef int make_view(fc_view *v, cnp.ndarray a) except -1:
    """Describe any strided array of native or swapped byte order."""
    cdef int i
    v.data = <const char *> cnp.PyArray_DATA(a)
    v.ndim = cnp.PyArray_NDIM(a)
    v.swap = cnp.PyArray_ISBYTESWAPPED(a)
    for i in range(v.ndim):
        v.shape[i] = cnp.PyArray_DIM(a, i)
        v.stride[i] = cnp.PyArray_STRIDE(a, i)
    fc_view_normalise(v, cnp.PyArray_ITEMSIZE(a))
    return 0


cdef inline const real *view_fetch(const fc_view *v, ix start, ix count, real *buffer) noexcept nogil:
    """Elements [start, start + count) in C order: a direct pointer where they lie together, else a copy in `buffer`."""
    if real is float:
        return view_fetch_f32(v, start, count, buffer)
    else:
        return view_fetch_f64(v, start, count, buffer)


cdef int check_result(cnp.ndarray a) except -1:
    """Results are ours: contiguous, native, aligned, writable. Anything else is a caller's bug, not a user's."""
    if not (cnp.PyArray_ISCARRAY(a)):
        raise ValueError("result array must be C-contiguous, aligned, native and writable")
    return 0


cdef void *take_scratch(size_t size) except NULL nogil:
    cdef void *block = fc_scratch_take(size)
    if block == NULL:
        with gil:
            raise MemoryError(f"{size} bytes of scratch memory")
    return block
