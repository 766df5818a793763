/* Memory that is kept and reused, so that a call does not pay for fresh pages: 64-byte aligned blocks, large ones on huge pages where the system has them.
 *
 * There are two arenas of blocks. fc_scratch lends to calls, which hand back what they took before they return. fc_results lends to arrays, which hand back when
 * they die, whenever and in whatever thread that is (kernels/memory.pxi).
 *
 * fc_arena_take gives a block of at least `bytes`, or NULL when the system refuses; fc_arena_give hands it back. What is idle is kept for the next taker, at most
 * `keep` bytes and FC_ARENA_SLOTS blocks of an arena: whatever lay idle longest is freed first, and really goes back to the system.
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
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#endif

#define FC_ARENA_SLOTS 64
#define FC_HEADER ((size_t)64)       /* in front of a block: a cache line, which also keeps the block aligned */
#define FC_HUGE ((size_t)2 << 20)
#if defined(FC_DEBUG)
#define FC_ZONE ((size_t)0)          /* a sanitizer sees more */
#else
#define FC_ZONE ((size_t)256 << 10)  /* behind a poisoned block: nobody may write there */
#endif
#define FC_ZONE_BYTE 0xA5
#define FC_WASTE_SHIFT 4             /* blocks are up to 1/16 larger than asked for, so that sizes that are nearly the same share them */

typedef struct { void *block; size_t bytes; } fc_slot;
typedef struct {
    size_t keep, kept;               /* bytes that may be idle, and that are */
    int fit_shift;                   /* a request takes an idle block up to bytes >> fit_shift larger than itself; 0: any that is large enough */
    int count;
    fc_slot slots[FC_ARENA_SLOTS];   /* the idle blocks, longest idle first */
    char busy;
    char poisoned;                   /* tests: blocks are handed out full of 0xFF bytes, which are NaN, and -1 as an index, a zone behind them */
    size_t overruns;                 /* blocks that came back with something written into the zone */
} fc_arena;
static fc_arena fc_scratch = {.keep = (size_t)256 << 20};
static fc_arena fc_results = {.fit_shift = 3}; /* an array may live long, and must not sit on a block many times its size */

static inline void fc_arena_lock(fc_arena *a)
{
    while (__atomic_test_and_set(&a->busy, __ATOMIC_ACQUIRE)) {
#if defined(__unix__) || defined(__APPLE__)
        sched_yield(); /* whoever holds it needs a few hundred instructions, unless it lost its core */
#endif
    }
}
static inline void fc_arena_unlock(fc_arena *a) { __atomic_clear(&a->busy, __ATOMIC_RELEASE); }

/* A fork must not copy an arena in the middle of a change: the forking thread holds the locks meanwhile. */
static void fc_arena_lock_all(void) { fc_arena_lock(&fc_scratch); fc_arena_lock(&fc_results); }
static void fc_arena_unlock_all(void) { fc_arena_unlock(&fc_results); fc_arena_unlock(&fc_scratch); }
static void fc_arena_survive_fork(void)
{
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(fc_arena_lock_all, fc_arena_unlock_all, fc_arena_unlock_all);
#endif
}

/* The size of the block, header included, that serves a request: whole pages, for large ones steps of 1/32 to 1/16 of the size. Debug builds give
 * what was asked for, so that a sanitizer sees who goes beyond. */
static inline size_t fc_memory_size(size_t bytes)
{
    bytes += FC_HEADER;
#if defined(FC_DEBUG)
    return bytes;
#endif
    size_t unit = 4096;
    while (unit < FC_HUGE && unit << (FC_WASTE_SHIFT + 1) <= bytes) unit *= 2;
    return (bytes + unit - 1) / unit * unit;
}

#if defined(__linux__) && defined(MADV_HUGEPAGE) && !defined(FC_DEBUG)
#define FC_MAPPED(bytes) ((bytes) >= FC_HUGE)
#else
#define FC_MAPPED(bytes) 0
#endif

