"""fastconv.io: round trips in both formats, PyTorch's files, and damage, after which nothing has changed."""

import json
import os
import struct
import zipfile

import numpy as np
import pytest

from fastconv import io, nn


def network(rng=0):
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, rng=rng), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3, rng=rng)
    )


def same(one, two):
    return list(one) == list(two) and all(np.array_equal(one[name], two[name]) for name in one)


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"model{request.param}"


@pytest.fixture
def safetensors(tmp_path):
    pytest.importorskip("safetensors")
    io.save(tmp_path / "model.safetensors", network())
    return tmp_path / "model.safetensors"


@pytest.fixture
def npz(tmp_path):
    io.save(tmp_path / "model.npz", network())
    return tmp_path / "model.npz"


def refused(path, message, model=None):
    """Loading `path` is a ValueError that names it and says `message`, and changes nothing."""
    model = network(rng=1) if model is None else model
    before = model.state_dict()
    with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
        io.load(path, model)
    assert same(model.state_dict(), before)


def test_round_trip(path):
    one, two = network(rng=0), network(rng=1)
    one[1].running_mean += 3
    io.save(str(path), one)
    assert io.load(str(path), two) is two
    assert same(one.state_dict(), two.state_dict())
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_the_umask_decides_who_may_read(path):
    before = os.umask(0o027)
    try:
        io.save(path, network())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_arrays_and_metadata(path):
    arrays = {
        "a.b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "empty": np.zeros((0, 3)),
        "scalar": np.array(5),
        "big": np.arange(3, dtype=">f8"),
        "file": np.array([True, False]),
        "half": np.ones(2, np.float16),
    }
    io.write(
        path, arrays, {"epoch": 3, "text": "\u00e4", "nothing": None, "large": 2**100, "inf": float("inf")}
    )
    back, metadata = io.read(path)
    assert set(back) == set(arrays) and metadata == {
        "epoch": 3,
        "text": "\u00e4",
        "nothing": None,
        "large": 2**100,
        "inf": float("inf"),
    }
    for name, array in arrays.items():
        assert np.array_equal(back[name], array) and back[name].dtype == array.dtype.newbyteorder("=")
    io.write(path, {}, None)
    assert io.read(path) == ({}, None)


def test_torch_reads_and_writes_the_same_file(safetensors):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3)
    )
    theirs.load_state_dict(load_file(safetensors))
    assert all(
        np.array_equal(value.numpy(), network().state_dict()[name])
        for name, value in theirs.state_dict().items()
    )
    with torch.no_grad():
        theirs[3].weight *= 2
    save_file(theirs.state_dict(), safetensors)
    model = io.load(safetensors, network(rng=1))
    assert np.array_equal(model[3].weight.data, 2 * network()[3].weight.data)
    save_file(
        {
            name: value.to(torch.bfloat16) if value.is_floating_point() else value
            for name, value in theirs.state_dict().items()
        },
        safetensors,
    )
    refused(safetensors, "not a sound safetensors file")  # NumPy has no bfloat16


def test_mismatch(path):
    io.save(path, nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    refused(path, "missing 3.weight, 3.bias")
    io.save(path, nn.Sequential(*network(), nn.Linear(3, 3)))
    refused(path, "unexpected 4.bias, 4.weight")
    io.save(path, nn.Sequential(nn.Conv2d(1, 2, 5), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)))
    refused(path, r"0.weight has shape \(2, 1, 5, 5\), the module \(2, 1, 3, 3\)")
    io.save(path, nn.Sequential(nn.Conv2d(1, 2, 3, rng=7)))
    model = io.load(path, network(), strict=False)
    assert np.array_equal(model[0].weight.data, nn.Conv2d(1, 2, 3, rng=7).weight.data)


def test_every_truncation_is_refused(path):
    io.save(path, nn.Linear(3, 2))
    raw = path.read_bytes()
    for size in [*range(0, len(raw) - 1, 7), len(raw) - 1]:
        path.write_bytes(raw[:size])
        refused(path, "not a sound", nn.Linear(3, 2))


