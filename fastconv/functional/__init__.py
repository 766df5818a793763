"""Every public operation, a room each: conv, pool, activation, loss, dense, and choice (of algorithms).

Each is a docstring, a problem or a check of its arguments, and the call of the backend that its arrays
select. The one name through which they reach a backend is `backend_of`; `bound` rebinds it, which is all that
makes `fastconv.reference` and `fastconv.cuda`.
"""

import types

from . import activation, choice, conv, dense, loss, pool
from .activation import *
from .choice import *
from .conv import *
from .dense import *
from .loss import *
from .pool import *

ROOMS = (conv, pool, activation, loss, dense, choice)

__all__ = [name for room in ROOMS for name in room.__all__]


def bound(module, backend_of):
    """The same functions (code, signatures, defaults, docstrings) with another `backend_of`; name ->
    function.

    backend_of(op, *arrays) returns the backend module for the arrays of a call. `module` is the name of the
    module that will hold the functions.
    """
    functions = {}
    for room in ROOMS:
        scope = {**vars(room), "backend_of": backend_of}
        for name, value in vars(room).items():
            if isinstance(value, types.FunctionType) and value.__globals__ is vars(room):
                scope[name] = _rebound(value, scope, module)
        functions.update({name: scope[name] for name in room.__all__})
    return functions


def _rebound(function, scope, module):
    copy = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__doc__ = function.__doc__
    copy.__module__ = module
    return copy
