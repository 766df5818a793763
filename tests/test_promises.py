"""Promises of the contract: bounded memory, inputs that are read and never written, `out=`, the verbose line,
the cap of the instruction set, a cheap import.
"""

import re
import sys

import numpy as np
import pytest
from promises import LEVELS, SMALL, every_way, ids, python

import fastconv as fc
from fastconv import testing

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")  # ru_maxrss would start at the parent's
@pytest.mark.parametrize("algorithm", ["auto", "im2col"])
def test_memory_is_what_the_plan_says(algorithm):
    """The high-water mark of a process rises by the result and scratch_bytes, not by im2col's matrix."""
    python(
        f"""
        import re
        import numpy as np
        import fastconv as fc

        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

        fc.set_num_threads(2)
        x, w = np.ones((8, 16, 96, 96), np.float32), np.ones((16, 16, 3, 3), np.float32)
        dy = x.copy()
        small = x[:1, :, :8, :8]
        fc.conv2d(small, w, padding=1)  # the kernels are loaded
        fc.conv2d_backward(small, small, w, padding=1, output_mask=(True, True, False))
        columns, slack = 9 * x.nbytes, 6 << 20  # slack: threads' stacks, NumPy, Python
        how, first = dict(padding=1, algorithm={algorithm!r}), peak()
        for direction, mask in (
            ("conv2d", None),
            ("conv2d_backward_input", (True, False, False)),
            ("conv2d_backward_weight", (False, True, False)),
        ):
            plan = fc.plan(direction, x, w, **how)
            before = peak()
            fc.conv2d_backward(dy, x, w, **how, output_mask=mask) if mask else fc.conv2d(x, w, **how)
            rise = peak() - before
            limit = plan.scratch_bytes + x.nbytes + slack
            assert rise <= limit, (direction, rise, limit)
            assert (plan.algorithm == "im2col") == (plan.scratch_bytes >= columns), plan
        assert (plan.algorithm == "im2col") == (peak() - first >= columns - slack)  # it would have been seen
        """
    )


# -- inputs, outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SMALL, ids=ids)
def test_inputs_are_never_written(case):
    """Read-only inputs are enough, whatever the algorithm; even for arrays that lie in protected memory."""
    for dtype, _, algorithm in every_way(case):
        inputs = {
            name: a if a is None else testing.lay_out(a, "readonly") for name, a in case.inputs(dtype).items()
        }
        before = {name: None if a is None else a.tobytes() for name, a in inputs.items()}
        case.run(fc, inputs, algorithm)
        assert before == {name: None if a is None else a.tobytes() for name, a in inputs.items()}


def out_faults():
    x, w, b = np.ones((2, 3, 5, 5)), np.ones((4, 3, 3, 3)), np.ones(4)
    yield dict(x=x, weight=w[:, :2], bias=b)
    yield dict(x=x, weight=w, bias=b[:3])
    yield dict(x=x, weight=w.astype(np.float32), bias=b)
    yield dict(x=x, weight=w, bias=b, stride=0)
    yield dict(x=x, weight=w, bias=b, padding=-1)
    yield dict(x=x, weight=w, bias=b, padding="some")
    yield dict(x=x, weight=w, bias=b, padding=1)  # out has another shape
    yield dict(x=x, weight=w, bias=b, dilation=3)
    yield dict(x=x, weight=w, bias=b, groups=2)
    yield dict(x=x, weight=w, bias=b, padding_mode="mirror")
    yield dict(x=x, weight=w, bias=b, activation="softmax")
    yield dict(x=x, weight=w, bias=b, algorithm="fft")
    yield dict(x=x.tolist(), weight=w, bias=b)
    yield dict(x=x[None], weight=w, bias=b)
    yield dict(x=np.ones((2, 3, 9, 9)), weight=w, bias=b, stride=3, dilation=2, algorithm="winograd")


@pytest.mark.parametrize("fault", list(out_faults()), ids=lambda fault: " ".join(list(fault)[2:]))
def test_out_is_untouched_when_the_arguments_are_at_fault(fault):
    out = testing.poisoned((2, 4, 2, 2) if fault.get("algorithm") == "winograd" else (2, 4, 3, 3), np.float64)
    before = out.tobytes()
    with pytest.raises((ValueError, TypeError, fc.UnsupportedError)):
        fc.conv2d(**fault, out=out)
    assert out.tobytes() == before


def test_out_that_is_at_fault_itself_is_untouched():
    x, w = np.ones((2, 3, 5, 5)), np.ones((4, 3, 3, 3))
    memory = np.zeros(2 * 4 * 9 * 8 + 1, np.uint8)
    overlapping = np.ones(2 * 3 * 25 + 72)
    for out, error in (
        (testing.poisoned((2, 4, 3, 3), np.float32), TypeError),
        (testing.poisoned((2, 4, 3, 3), np.float64).astype(">f8"), TypeError),
        (testing.poisoned((2, 4, 3, 4), np.float64)[..., :3], ValueError),
        (testing.poisoned((3, 3, 4, 2), np.float64).T, ValueError),
        (testing.lay_out(testing.poisoned((2, 4, 3, 3), np.float64), "readonly"), ValueError),
        (memory[1:].view(np.float64).reshape(2, 4, 3, 3), ValueError),
        (overlapping[140:140 + 72].reshape(2, 4, 3, 3), ValueError),
        ([[1.0]], TypeError),
    ):  # fmt: skip
        before = out.tobytes() if isinstance(out, np.ndarray) else None
        with pytest.raises(error):
            fc.conv2d(overlapping[:150].reshape(2, 3, 5, 5) if out is not None else x, w, out=out)
        assert before is None or out.tobytes() == before


# -- the verbose line, the import ----------------------------------------------------------------------------


def test_the_verbose_line():
    done = python(
        """
        import numpy as np
        import fastconv as fc
        x, w = np.ones((2, 3, 8, 9), np.float32), np.ones((4, 3, 3, 3), np.float32)
        y = fc.conv2d(x, w, padding=1, algorithm="im2col")
        fc.conv2d_backward(y, x, w, padding=1, output_mask=(True, True, False))
        fc.relu(y)
        fc.max_pool2d(y, 2)
        """,
        FASTCONV_VERBOSE="1",
        FASTCONV_NUM_THREADS="2",
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 5 and not done.stdout
    line = r"fastconv: (\S+), (\w+), (\w+), (\w+), 2 threads, \d+\.\d+ ms(, \d+\.\d GFLOP/s)?"
    fields = [re.fullmatch(line, given) for given in lines]
    assert all(fields), lines
    assert fields[0][1] == "conv2d:n2c3h8w9k4r3s3_st1p1d1g1_f32" and fields[0][3] == "im2col"
    assert all(field[4] == LEVELS[-1] for field in fields)
    assert all(field[5] for field in fields[:3])
    assert len({field[2] for field in fields[:3]}) == 3  # forward and two gradients
    assert not python("import fastconv as fc, numpy as np; fc.relu(np.ones(3))").stderr


@pytest.mark.parametrize("level", LEVELS)
def test_the_isa_can_be_capped(level):
    done = python("import fastconv as fc; print(fc.show_config('dicts')['isa_active'])", FASTCONV_ISA=level)
    assert done.stdout.strip() == level


def test_import_is_cheap():
    """Under 0.1 s of processor time over NumPy, the best of five."""
    code = """
    import time
    import numpy
    start = time.process_time()
    import fastconv
    print(time.process_time() - start)
    """
    assert min(float(python(code).stdout) for _ in range(5)) < 0.1
