"""What holds for every test: the package under test is the installed one, also in child processes."""

import os
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def _built_in_place():
    return any(path.suffix in (".so", ".pyd") for path in (CHECKOUT / "fastconv").glob("_kernels_*"))


# `python -m pytest` puts the checkout in front of the installed package, and its fastconv/ has no compiled kernels
# (unless they were built in place, which is how one develops).
if not _built_in_place():
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != CHECKOUT]


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_checkout(tmp_path_factory):
    """Run in an empty folder, so that `python -c` in a child process finds the same fastconv as this process."""
    import fastconv

    before = Path.cwd(), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(fastconv.__file__).parents[1]), before[1]])
    )
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before[0])
    if before[1] is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before[1]
