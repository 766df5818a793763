"""Options of `pytest bench/`: which layers, by which implementations, on how many threads.

All implementations share this one process, which is fine for watching fastconv from commit to commit;
figures that compare libraries come from `fastconv bench`, which gives each a process of its own.
"""

import importlib.util

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401  before fastconv, so that both find one and the same OpenMP runtime

import pytest

from fastconv.bench import peers, problems


def pytest_addoption(parser):
    group = parser.getgroup("fastconv")
    group.addoption(
        "--layers", nargs="+", default=["small", "lenet"], metavar="WORD", help="as in `fastconv bench`"
    )
    group.addoption(
        "--implementations", nargs="+", metavar="I", help="default: fastconv, and its peers if installed"
    )
    group.addoption("--threads", type=int, default=1, metavar="N")


def pytest_generate_tests(metafunc):
    if "implementation" not in metafunc.fixturenames:
        return
    options = metafunc.config.option
    try:
        chosen = problems.select(options.layers)
        found = [peers.get(name) for name in options.implementations or peers.default()]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    present = [implementation for implementation in found if implementation.missing() is None]
    metafunc.parametrize(
        "problem, direction, implementation",
        [
            pytest.param(p, direction, i, id=f"{p.label or p.name}-{direction}-{i.name}")
            for p in chosen
            for direction in p.directions
            for i in present
        ],
    )
