"""The house rules as tests: who imports whom, twin backends, the public contract, what importing costs."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv as fc
from fastconv import _cpu, _reference

PACKAGE = Path(fc.__file__).parent
TESTS = Path(__file__).parent

# -- import direction ----------------------------------------------------------------------------------------

# Room (a file or folder of the package) -> rooms it may import when it is loaded. Arrows point down only.
ARROWS = {
    "__init__": "functional _config _gradient _errors _version",
    "__main__": "cli",
    "cli": "_version",
    "bench": "__init__ _problem _errors _cpu testing",
    "recipes": "train models optim data io",
    "train": "nn optim data io _arithmetic",
    "models": "nn",
    "optim": "nn _arithmetic",
    "nn": "functional _arithmetic",
    "data": "_arithmetic",
    "io": "",
    "_plots": "",
    "testing": "_problem _errors",
    "reference": "functional _backends",
    "cuda": "functional _algorithms _arguments _config _errors",
    "functional": "_problem _backends _arguments _errors",
    "_backends": "_problem _config _arguments _errors",
    "_gradient": "_arguments",
    "_problem": "_arguments",
    "_cpu": "_algorithms _config _errors _kernels_baseline",
    "_algorithms": "_config _errors",
    "_config": "_arguments _version",
    "_arithmetic": "_arguments",
    "_arguments": "",
    "_reference": "",
    "_errors": "",
    "_version": "",
}
# Room -> rooms it may import when it is called. These may point up: backends load when arrays need them.
LATE = {
    "_backends": "_reference _cpu cuda",
    "_config": "_cpu cuda",  # what show_config() tells about them
    "nn": "cuda",  # layer.to("cuda")
    "_arithmetic": "cuda",
    "testing": "reference __init__",
    "cli": "__init__ _cpu recipes testing bench",
    "recipes": "_plots",
}


def is_room(name):
    return (
        (PACKAGE / name / "__init__.py").exists() or (PACKAGE / f"{name}.py").exists() or "_kernels" in name
    )


def imports_of(path):
    """(room, late) for every import of fastconv's own modules in one file."""
    package = ("fastconv", *path.relative_to(PACKAGE).parent.parts)
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    late = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "fastconv" else [module]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
        for name in names:
            if name.split(".")[0] == "fastconv":
                room = (name.split(".") + ["__init__"])[1]
                yield room if is_room(room) else "__init__", id(node) in late


def test_import_direction():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        room = parts[0]
        assert room in ARROWS, f"{path.name} is in no room: add it to ARROWS"
        for imported, late in imports_of(path):
            allowed = ARROWS[room] + (" " + LATE.get(room, "") if late else "")
            where = "inside a function" if late else "at its top"
            assert imported in (room, *allowed.split()), f"{'/'.join(parts)} imports {imported} {where}"


def test_arrows_make_no_circle():
    def below(room, path=()):
        assert room not in path, " -> ".join((*path, room))
        for other in ARROWS.get(room, "").split():
            below(other, (*path, room))

    for room in ARROWS:
        below(room)


def test_the_import_reader_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "nn").mkdir()
    for name in ("nn/__init__.py", "_config.py", "_cpu.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "nn" / "a.py").write_text(
        "import fastconv.nn\nfrom .. import _config\nfrom .b import c\nfrom .._config import d\n"
        "def f():\n    import fastconv as fc\n    importlib.import_module('fastconv._cpu.isa')\n"
    )
    early, late = ["_config", "_config", "nn", "nn"], ["__init__", "_cpu"]
    found = sorted((late, room) for room, late in imports_of(tmp_path / "nn" / "a.py"))
    assert found == [*((False, room) for room in early), *((True, room) for room in late)]


@pytest.mark.parametrize("room", ["_reference", "_errors", "_arguments"])
def test_foundations_need_only_numpy_and_python(room):
    for line in (PACKAGE / f"{room}.py").read_text().splitlines():
        found = re.match(r"(?:from|import) ([\w.]+)", line)
        if found:
            assert found[1].split(".")[0] in {"numpy", *sys.stdlib_module_names}


# -- twins ---------------------------------------------------------------------------------------------------


