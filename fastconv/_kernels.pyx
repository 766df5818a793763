# distutils: language = c
"""Compiled entry points and drivers: threads, blocking, scratch, edges.

This one source is compiled once per instruction-set level (setup.py); the innermost loops are C with vector types in native/*.h, one header a family. Each
family of drivers has its own file under kernels/. Arguments arrive already parsed (fastconv._problem); what is checked again here is only what keeps memory
safe if another thread changed an array in between.
"""

cimport cython
cimport numpy as cnp
from cpython.ref cimport Py_INCREF
from cython.parallel cimport prange, threadid
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cnp.import_array()

ctypedef fused real:
    float
    double

ctypedef Py_ssize_t ix

include "kernels/view.pxi"
include "kernels/memory.pxi"
include "kernels/runtime.pxi"
include "kernels/correlate.pxi"
include "kernels/outer.pxi"
include "kernels/conv.pxi"
include "kernels/bias.pxi"
include "kernels/direct.pxi"
include "kernels/depthwise.pxi"
include "kernels/columns.pxi"
include "kernels/winograd.pxi"
include "kernels/winograd_outer.pxi"
include "kernels/winograd1d_weight.pxi"
include "kernels/winograd1d.pxi"
include "kernels/dense.pxi"
include "kernels/elementwise.pxi"
include "kernels/pool.pxi"
include "kernels/norm.pxi"
include "kernels/loss.pxi"
include "kernels/peak.pxi"
