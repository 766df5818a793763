"""Every main kernel compiled to machine code.

No spills, bounded registers, the instructions it was written for.
"""

import pytest
import sass

pytestmark = pytest.mark.skipif(sass.missing() is not None, reason=f"no CUDA toolchain: {sass.missing()}")

FILE = 65536  # registers of an SM


@pytest.mark.parametrize("title", sass.MAIN)
def test_machine_code(title):
    kernel, arch = sass.MAIN[title]
    f = sass.figures(kernel, arch)
    assert (f.stack, f.local, f.count("LDL"), f.count("STL")) == (0, 0, 0, 0)
    assert f.registers <= min(255, FILE // (kernel.threads * kernel.blocks) // 8 * 8)
    families = {family: rest for _, family, *rest in kernel.operations}
    if "wgmma" in families:
        # a serialised product would wait before every instruction: one arrive for all products of a k-tile
        products = 4 * (3 if families["wgmma"][2] == "rs" else 1)
        assert f.count("HGMMA") == products * f.count("WARPGROUP.ARRIVE") > 0
        assert f.count("UTMALDG") >= 2 and "IM2COL" in f.text
        assert f.count("USETMAXREG") == (2 if "registers" in families else 0)
    if "mma" in families:
        words = "= shared_load(" in kernel.source  # 32-bit operands that ldmatrix cannot turn
        products = 2 * families["mma"][0] * families["mma"][1]
        assert f.count("HMMA") == products * (3 if "accumulate" in families else 1)
        assert f.count("LDS" if words else "LDSM") and f.count("LDGSTS")
    if "outer_sum" in families:
        assert f.count("FFMA") >= 1024 and f.count("LDGSTS")
    if "row_sums" in families:
        assert f.count("FFMA") >= 32 * families["row_sums"][0] and f.count("LDGSTS") == 3


def test_a_window_is_loaded_once_for_four_positions():
    """Four of dy, and of x a row of six for every row of taps; a multiply-add for every tap and position."""
    f = sass.figures(*sass.MAIN["depthwise weight gradient, 3x3"])
    assert f.count("LDG") == 4 + 3 * 6 and f.count("FFMA") == 4 * 9


def test_wide_accesses():
    """An activation moves 16 bytes an instruction, and a convolution in multiply-adds reads shared memory
    so.
    """
    f = sass.figures(*sass.MAIN["relu"])
    assert f.text.count("LDG.E.128") == f.text.count("STG.E.128") == 4
    f = sass.figures(*sass.MAIN["ffma"])
    assert f.text.count("LDS.128") >= 64
