"""The command ``fastconv``: what it prints and where, and its exit status."""

import re
import signal
import subprocess
import sys

import pytest

import fastconv as fc
from fastconv import cli, testing


@pytest.fixture
def one_thread():
    """Idle OpenMP threads that wait actively take minutes off a machine that is busy with something else."""
    with fc.num_threads(1):
        yield


def run(*arguments, **options):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fastconv", *arguments], capture_output=True, text=True, timeout=300, **options
    )


def test_version_of_the_module_entry():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{fc.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "COMMAND"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        (("info", "--loud"), "--loud"),
        (("train", "transformer"), "invalid choice: 'transformer'"),
        (
            ("train", "lenet5", "--seed", "minus one"),
            "seed must be an integer of at least 0, got 'minus one'",
        ),
        (("train", "lenet5", "--epochs", "0"), "epochs must be an integer of at least 1, got '0'"),
    ],
)
def test_unknown_arguments_exit_with_2_and_say_so(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    printed = capsys.readouterr()
    assert exit.value.code == 2
    assert message in printed.err and printed.out == ""


def test_check_of_an_unknown_operation_exits_with_2_and_lists_the_known(capsys):
    assert cli.main(["check", "conv9d"]) == 2
    printed = capsys.readouterr()
    assert re.search(r"no case calls 'conv9d', need one of .*conv2d", printed.err) and printed.out == ""


def test_an_interrupt_exits_with_130(capsys, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_info", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_info_tells_levels_threads_and_versions(capsys):
    from fastconv._cpu import isa

    assert cli.main(["info"]) == 0
    facts = dict(re.findall(r"^(\w+) +(.*)$", capsys.readouterr().out, flags=re.M))
    assert facts["version"] == fc.__version__
    assert facts["isa_built"] == ", ".join(isa.built())
    assert facts["isa_usable"] == ", ".join(isa.levels())
    assert facts["threads"] == str(fc.get_num_threads())
    assert facts["gpu"] in ("yes", "no")
    assert {"scipy", "torch", "numba", "onnxruntime", "jax"} <= facts.keys()


def test_info_imports_no_heavy_package():
    code = "import sys; from fastconv import cli; cli.main(['info']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert not {"torch", "scipy", "jax", "matplotlib"} & set(done.stderr.split())


def test_a_reader_that_stops_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m fastconv info | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.startswith("version") and "Traceback" not in done.stderr


def test_check_prints_a_row_per_function_and_a_column_per_level_and_dtype(capsys, one_thread):
    from fastconv._cpu import isa

    assert cli.main(["check", "--quick", "linear"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (levels,) = [line for line in lines if "checks" in line and "baseline" in line]
    assert levels.split() == ["checks", *(level for level in isa.levels() for _ in range(2))]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.endswith(" ok")}
    assert set(rows) == {"linear", "linear_backward"}
    assert len(rows["linear"]) == 1 + 2 * len(isa.levels()) + 1
    assert all(0 <= float(share) <= 1 for share in rows["linear"][1:-1])
    assert lines[-1].endswith("checks, all right")


def test_check_covers_every_named_algorithm(capsys, one_thread):
    cli.main(["check", "--quick", "conv2d"])
    lines = capsys.readouterr().out.splitlines()
    for algorithm in fc.algorithms("conv2d"):
        assert any(line.startswith(f"conv2d, {algorithm} ") for line in lines)


def test_check_exits_with_1_when_a_kernel_is_wrong(capsys, monkeypatch, one_thread):
    right = fc.linear
    monkeypatch.setattr(fc, "linear", lambda x, weight, bias=None: right(x, weight, bias) * 1.01)
    assert cli.main(["check", "--quick", "linear"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^linear .* WRONG$", printed, flags=re.M)
    assert re.search(r"^linear: linear:.* exact$", printed, flags=re.M)
    assert printed.splitlines()[-1].endswith("1 of 2 rows are wrong")


def test_check_reports_a_kernel_that_raises(monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("out of order")

    monkeypatch.setattr(fc, "relu", broken)
    rows = {row.op: row for row in testing.check_backend(fc, ops=("relu",), every=8)}
    assert not rows["relu"].ok and "out of order" in rows["relu"].note
    assert not rows["gradient of relu"].ok and "out of order" in rows["gradient of relu"].note


# -- train ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two short trainings with one seed, in processes of their own."""
    folders = [tmp_path_factory.mktemp("run") / "new" / "lenet5" for _ in range(2)]
    return [(run("train", "lenet5", "--epochs", "10", "--seed", "3", "--out", str(f)), f) for f in folders]


def test_training_ends_with_the_held_out_accuracy(trained):
    done, folder = trained[0]
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"held-out accuracy: \d+\.\d\d %", done.stdout.splitlines()[-1])
    assert 80 < float(done.stdout.split()[-2]) <= 100  # ten epochs; chance is 10
    assert "accuracy" in done.stderr or "step" in done.stderr  # progress
    for name in ("learning_curve.png", "confusion_matrix.png", "samples.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"wrote {folder / name}" in done.stdout
    assert {path.stem for path in folder.iterdir()} >= {"checkpoint", "lenet5", "history"}


def test_the_same_seed_gives_the_same_bits(trained):
    (first, here), (second, there) = trained
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1]
    (model,) = here.glob("lenet5.*")
    assert model.read_bytes() == (there / model.name).read_bytes()


def test_training_resumes_from_its_checkpoint(trained):
    _, folder = trained[0]
    done = run(
        "train", "lenet5", "--epochs", "10", "--seed", "3", "--out", str(folder), "--resume", "--quiet"
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[-1] == trained[0][0].stdout.splitlines()[-1]


def test_a_folder_without_mnist_files_exits_with_2(tmp_path):
    done = run("train", "lenet5", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and str(tmp_path) in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_training_with_130(tmp_path):
    command = [sys.executable, "-u", "-m", "fastconv", "train", "lenet5", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = ""
    while "step" not in seen and "epoch" not in seen:  # training has begun
        seen += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors and "accuracy:" not in printed