def test_damaged_bytes_never_pass_unseen_in_npz(npz):
    """A zip archive carries checksums: a changed byte is an error or is of no consequence."""
    raw, expected = npz.read_bytes(), network().state_dict()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(raw), 200):
        npz.write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
        model = network(rng=1)
        before = model.state_dict()
        try:
            io.load(npz, model)
        except ValueError:
            assert same(model.state_dict(), before)
        else:
            assert same(model.state_dict(), expected)


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "raw",
    [
        b"not a file of any kind",
        struct.pack("<Q", 2**60) + b"{}",
        header({"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, b"\0" * 20),
        header({"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]}}, b"\0" * 20),
        header({"weight": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 24]}}, b"\0" * 24),
        header({"weight": {"dtype": "Q4", "shape": [2, 3], "data_offsets": [0, 24]}}, b"\0" * 24),
        header(["weight"]),
    ],
    ids=["text", "huge-header", "missing-bytes", "wrong-offsets", "overflow", "unknown-dtype", "list"],
)
def test_malformed_safetensors(safetensors, raw):
    safetensors.write_bytes(raw)
    refused(safetensors, "not a sound safetensors file")


def test_malformed_npz(npz):
    arrays = network().state_dict()

    def archive(**entries):
        with zipfile.ZipFile(npz, "w") as file:
            for name, raw in entries.items():
                file.writestr(name, raw)

    def npy(head, raw=b""):
        text = (repr(head) + "\n").encode()
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + raw

    np.savez(npz, weight=np.array([{"an": "object"}], dtype=object))
    refused(npz, "weight has dtype object .need real numbers")  # never unpickled
    np.savez(npz, weight=np.array(["text"]))
    refused(npz, "weight has dtype <U4")
    archive(**{"weight.npy": npy(dict(descr="<f4", fortran_order=False, shape=(10**9, 10**9)))})
    refused(npz, "weight has 0 bytes, shape .* needs 4" + "0" * 18)  # and no memory was asked for
    archive(**{"weight.npy": npy(dict(descr="<f4", fortran_order=False, shape=(-1,)), b"\0" * 4)})
    refused(npz, "not a sound .npz file")
    archive(**{"weight.npy": npy(dict(descr="<f4", fortran_order=False, shape=(2,)), b"\0" * 12)})
    refused(npz, "weight has 12 bytes")
    archive(**{"weight.npy": b"text"})
    refused(npz, "not a sound .npz file")
    archive(**{"weight.npy": b"\x93NUMPY\x09\x00" + b"\0" * 20})
    refused(npz, r"weight has .npy version \(9, 0\)")
    with pytest.warns(UserWarning, match="Duplicate name"):
        with zipfile.ZipFile(npz, "w") as file:
            for _ in range(2):
                file.writestr("weight.npy", npy(dict(descr="<f4", fortran_order=False, shape=()), b"\0" * 4))
    refused(npz, "weight is there twice")
    np.savez(npz, **arrays)  # NumPy's own files are fine
    assert same(io.load(npz, network(rng=1)).state_dict(), arrays)
    np.savez(npz, **arrays, __metadata__=np.frombuffer(b"{broken", np.uint8))
    refused(npz, "damaged metadata")
    np.savez(npz, **arrays, __metadata__=np.zeros(3))
    refused(npz, "damaged metadata .float64")


def test_paths(tmp_path):
    model = network()
    with pytest.raises(FileNotFoundError):
        io.load(tmp_path / "none.npz", model)
    for name in ("model.pkl", "model", "model.pt"):
        with pytest.raises(ValueError, match=r"need .safetensors or .npz"):
            io.save(tmp_path / name, model)
        with pytest.raises(ValueError, match=r"need .safetensors or .npz"):
            io.load(tmp_path / name, model)
    with pytest.raises(FileNotFoundError):
        io.save(tmp_path / "no" / "such" / "model.npz", model)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(path):
    io.save(path, network(rng=0))
    before = path.read_bytes()
    with pytest.raises(TypeError, match="bad has dtype <U4 .need real numbers"):
        io.write(path, {"good": np.ones(3), "bad": np.array(["text"])})
    with pytest.raises(ValueError, match="'__metadata__' cannot be an array's name"):
        io.write(path, {"__metadata__": np.ones(3)})
    with pytest.raises(TypeError):
        io.write(path, {"good": np.ones(3)}, {"not": object()})
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_leaves_the_old_file(path, monkeypatch):
    io.save(path, network(rng=0))
    before = path.read_bytes()

    def fail(source, destination):
        raise KeyboardInterrupt

    monkeypatch.setattr(io.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        io.save(path, network(rng=1))
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == [path.name]


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match="needs the package safetensors: pip install 'fastconv.train.'"):
        io.save(tmp_path / "model.safetensors", network())
    io.save(tmp_path / "model.npz", network())
    assert same(io.load(tmp_path / "model.npz", network(rng=1)).state_dict(), network().state_dict())
