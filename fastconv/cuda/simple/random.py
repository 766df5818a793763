"""Random masks: the numbers that a NumPy generator would draw, drawn on the device.

`dropout` promises that its mask depends on the generator, p and the shape alone, so that a model trains with
the same masks on the host and on the device. PCG64, which is what `np.random.default_rng` uses, is a linear
congruential generator of 128 bits: a thread gets to any place of its sequence in as many squarings as that
place has binary digits. Other generators draw on the host, and their mask is copied.

Source: O'Neill, PCG: a family of simple fast space-efficient statistically good algorithms for random number
generation, 2014; Brown, Random number generation with arbitrary strides, 1994.
"""

import math

import numpy as np
from numba import cuda, uint64

from .launch import device, kernel

RUN = 64  # draws of 64 bits that one thread makes one after the other
MULTIPLIER = 47026247687942121848144207491837523525
ZERO, ONE, HALF, SHIFT, LOW = (np.uint64(v) for v in (0, 1, 32, 58, 2**32 - 1))
WORD = np.uint64(64)


@device
def multiplied(ah, al, bh, bl):
    """a * b mod 2^128, numbers as pairs of high and low uint64."""
    p0 = (al & LOW) * (bl & LOW)
    p1 = (al >> HALF) * (bl & LOW)
    p2 = (al & LOW) * (bl >> HALF)
    p3 = (al >> HALF) * (bl >> HALF)
    middle = (p0 >> HALF) + (p1 & LOW) + (p2 & LOW)
    low = (p0 & LOW) | (middle << HALF)
    high = p3 + (p1 >> HALF) + (p2 >> HALF) + (middle >> HALF) + al * bh + ah * bl
    return high, low


@device
def added(ah, al, bh, bl):
    """a + b mod 2^128."""
    low = al + bl
    carry = ONE if low < al else ZERO
    return ah + bh + carry, low


@device
def joined(pieces, at):
    """Two pieces of 32 bits as one of 64."""
    return (uint64(pieces[at]) << HALF) | uint64(pieces[at + 1])


@device
def output(high, low):
    """What PCG64 makes of its state: the halves combined and rotated by the topmost six bits."""
    value = high ^ low
    turn = high >> SHIFT
    return (value >> turn) | (value << ((WORD - turn) & (WORD - ONE)))


@kernel
def _mask(mask, state, increment, multiplier, threshold):
    """mask[2 i + h] = whether 24 bits of half h of draw i reach the threshold.

    state, increment, multiplier: numbers of 128 bits in four pieces of 32.
    """
    draws = (mask.size + 1) // 2
    for i in range(cuda.grid(1), (draws + RUN - 1) // RUN, cuda.gridsize(1)):
        sh, sl = joined(state, 0), joined(state, 2)
        ih, il = joined(increment, 0), joined(increment, 2)
        mh, ml = joined(multiplier, 0), joined(multiplier, 2)
        # i * RUN steps: state -> m state + p, where (m, p) of twice as many steps is (m^2, (m + 1) p)
        jump_mh, jump_ml, jump_ph, jump_pl = mh, ml, ih, il
        steps = i * RUN
        while steps > 0:
            if steps % 2 == 1:
                sh, sl = multiplied(sh, sl, jump_mh, jump_ml)
                sh, sl = added(sh, sl, jump_ph, jump_pl)
            more_h, more_l = added(jump_mh, jump_ml, ZERO, ONE)
            jump_ph, jump_pl = multiplied(more_h, more_l, jump_ph, jump_pl)
            jump_mh, jump_ml = multiplied(jump_mh, jump_ml, jump_mh, jump_ml)
            steps = steps // 2
        for draw in range(i * RUN, min((i + 1) * RUN, draws)):
            sh, sl = multiplied(sh, sl, mh, ml)
            sh, sl = added(sh, sl, ih, il)
            value = output(sh, sl)
            mask[2 * draw] = ((value & LOW) >> uint64(8)) >= uint64(threshold)
            if 2 * draw + 1 < mask.size:
                mask[2 * draw + 1] = (value >> uint64(40)) >= uint64(threshold)


def _pieces(number):
    """A number of 128 bits in four of 32, the high ones first."""
    return tuple((number >> shift) & 0xFFFFFFFF for shift in (96, 64, 32, 0))


def mask(call, rng, p, made):
    """made = whether each of the numbers that rng.random(shape, dtype=np.float32) draws is at least p."""
    generator = rng.bit_generator
    if type(generator) is not np.random.PCG64:
        from .. import _arrays

        drawn = rng.random(made.shape, dtype=np.float32) >= p
        _arrays.write(call, made, drawn)
        return
    size, flat = made.size, made.flat()
    state = generator.state
    threshold = math.ceil(float(np.float32(p)) * 2**24)  # the float32 numbers drawn are multiples of 2^-24
    if state["has_uint32"] and size:  # half a draw is left from before
        from .copy import fill

        fill(call, flat.part(0, 1), state["uinteger"] >> 8 >= threshold)
        flat, size = flat.part(1, size - 1), size - 1
        state["has_uint32"] = 0
        generator.state = state
    if size == 0:
        return
    numbers = state["state"]
    arguments = _pieces(numbers["state"]), _pieces(numbers["inc"]), _pieces(MULTIPLIER)
    _mask.launch(call, -(-size // (2 * RUN)), flat, *arguments, threshold)
    generator.advance(-(-size // 2) - 1)
    last = int(generator.random_raw())
    generator.state = {**generator.state, "has_uint32": size % 2, "uinteger": last >> 32}