/* Large blocks are mappings of their own that begin at a huge page: malloc would keep some of them when they are freed. */
static void *fc_memory_new(size_t bytes)
{
    char *raw = NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (FC_MAPPED(bytes)) {
        raw = mmap(NULL, bytes + FC_HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (raw == MAP_FAILED) return NULL;
        size_t before = (FC_HUGE - (uintptr_t)raw % FC_HUGE) % FC_HUGE;
        if (before) munmap(raw, before);
        raw += before;
        munmap(raw + bytes, FC_HUGE - before); /* bytes are whole pages */
        madvise(raw, bytes, MADV_HUGEPAGE);
    }
#endif
    if (!raw && posix_memalign((void **)&raw, 64, bytes)) return NULL;
    *(size_t *)raw = bytes;
    return raw + FC_HEADER;
}

/* What the header holds: the size of the block, and where its zone begins (0: it has none). */
static inline size_t *fc_memory_header(const void *block) { return (size_t *)((uintptr_t)block - FC_HEADER); }
static inline size_t fc_memory_bytes(const void *block) { return fc_memory_header(block)[0]; }

/* Whether something was written behind the end of a block that was handed out with a zone; it has none afterwards. */
static int fc_memory_overrun(void *block)
{
    const size_t end = fc_memory_header(block)[1];
    const unsigned char *zone = (const unsigned char *)block + end;
    if (!end) return 0;
    fc_memory_header(block)[1] = 0;
    for (size_t i = 0; i < FC_ZONE; i++)
        if (zone[i] != FC_ZONE_BYTE) return 1;
    return 0;
}

static void fc_memory_free(void *block)
{
    if (!block) return;
    size_t bytes = fc_memory_bytes(block);
    void *raw = (char *)block - FC_HEADER;
#if defined(__linux__)
    if (FC_MAPPED(bytes)) { munmap(raw, bytes); return; }
#endif
    (void)bytes;
    free(raw);
}

/* Take slot i out; the lock is held. */
static inline void *fc_arena_pick(fc_arena *a, int i)
{
    void *block = a->slots[i].block;
    a->kept -= a->slots[i].bytes;
    memmove(a->slots + i, a->slots + i + 1, (size_t)(--a->count - i) * sizeof(fc_slot));
    return block;
}

/* Free what has been idle longest until at most `keep` bytes in `slots` blocks are left. */
static void fc_arena_shrink(fc_arena *a, size_t keep, int slots)
{
    while (1) {
        void *block = NULL;
        fc_arena_lock(a);
        if (a->count && (a->kept > keep || a->count > slots)) block = fc_arena_pick(a, 0);
        fc_arena_unlock(a);
        if (!block) return;
        fc_memory_free(block);
    }
}

static void *fc_arena_take(fc_arena *a, size_t bytes)
{
    if (bytes > PTRDIFF_MAX - 2 * FC_HUGE) return NULL;
    const int poisoned = a->poisoned;
    const size_t wanted = bytes;
    if (poisoned) bytes += FC_ZONE;
    const size_t most = a->fit_shift ? bytes + (bytes >> a->fit_shift) + 2 * 4096 : SIZE_MAX;
    bytes = fc_memory_size(bytes);
    int best = -1;
    void *block = NULL;
    fc_arena_lock(a);
    for (int i = 0; i < a->count; i++) /* of equals the last, whose lines are the likeliest to be in a cache */
        if (a->slots[i].bytes >= bytes && a->slots[i].bytes <= most && (best < 0 || a->slots[i].bytes <= a->slots[best].bytes)) best = i;
    if (best >= 0) block = fc_arena_pick(a, best);
    fc_arena_unlock(a);
    if (!block) block = fc_memory_new(bytes);
    if (!block) { /* what lies idle may be what the system lacks */
        fc_arena_shrink(&fc_scratch, 0, 0);
        fc_arena_shrink(&fc_results, 0, 0);
        block = fc_memory_new(bytes);
    }
    if (block) fc_memory_header(block)[1] = poisoned ? wanted : 0;
    if (block && poisoned) {
        memset(block, 0xFF, wanted);
        memset((char *)block + wanted, FC_ZONE_BYTE, FC_ZONE);
    }
    return block;
}

static void fc_arena_give(fc_arena *a, void *block)
{
    if (!block) return;
    if (fc_memory_overrun(block)) __atomic_add_fetch(&a->overruns, 1, __ATOMIC_RELAXED);
    size_t bytes = fc_memory_bytes(block);
#if defined(FC_DEBUG)
    bytes = SIZE_MAX; /* a sanitizer knows a block that is used after its end only if that is freed */
#endif
    fc_arena_lock(a);
    const size_t keep = a->keep;
    fc_arena_unlock(a);
    if (bytes > keep) {
        fc_memory_free(block);
        return;
    }
    fc_arena_shrink(a, keep - bytes, FC_ARENA_SLOTS - 1);
    fc_arena_lock(a);
    if (a->kept + bytes <= keep && a->count < FC_ARENA_SLOTS) { /* another thread may have filled the gap */
        a->slots[a->count++] = (fc_slot){block, bytes};
        a->kept += bytes;
        block = NULL;
    }
    fc_arena_unlock(a);
    fc_memory_free(block);
}

/* From now on keep at most so many bytes; returns what it was. */
static size_t fc_arena_keep(fc_arena *a, size_t keep)
{
    fc_arena_lock(a);
    size_t before = a->keep;
    a->keep = keep;
    fc_arena_unlock(a);
    fc_arena_shrink(a, keep, FC_ARENA_SLOTS);
    return before;
}

static void *fc_scratch_take(size_t bytes) { return fc_arena_take(&fc_scratch, bytes); }
static void fc_scratch_give(void *block) { fc_arena_give(&fc_scratch, block); }
#endif
