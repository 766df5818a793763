"""Save and load models: `.safetensors` (by the package safetensors), `.npz` (by NumPy alone); never pickle.

The suffix of the path chooses the format. Files are written beside their destination and renamed onto it, so
that a reader never sees half of one. Reading checks everything before anything changes: a damaged or
mismatched file is a ValueError that says what is wrong.
"""

import contextlib
import json
import os
import secrets
import zipfile
import zlib
from pathlib import Path

import numpy as np

_METADATA = "__metadata__"  # the entry of an .npz that holds the text that safetensors keeps in its header


def save(path, model):
    """Write the parameters and buffers of `model`, an `nn.Module`, under their PyTorch names."""
    write(path, model.state_dict())


def load(path, model, strict=True):
    """Read what `save`, or PyTorch through safetensors, wrote, into `model`; returns `model`.

    Raises ValueError when the file is damaged, or names or shapes differ from the model's (with
    `strict=False` names may be missing or left over); the model is as it was then. FileNotFoundError when
    there is no file.
    """
    arrays, _ = read(path)
    try:
        model.load_state_dict(arrays, strict=strict)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model


def write(path, arrays, metadata=None):
    """Write `{name: array}` and a JSON-like `metadata` to `path`, at once or not at all."""
    path = Path(path)
    kind = _kind(path)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise TypeError(f"io.write: {name} has dtype {array.dtype} (need real numbers)")
        if name == _METADATA:
            raise ValueError(f"io.write: {name!r} cannot be an array's name")
    text = None if metadata is None else json.dumps(metadata)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if kind == "npz":
                _write_npz(file, arrays, text)
        if kind == "safetensors":
            _safetensors().save_file(arrays, temporary, None if text is None else {"fastconv": text})
            os.chmod(temporary, mode)  # safetensors may have put a file there that only its owner can read
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def read(path):
    """(`{name: array}`, metadata or None) of a file in either format. Raises as `load` does."""
    path = Path(path)
    kind = _kind(path)
    with open(path, "rb"):  # a missing or unreadable file is an OSError, not a damaged one
        pass
    arrays, text = _read_npz(path) if kind == "npz" else _read_safetensors(path)
    if text is None:
        return arrays, None
    try:
        return arrays, json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: damaged metadata ({error})") from error


def _kind(path):
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"io: {path} ends in {path.suffix!r} (need .safetensors or .npz)")
    return path.suffix[1:]


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "a .safetensors file needs the package safetensors: pip install 'fastconv[train]', "
            "or use a path that ends in .npz"
        ) from None
    return safetensors.numpy


def _read_safetensors(path):
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("fastconv")
            return {name: file.get_tensor(name) for name in file.keys()}, text
    except (
        SafetensorError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:  # the last three: a dtype NumPy lacks
        raise ValueError(f"{path}: not a sound safetensors file ({type(error).__name__}: {error})") from error


def _write_npz(file, arrays, text):
    if text is not None:
        arrays = {**arrays, _METADATA: np.frombuffer(text.encode(), np.uint8)}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _read_npz(path):
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"{name} is there twice")
                with archive.open(entry) as file:
                    arrays[name] = _read_npy(file, name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
    ) as error:
        raise ValueError(f"{path}: not a sound .npz file ({error})") from error
    text = arrays.pop(_METADATA, None)
    if text is not None and (text.dtype != np.uint8 or text.ndim != 1):
        raise ValueError(f"{path}: damaged metadata ({text.dtype} with {text.ndim} axes)")
    return arrays, None if text is None else text.tobytes()


def _read_npy(file, name):
    """One array; its header must agree with the bytes that follow before memory for it is asked for."""
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if header is None:
        raise ValueError(f"{name} has .npy version {version}")
    shape, fortran, dtype = header(file)
    if dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {dtype} (need real numbers)")
    raw = file.read()
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if len(raw) != size:
        raise ValueError(f"{name} has {len(raw)} bytes, shape {shape} of {dtype} needs {size}")
    array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")
