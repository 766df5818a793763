/* Scratch memory: 64-byte aligned blocks that are kept and reused, so that a call does not pay for fresh pages.
 *
 * fc_scratch_take gives a block of at least `bytes` (NULL when the system refuses); fc_scratch_give hands it back. A few blocks are kept, at most
 * FC_SCRATCH_KEEP bytes in all; fc_scratch_release frees them. Blocks are owned by the call that took them, so any number of threads may call.
 */
#ifndef FC_ARENA_H
#define FC_ARENA_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define FC_SCRATCH_SLOTS 16
#define FC_SCRATCH_KEEP ((size_t)256 << 20)
#define FC_HUGE ((size_t)2 << 20)

typedef struct { void *block; size_t bytes; } fc_scratch_slot;
static fc_scratch_slot fc_scratch_slots[FC_SCRATCH_SLOTS];
static size_t fc_scratch_kept;
static char fc_scratch_busy;
static char fc_scratch_poisoned; /* tests: every block is handed out full of 0xFF bytes, which are NaN, and -1 as an index */

static inline void fc_scratch_lock(void) { while (__atomic_test_and_set(&fc_scratch_busy, __ATOMIC_ACQUIRE)) { } }
static inline void fc_scratch_unlock(void) { __atomic_clear(&fc_scratch_busy, __ATOMIC_RELEASE); }

/* The size that a request is rounded to: whole pages for small ones, huge pages for large ones. Debug builds give what was asked for, so that
 * a sanitizer sees who goes beyond. */
static inline size_t fc_scratch_round(size_t bytes)
{
#if defined(FC_DEBUG)
    return bytes;
#endif
    size_t unit = bytes >= FC_HUGE ? FC_HUGE : 4096;
    return (bytes + unit - 1) / unit * unit;
}

static void *fc_scratch_take(size_t bytes)
{
    if (bytes > PTRDIFF_MAX - FC_HUGE) return NULL;
    size_t wanted = bytes;
    bytes = fc_scratch_round(bytes ? bytes : 1);
    int best = -1;
    fc_scratch_lock();
    for (int i = 0; i < FC_SCRATCH_SLOTS; i++)
        if (fc_scratch_slots[i].block && fc_scratch_slots[i].bytes >= bytes &&
            (best < 0 || fc_scratch_slots[i].bytes < fc_scratch_slots[best].bytes))
            best = i;
    void *block = NULL;
    if (best >= 0) {
        block = fc_scratch_slots[best].block;
        fc_scratch_kept -= fc_scratch_slots[best].bytes;
        fc_scratch_slots[best].block = NULL;
        bytes = fc_scratch_slots[best].bytes;
    }
    fc_scratch_unlock();
    if (!block) {
        /* The size is kept in front of the block, a cache line that also keeps the block aligned. */
        char *raw = NULL;
        if (posix_memalign((void **)&raw, bytes >= FC_HUGE ? FC_HUGE : 64, bytes + 64)) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (bytes >= FC_HUGE) madvise(raw, bytes, MADV_HUGEPAGE);
#endif
        *(size_t *)raw = bytes;
        block = raw + 64;
    }
    if (fc_scratch_poisoned) memset(block, 0xFF, wanted);
    return block;
}

static void fc_scratch_give(void *block)
{
    if (!block) return;
#if defined(FC_DEBUG)
    free((char *)block - 64);
    return;
#endif
    size_t bytes = *(size_t *)((char *)block - 64);
    fc_scratch_lock();
    if (fc_scratch_kept + bytes <= FC_SCRATCH_KEEP)
        for (int i = 0; i < FC_SCRATCH_SLOTS; i++)
            if (!fc_scratch_slots[i].block) {
                fc_scratch_slots[i].block = block;
                fc_scratch_slots[i].bytes = bytes;
                fc_scratch_kept += bytes;
                block = NULL;
                break;
            }
    fc_scratch_unlock();
    if (block) free((char *)block - 64);
}

static void fc_scratch_poison(int on) { fc_scratch_poisoned = on != 0; }

/* Free every kept block. */
static void fc_scratch_release(void)
{
    for (int i = 0; i < FC_SCRATCH_SLOTS; i++) {
        fc_scratch_lock();
        void *block = fc_scratch_slots[i].block;
        if (block) {
            fc_scratch_kept -= fc_scratch_slots[i].bytes;
            fc_scratch_slots[i].block = NULL;
        }
        fc_scratch_unlock();
        if (block) free((char *)block - 64);
    }
}
#endif
