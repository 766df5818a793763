"""A call as data: the kernels to launch, in order, with pointers by name. Built once for a problem, run
many times.

Whoever runs a program (`_driver`, or the emulator) provides addresses for the names: the caller's arrays,
and the scratch buffers, which are allocated by the caller's library so that its pool serves them and
nothing is allocated in a launch.
"""

from typing import NamedTuple


class Pointer(NamedTuple):
    """The address of a named buffer, `offset` bytes in."""

    name: str
    offset: int = 0


class Step(NamedTuple):
    """One launch. arguments.

    Pointer for P, a tensor map whose address is a Pointer for M, numbers for I and F.
    """

    kernel: object
    grid: tuple
    arguments: tuple


class Program(NamedTuple):
    """steps.

    Of Step; scratch: (name, bytes) of every buffer that has to be provided, aligned to 256 bytes.
    """

    steps: tuple
    scratch: tuple = ()

    @property
    def scratch_bytes(self):
        return sum(nbytes for _, nbytes in self.scratch)


def resolved(argument, addresses):
    """An argument with the addresses put in."""
    if type(argument) is Pointer:
        return addresses[argument.name] + argument.offset
    address = getattr(argument, "address", None)
    return argument if address is None else argument._replace(address=resolved(address, addresses))
