"""Reads the tensors of a PyTorch file or of an `.npz` as NumPy arrays, without PyTorch.

A PyTorch file is a zip of raw storages and a pickle that says which tensors lie in them. A pickle
can call any function of this machine, so ours knows only the few names that tensors are written
with and refuses a file that asks for another. What it builds are descriptions (`_View`); arrays are
made of them afterwards, within the bounds of their storages.

    <any name>/data.pkl      the pickle
              /data/<key>    one storage each
              /byteorder     "little" or "big"; absent in older files, which are little
"""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ez_jax.config import BadInput

# How the elements of a storage lie in the file.
STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# What torch.save wrote before PyTorch 1.6 begins with a pickled number.
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
WRAPPERS = ("state_dict", "model")  # of a training checkpoint
PARALLEL = "module."  # what DataParallel puts in front of every name


class _Storage(NamedTuple):
    """Where numbers lie in the file."""

    kind: str  # a key of STORAGES
    key: str
    size: int  # elements


class _View(NamedTuple):
    """A tensor; offset and strides count elements of the storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; bfloat16, which NumPy does not have, becomes float32.

    A dictionary below "state_dict" or "model" is taken out, and "module." cut off the names.

    Raises:
      BadInput: no such file, another format, a damaged one, or one that holds more than tensors.
    """
    path = Path(path)
    _check_format(path)
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _read_archive(path, archive)
    except BadInput:
        raise
    except Exception as error:  # a damaged pickle may lead to any
        raise BadInput(f"{path} is damaged or cut short and cannot be read") from error
    if all(name.startswith(PARALLEL) for name in arrays):
        arrays = {name.removeprefix(PARALLEL): array for name, array in arrays.items()}
    return arrays


def _check_format(path: Path) -> None:
    """Refuse what is no zip."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if start == LEGACY:
        raise BadInput(
            f"{path} is in the old format of PyTorch; save it anew with PyTorch 1.6 or later: "
            f"torch.save(torch.load('{path.name}', map_location='cpu'), 'new.pt')"
        )
    if not start.startswith(b"PK"):
        raise BadInput(f"{path} is neither a file of torch.save nor an .npz")


def _read_archive(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise BadInput(f"{path} is neither a file of torch.save nor an .npz")
    folder = pickles[0].removesuffix("data.pkl")
    with archive.open(pickles[0]) as file:
        views = _views(path, _TensorUnpickler(file, path).load())
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
    storages = {
        storage: _elements(storage, archive.read(f"{folder}data/{storage.key}"), order.decode())
        for storage in {view.storage for view in views.values()}
    }
    return {name: _array(view, storages[view.storage]) for name, view in views.items()}


class _TensorUnpickler(pickle.Unpickler):
    """Builds dictionaries and descriptions of tensors, and nothing else."""

    def __init__(self, file: BinaryIO, path: Path):
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle; no module is imported."""
        if module == "torch" and name in STORAGES:
            return name
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        asked = f"{module}.{name}"
        raise BadInput(
            f"{self._path} asks for {asked!r}, which may run code, and is refused: "
            "save nothing but a state_dict"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage, by what torch writes: ("storage", its class, key, device, elements)."""
        tag, kind, key, _, size = pid
        if tag != "storage" or kind not in STORAGES or not isinstance(key, str):
            raise pickle.UnpicklingError(f"no storage: {pid!r}")
        return _Storage(kind, key, size)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """A tensor; what follows the strides concerns gradients."""
    return _View(storage, offset, shape, strides)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    """A parameter is its tensor."""
    return data


KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _views(path: Path, root: Any) -> dict[str, _View]:
    """The tensors of what was pickled."""
    for wrapper in WRAPPERS:
        if isinstance(root, dict) and isinstance(root.get(wrapper), dict):
            root = root[wrapper]
    if not isinstance(root, dict):
        raise BadInput(f"{path} holds no state_dict, a dictionary of tensors by name")
    for name, view in root.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise BadInput(f"{path} holds {name!r}, which is no tensor; save only the state_dict")
    return dict(root)


def _elements(storage: _Storage, raw: bytes, order: str) -> np.ndarray:
    """All elements of a storage, in this machine's byte order."""
    there = np.dtype(STORAGES[storage.kind]).newbyteorder(order)
    elements = np.frombuffer(raw, there).astype(there.newbyteorder("="))
    if elements.size != storage.size:
        raise ValueError(f"storage {storage.key} holds {elements.size} and not {storage.size}")
    if storage.kind == "BFloat16Storage":
        elements = (elements.astype(np.uint32) << 16).view(np.float32)
    return elements


def _array(view: _View, elements: np.ndarray) -> np.ndarray:
    """A copy of what a tensor sees of its storage."""
    _, offset, shape, strides = view
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
        raise ValueError(f"no tensor: {view}")
    if 0 in shape:
        return np.zeros(shape, elements.dtype)
    steps = zip(shape, strides, strict=True)
    if offset + sum((n - 1) * stride for n, stride in steps) >= elements.size:
        raise ValueError(f"outside its storage: {view}")
    in_bytes = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, in_bytes).copy()
