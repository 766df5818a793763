/* The arena of results as a NumPy memory handler (NEP 49): arrays made while it is set live in blocks of fc_results, and give them back when they die. */
#ifndef FC_RESULTS_H
#define FC_RESULTS_H
#include "kernels.h"

static void *fc_results_malloc(void *ctx, size_t bytes)
{
    (void)ctx;
    return fc_arena_take(&fc_results, bytes);
}

static void *fc_results_calloc(void *ctx, size_t count, size_t size)
{
    (void)ctx;
    if (size && count > SIZE_MAX / size) return NULL;
    void *block = fc_arena_take(&fc_results, count * size);
    return block ? memset(block, 0, count * size) : NULL;
}

static void fc_results_free(void *ctx, void *block, size_t bytes)
{
    (void)ctx;
    (void)bytes; /* the block knows better: the array may have been resized within it */
    fc_arena_give(&fc_results, block);
}

static void *fc_results_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    const size_t room = old ? fc_memory_bytes(old) - FC_HEADER : 0;
    if (old && bytes <= room && bytes >= room / 2) return old;
    void *block = fc_arena_take(&fc_results, bytes);
    if (block && old) {
        memcpy(block, old, bytes < room ? bytes : room);
        fc_arena_give(&fc_results, old);
    }
    return block;
}

static PyDataMem_Handler fc_results_handler = {
    "fastconv", 1, {NULL, fc_results_malloc, fc_results_calloc, fc_results_realloc, fc_results_free}};

static PyObject *fc_results_capsule(void) { return PyCapsule_New(&fc_results_handler, "mem_handler", NULL); }
static int fc_is_default_handler(PyObject *handler) { return handler == PyDataMem_DefaultHandler; }
#endif
