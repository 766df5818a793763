/* The templates, in order of dependence; included by kernels.h for each element type. */
#include "simd.h"
#include "view.h"
#include "gemm.h"
#include "pack.h"
#include "epilogue.h"
