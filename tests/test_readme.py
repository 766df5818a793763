"""The README does what it says: its examples run, its files exist, CI runs its test command."""

import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
README = (CHECKOUT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.S | re.M)


def test_the_examples_run_from_top_to_bottom(tmp_path):
    program = "\n".join(blocks("python"))
    assert "conv2d_backward" in program and "fit(" in program
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (loss,) = re.findall(r"^loss (\d\.\d+)$", done.stdout, flags=re.M)
    assert float(loss) < 1  # chance is log(10) = 2.3
    (accuracy,) = re.findall(r"^(\d+\.\d) %$", done.stdout, flags=re.M)
    assert float(accuracy) > 80


def test_both_commands_are_there_and_ci_runs_the_second():
    commands = [block.strip() for block in blocks("sh")]
    assert len(commands) == 2 and all(command.startswith("python3 -m venv .venv && ") for command in commands)
    assert commands[0].endswith("fastconv train lenet5") and commands[1].endswith("pytest")
    script = (CHECKOUT / ".ci" / "run").read_text()
    (pattern,) = re.findall(r"grep -m 1 '(.*)' README\.md", script)
    first = next(line for line in README.splitlines() if re.search(pattern, line))
    assert first == commands[1]


def test_the_layout_names_files_that_exist():
    (layout,) = re.findall(r"^```\n(fastconv/\n.*?)^```", README, flags=re.S | re.M)
    named = 0
    for line in layout.splitlines():
        folder = CHECKOUT / "fastconv" if line.startswith("  ") else CHECKOUT
        for name in re.findall(r"[\w*/.]+(?:\.(?:py|pyx|pxi|h)\b|/(?=\s))", line):
            assert list(folder.glob(name)), name
            named += 1
    assert named > 20
    rooms = {path.name for path in (CHECKOUT / "fastconv").iterdir() if not path.name.startswith("__")}
    rooms = {name for name in rooms if name.endswith(".py") or "." not in name} - {
        "datasets",
        "native",
        "kernels",
    }
    missing = {name for name in rooms if name not in layout and name.removesuffix(".py") not in layout}
    assert missing <= {"_plots.py", "_version.py"}  # too small to mention