def backend_functions(module):
    """name -> signature of the functions of a backend."""
    names = getattr(module, "__all__", None) or [
        name
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and not name.startswith("_")
    ]
    return {name: inspect.signature(getattr(module, name)) for name in names}


def test_backends_are_twins():
    assert backend_functions(_cpu) == backend_functions(_reference)
    assert functions_written("cuda/_backend") == {
        name: str(signature) for name, signature in backend_functions(_cpu).items()
    }


def functions_written(folder):
    """name -> parameters of what the rooms of a backend define and its __init__ exports, read from the source.

    For a backend whose import needs a package that may be absent.
    """
    defined, exported = {}, []
    for path in (PACKAGE / folder).glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                defined[node.name] = f"({ast.unparse(node.args)})"
            elif isinstance(node, ast.Assign) and path.name == "__init__.py":
                exported = ast.literal_eval(node.value)
    return {name: defined[name] for name in exported}


def test_functional_calls_what_backends_have():
    called = set()
    for path in (PACKAGE / "functional").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                owner = call.func.value
                made_here = isinstance(owner, ast.Call) and getattr(owner.func, "id", "") == "backend_of"
                if made_here or getattr(owner, "id", "") == "backend":
                    called.add(call.func.attr)
    assert called == set(backend_functions(_reference))


@pytest.mark.parametrize("twin", ["reference", "cuda"])
def test_namespaces_have_the_public_operations(twin):
    namespace = getattr(fc, twin)
    for name in fc.functional.__all__:
        ours, theirs = getattr(fc, name), getattr(namespace, name)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__ and ours is not theirs
        assert theirs.__module__ == f"fastconv.{twin}"


# -- the contract --------------------------------------------------------------------------------------------

SIGNATURES = """
conv{n}d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
    activation=None, algorithm="auto", out=None)
conv{n}d_backward(dy, x, weight, stride=1, padding=0, dilation=1, groups=1, *, padding_mode="zeros",
    output_mask=(True, True, True), algorithm="auto")
conv_transpose{n}d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1)
conv_transpose{n}d_backward(dy, x, weight, stride=1, padding=0, groups=1, dilation=1, *,
    output_mask=(True, True, True))
im2col(x, kernel_size, dilation=1, padding=0, stride=1)
col2im(cols, output_size, kernel_size, dilation=1, padding=0, stride=1)
max_pool{n}d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False)
max_pool{n}d_backward(dy, indices, input_shape)
avg_pool{n}d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
    divisor_override=None, *, dilation=1)
avg_pool{n}d_backward(dy, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False,
    count_include_pad=True, divisor_override=None, *, dilation=1)
adaptive_avg_pool{n}d(x, output_size)
adaptive_avg_pool{n}d_backward(dy, input_shape)
adaptive_max_pool{n}d(x, output_size, return_indices=False)
adaptive_max_pool{n}d_backward(dy, indices, input_shape)
sigmoid(x)
sigmoid_backward(dy, y)
tanh(x)
tanh_backward(dy, y)
relu(x)
relu_backward(dy, y)
leaky_relu(x, negative_slope=0.01)
leaky_relu_backward(dy, y, negative_slope=0.01)
elu(x, alpha=1.0)
elu_backward(dy, y, alpha=1.0)
softmax(x, axis=-1)
softmax_backward(dy, y, axis=-1)
log_softmax(x, axis=-1)
log_softmax_backward(dy, y, axis=-1)
maxout(x, pieces, axis=1)
maxout_backward(dy, indices, pieces, axis=1)
softmax_cross_entropy(logits, target, *, weight=None, ignore_index=-100, reduction="mean",
    label_smoothing=0.0)
nll(log_probs, target, *, weight=None, ignore_index=-100, reduction="mean")
sigmoid_cross_entropy(logits, target, *, weight=None, pos_weight=None, reduction="mean")
squared_error(prediction, target, *, reduction="mean")
hinge(scores, target, *, margin=1.0, reduction="mean")
linear(x, weight, bias=None)
linear_backward(dy, x, weight)
batch_norm(x, weight, bias, running_mean, running_var, training=False, momentum=0.1, eps=1e-5)
batch_norm_backward(dy, x, weight, running_mean=None, running_var=None, training=True, eps=1e-5)
local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0)
local_response_norm_backward(dy, x, size, alpha, beta, k)
dropout(x, p=0.5, *, rng=None)
dropout_backward(dy, mask, p)
algorithms(op)
plan(op, *args, **kwargs)
"""

