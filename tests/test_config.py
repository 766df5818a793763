"""Switches: threads, precision, the verbose line, show_config()."""

import os
import platform
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastconv as fc
from fastconv._config import THREADS_MAX, _default_threads


def fresh(code, **environ):
    """What a fresh interpreter does with these environment variables and no other switch."""
    switches = ("FASTCONV_NUM_THREADS", "OMP_NUM_THREADS", "FASTCONV_VERBOSE", "FASTCONV_ISA")
    environ = {**{k: v for k, v in os.environ.items() if k not in switches}, **environ}
    command = [sys.executable, "-c", "import numpy as np, fastconv as fc; " + code]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


# -- threads and precision -----------------------------------------------------------------------------------


def test_threads_from_the_environment():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert _default_threads({}) == cores
    assert _default_threads({"FASTCONV_NUM_THREADS": " 3 ", "OMP_NUM_THREADS": "5"}) == 3
    assert _default_threads({"OMP_NUM_THREADS": "5,2"}) == 5
    assert _default_threads({"OMP_NUM_THREADS": "9999"}) == THREADS_MAX
    for ignored in ("many", "0", "-1", ""):  # as OpenMP ignores it
        assert _default_threads({"OMP_NUM_THREADS": ignored, "FASTCONV_NUM_THREADS": ""}) == cores
    for bad in ("0", "-1", "two", "1.5", "9" * 30, "1025"):
        with pytest.raises(
            ValueError, match=f"FASTCONV_NUM_THREADS='{bad}', need an integer between 1 and 1024"
        ):
            _default_threads({"FASTCONV_NUM_THREADS": bad})
    assert fresh("print(fc.get_num_threads())", FASTCONV_NUM_THREADS="3").stdout == "3\n"
    assert "ValueError: FASTCONV_NUM_THREADS='two'" in fresh("", FASTCONV_NUM_THREADS="two").stderr


def test_settings_are_restored():
    before = fc.get_num_threads(), fc.get_precision()
    with fc.num_threads(3) as outer, fc.precision("strict"):
        assert (fc.get_num_threads(), fc.get_precision()) == (3, "strict")
        with fc.num_threads(2), outer:
            assert fc.get_num_threads() == 3
        seen = []
        thread = threading.Thread(target=lambda: seen.append(fc.get_num_threads()))  # process-wide
        thread.start()
        thread.join()
        assert seen == [3]
    assert (fc.get_num_threads(), fc.get_precision()) == before
    with pytest.raises(KeyError), fc.num_threads(4):
        raise KeyError
    assert fc.get_num_threads() == before[0]


def test_settings_decorate_functions():
    @fc.num_threads(np.int64(5))
    @fc.precision("tf32")
    def inside():
        return fc.get_num_threads(), fc.get_precision()

    assert inside() == (5, "tf32") != (fc.get_num_threads(), fc.get_precision())


# -- the verbose line ----------------------------------------------------------------------------------------

CALLS = """
x, w = np.ones((1, 4, 8, 8), np.float32), np.ones((2, 4, 3, 3), np.float32)
y = fc.conv2d(x, w, padding=1)
fc.conv2d_backward(y, x, w, padding=1, output_mask=(True, True, False))
fc.reference.conv2d(x, w, padding=1)
fc.max_pool2d(x, 2)
fc.tanh(np.float64(1))
"""
NAME = r"conv2d:n1c4h8w8k2r3s3_st1p1d1g1_f32"
WHERE = r"(?:baseline|avx2|avx512), 2 threads, \d+\.\d{3} ms"


def test_verbose_prints_one_line_per_call():
    run = fresh(f"exec({CALLS!r})", FASTCONV_VERBOSE="1", FASTCONV_NUM_THREADS="2")
    expected = [
        rf"fastconv: {NAME}, forward, \w+, {WHERE}, \d+\.\d GFLOP/s",
        rf"fastconv: {NAME}, backward_input, \w+, {WHERE}, \d+\.\d GFLOP/s",
        rf"fastconv: {NAME}, backward_weight, \w+, {WHERE}, \d+\.\d GFLOP/s",
        rf"fastconv: {NAME}, forward, direct, numpy, 1 thread, \d+\.\d{{3}} ms, \d+\.\d GFLOP/s",
        rf"fastconv: max_pool2d:n1c4h8w8r2s2_st2p0d1_f32, max_pool, direct, {WHERE}",
        rf"fastconv: tanh:0d_f64, activation, direct, {WHERE}",
    ]
    lines = run.stderr.splitlines()
    assert len(lines) == len(expected) and run.stdout == ""
    for line, pattern in zip(lines, expected):
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize("off", ["", "0"])
def test_silent_otherwise(off):
    run = fresh(f"exec({CALLS!r})", FASTCONV_VERBOSE=off)
    assert run.stderr == run.stdout == "" and run.returncode == 0


# -- show_config ---------------------------------------------------------------------------------------------


def test_show_config(capsys):
    facts = fc.show_config("dicts")
    assert facts["version"] == fc.__version__ and facts["python"] == platform.python_version()
    assert facts["isa_active"] in facts["isa_usable"] and set(facts["isa_usable"]) <= set(facts["isa_built"])
    assert facts["threads"] == fc.get_num_threads() and facts["gpu"] == fc.cuda.is_available()
    assert isinstance(facts["openmp"], bool)
    assert capsys.readouterr().out == ""
    assert fc.show_config() is None
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed.keys() == facts.keys()
    assert printed["openmp"] == ("yes" if facts["openmp"] else "no")
    assert printed["isa_usable"] == ", ".join(facts["isa_usable"])
