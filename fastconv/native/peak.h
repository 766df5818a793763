/* Ceilings to measure kernels against: multiply-adds from registers alone, and the register tile on panels in the first-level cache. */

/* Chains that are in flight at once: more than latency times issue width of any current core (4 cycles x 2 a cycle, x 4 on the widest), and with two
 * constants within the register file. */
#undef CHAINS
#if VBYTES == 64 || defined(__aarch64__)
#define CHAINS 24
#else
#define CHAINS 12
#endif

/* `repeats` rounds of CHAINS independent c = c * a + b. Returns what keeps the compiler from dropping them. */
static REAL NAME(multiply_adds)(ix repeats)
{
    V c[CHAINS], a = SPLAT(0.5), b = SPLAT(1), total = {0};
    UNROLL for (ix i = 0; i < CHAINS; i++) c[i] = SPLAT(i);
    for (ix r = 0; r < repeats; r++) UNROLL for (ix i = 0; i < CHAINS; i++) c[i] = c[i] * a + b;
    UNROLL for (ix i = 0; i < CHAINS; i++) total += c[i];
    return total[0];
}

static inline ix NAME(multiply_adds_flops)(void) { return 2 * CHAINS * VL; }

/* `repeats` full tiles of depth kc from the same panels. */
static void NAME(tile_repeated)(ix repeats, ix kc, const REAL *A, const REAL *B, REAL *C)
{
    for (ix r = 0; r < repeats; r++) NAME(tile)(MR, NV, kc, A, MR, B, kc * VL, C, NV * VL, 0, NULL, 0);
}