CONTROL = """
set_num_threads(n)
get_num_threads()
num_threads(n)
set_precision(mode)
get_precision()
precision(mode)
show_config(mode="stdout")
check_gradient(f, x, dy=None)
"""


def contract(text):
    """name -> signature, with {n} in 1, 2, 3."""
    lines = re.sub(r"\n\s+", " ", text.strip()).splitlines()
    for line in [line.replace("{n}", n) for line in lines for n in ("1", "2", "3")]:
        name, _, parameters = line.partition("(")
        scope = {}
        exec(f"def f({parameters}: ...", scope)
        yield name, inspect.signature(scope["f"])


def test_signatures_are_the_contract():
    operations, control = dict(contract(SIGNATURES)), dict(contract(CONTROL))
    assert set(operations) == set(fc.functional.__all__)
    assert {*operations, *control, "DeviceError", "UnsupportedError", "__version__"} == set(fc.__all__)
    for name, signature in {**operations, **control}.items():
        assert inspect.signature(getattr(fc, name)) == signature, name


def test_public_names_are_documented():
    for name in fc.__all__:
        if name != "__version__":
            document = getattr(fc, name).__doc__
            assert document and "{" not in document.split("``")[0], name
    for name in fc.functional.__all__:
        document = " ".join(getattr(fc, name).__doc__.split())
        assert "Raises" in document, name
    for n in "123":
        assert f"torch.nn.functional.conv{n}d" in getattr(fc, f"conv{n}d").__doc__


def test_namespaces_exist():
    for name in fc._NAMESPACES:
        assert getattr(fc, name).__name__ == f"fastconv.{name}"
        assert name in dir(fc)
    with pytest.raises(AttributeError, match="module 'fastconv' has no attribute 'nothing'"):
        fc.nothing  # noqa: B018


# -- what importing costs ------------------------------------------------------------------------------------


def fresh(code):
    """What a fresh interpreter prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.split()


def test_import_loads_only_the_functions():
    heavy = fresh(
        "import sys, numpy; before = set(sys.modules); import fastconv; "
        "print(*sorted({m for m in set(sys.modules) - before}))"
    )
    ours = {m.split(".")[1] for m in heavy if m.startswith("fastconv.")}
    assert ours <= {
        "functional", "_problem", "_backends", "_arguments", "_config", "_errors", "_gradient", "_version"
    }  # fmt: skip
    others = {m.split(".")[0] for m in heavy} - {"fastconv", "numpy", *sys.stdlib_module_names}
    assert not {m for m in others if not m.startswith("_")}, (
        others
    )  # no scipy, torch, numba, matplotlib, tqdm


def test_kernels_load_on_first_use():
    loaded = fresh(
        "import sys, numpy, fastconv as fc; print('fastconv._cpu' in sys.modules); "
        "fc.relu(numpy.ones(3)); print('fastconv._cpu' in sys.modules, 'fastconv.nn' in sys.modules)"
    )
    assert loaded == ["False", "True", "False"]


@pytest.mark.skipif(fc.cuda._may_have_device(), reason="there may be a CUDA device")
def test_asking_for_a_device_imports_numba_only_where_there_may_be_one():
    code = "import sys, fastconv as fc; print(fc.cuda.is_available(), 'numba' in sys.modules)"
    assert fresh(code) == ["False", "False"]


# -- how tests are written -----------------------------------------------------------------------------------


def test_no_tolerance_literals():
    """Integers match exactly and reals meet the one bound: no test states a number as its tolerance."""
    comparisons = {"isclose", "allclose", "assert_allclose", "approx", "assert_almost_equal"}
    tolerances = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol"}
    for path in TESTS.glob("*.py"):
        for call in [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]:
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in comparisons:
                given = [k for k in call.keywords if k.arg in tolerances]
                literal = [k for k in given if isinstance(k.value, ast.Constant) and k.value.value != 0]
                assert given and not literal, f"{path.name}:{call.lineno}: {ast.unparse(call)}"
