"""Targets and indices that are out of range: found by the kernels that use them, raised as ValueError.

A kernel never reads or writes through a wrong index. It leaves the index's position in a flag on the device,
the smallest of several, so that the message names the same one every time. Reading the flag makes the host
wait for the kernel, which is what a ValueError from the very call that was wrong costs: a copy of 8 bytes,
and the queue of the stream runs empty. ``with fc.cuda.deferred_checks():`` puts this off to the end of the
block, for loops that should keep the device busy and for work that is captured in a CUDA graph.
"""

import contextlib
import threading

import numpy as np

from . import _arrays

NOTHING_WRONG = 2**63 - 1
FLAGS_KEPT = 1024  # of 8 bytes


class _Flags(threading.local):
    """A thread's flags by device, stream and message, at rest; and those that a block will look at."""

    def __init__(self):
        self.known, self.pending = {}, None


_flags = _Flags()


class Flag:
    """An int64 on the device of a call: kernels take the minimum of it and the position of what is wrong.

    message: what the ValueError says, with {} for the wrong value.
    """

    def __init__(self, call, message):
        place = call if type(call) is _arrays.Place else _arrays.Place(call.op, call.device, call.stream)
        self._place, self._message = place, message
        self._key = place.device, place.stream, message
        self.array = _flags.known.get(self._key)
        if self.array is None:
            if len(_flags.known) >= FLAGS_KEPT and _flags.pending is None:
                _flags.known.clear()
            made = _arrays.sent(np.full(1, NOTHING_WRONG, np.int64), call.device, call.stream)
            self.array = _flags.known[self._key] = _arrays.describe(call.op, made)
        self._recorder = None if call is place else call.recorder
        if self._recorder is not None:
            self.array = self._recorder.flag(self.array, message)

    def check(self, values, addresses=None):
        """Raise ValueError when a kernel has found an element of `values` wrong; waits for the kernels.

        values: contiguous, what the positions count in; with addresses the `_replay.Operand` that it is.
        Inside `deferred_checks` nothing happens until its end.
        """
        if self._recorder is not None:
            self._recorder.check(self._message, values)
        if _flags.pending is not None:
            _flags.pending[self._key] = self
            return
        position = self._take()
        if position != NOTHING_WRONG:
            values = values if addresses is None else values.at(addresses)
            raise ValueError(self._message.format(_read(self._place, values.flat().part(position, 1))))

    def check_later(self):
        """The same at the end of a block, when the values may be gone."""
        position = self._take()
        if position != NOTHING_WRONG:
            raise ValueError(self._message.format(f"at flat position {position}"))

    def _take(self):
        """What is in the flag; one that was raised is not used again."""
        position = _read(self._place, self.array)
        if position != NOTHING_WRONG:
            del _flags.known[self._key]
        return position


def _read(place, array):
    """The one element of an array, as a Python number; waits for the stream of a call's `Place`."""
    host = np.empty(1, array.dtype)
    _arrays.read(place, array, host)
    return host[0].item()


@contextlib.contextmanager
def deferred_checks():
    """See `fastconv.cuda.deferred_checks`."""
    if _flags.pending is not None:  # an outer block will look
        yield
        return
    _flags.pending = {}
    try:
        yield
    except BaseException:
        for key in _flags.pending:  # nobody will look: what they hold must not come up in a later call
            _flags.known.pop(key, None)
        raise
    else:
        flags = list(_flags.pending.values())
    finally:
        _flags.pending = None
    for flag in flags:
        flag.check_later()
