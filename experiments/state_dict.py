"""Reads the tensors of a PyTorch file or of an `.npz` as NumPy arrays, without PyTorch.

A PyTorch file is a zip of raw storages and a pickle that says which tensors lie in them. A pickle
can call any function of this machine, so ours knows only the few names that tensors are written
with and refuses a file that asks for another; before it runs, the pickle's instructions are looked
through for those that tensors never need and that would take memory or time without end. What it
builds are descriptions (`_View`); arrays are made of them afterwards, within the bounds of their
storages. Nothing is unpacked beyond `MOST_BYTES`.

    <any name>/data.pkl      the pickle
              /data/<key>    one storage each
              /byteorder     "little" or "big"; absent in older files, which are little
"""

import collections
import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np

from ez_jax.config import BadInput
from ez_jax.storage.safe_files import check_regular

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
MOST_BYTES = 2**31  # of all that is unpacked; the official weights have 2**25
MOST_PICKLED = 2**24
# What a dictionary of tensors is pickled with: plain values and how they are put together. Only
# what stands in REPEATED may be used again: a few bytes that repeat tuples could make one that
# takes years to look up.
REPEATED = frozenset(
    """GLOBAL STACK_GLOBAL STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE
    PERSID BINPERSID REDUCE DICT EMPTY_DICT EMPTY_TUPLE""".split()  # noqa: SIM905
)
PLAIN = REPEATED.union(
    """PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT
    BINFLOAT BUILD SETITEM SETITEMS LIST EMPTY_LIST APPEND APPENDS TUPLE TUPLE1 TUPLE2
    TUPLE3""".split()  # noqa: SIM905
)
PUTS, GETS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
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
        check_regular(path, path.stat(), MOST_BYTES)
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
    _check_sizes(path, archive)
    names = archive.namelist()
    if names and all(name.endswith(".npy") for name in names):
        for name in names:
            with archive.open(name) as file:
                _check_npy(file, archive.getinfo(name).file_size)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise BadInput(f"{path} is neither a file of torch.save nor an .npz")
    folder = pickles[0].removesuffix("data.pkl")
    if archive.getinfo(pickles[0]).file_size > MOST_PICKLED:
        raise BadInput(f"{path} pickles {archive.getinfo(pickles[0]).file_size:,} bytes, too many")
    pickled = archive.read(pickles[0])
    _check_opcodes(path, pickled)
    views = _views(path, _TensorUnpickler(io.BytesIO(pickled), path).load())
    _check_total(path, sum(_size(view) for view in views.values()))
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
    storages = {
        storage: _elements(storage, archive.read(f"{folder}data/{storage.key}"), order.decode())
        for storage in {view.storage for view in views.values()}
    }
    return {name: _array(view, storages[view.storage]) for name, view in views.items()}


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse what would fill the memory; zipfile reads no more of an entry than is told here."""
    _check_total(path, sum(entry.file_size for entry in archive.infolist()))


def _check_total(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise BadInput(
            f"{path} would unpack to {size:,} bytes, more than the {MOST_BYTES:,} that are allowed"
        )


def _check_npy(file: IO[bytes], size: int) -> None:
    """Refuse an array that is larger than its entry: NumPy takes the memory before it reads."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    read = read or np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{shape} of {dtype} in {size} bytes")


def _check_opcodes(path: Path, pickled: bytes) -> None:
    """Refuse instructions that tensors are not written with, before any is followed."""
    memo: dict[int, str] = {}  # by index: what made the value
    before = ""
    for opcode, argument, position in pickletools.genops(pickled):
        name = opcode.name
        if name in PUTS:
            index = len(memo) if argument is None else int(argument)
            if not 0 <= index <= position:  # the memo is an array as long as its largest index
                raise ValueError(f"index {index} at {position}")
            memo[index] = before
        elif name in GETS:
            before = memo.get(int(argument), "nothing")
            if before not in REPEATED:
                raise ValueError(f"repeats what {before} made")
        elif name not in PLAIN:
            raise BadInput(f"{path} holds more than a state_dict ({name}); save only tensors")
        else:
            before = name


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
        texts = isinstance(kind, str) and isinstance(key, str)
        if tag != "storage" or not texts or kind not in STORAGES or type(size) is not int:
            raise pickle.UnpicklingError(f"no storage: {pid!r}")
        return _Storage(kind, key, size)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """A tensor; what follows the strides concerns gradients."""
    numbers = (offset, *shape, *strides)
    if type(storage) is not _Storage or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("no tensor")
    return _View(storage, offset, shape, strides)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    """A parameter is its tensor."""
    if type(data) is not _View:
        raise pickle.UnpicklingError("no parameter")
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


def _size(view: _View) -> int:
    """Bytes of a tensor."""
    return math.prod(view.shape) * np.dtype(STORAGES[view.storage.kind]).itemsize


def _array(view: _View, elements: np.ndarray) -> np.ndarray:
    """A copy of what a tensor sees of its storage."""
    _, offset, shape, strides = view
    if 0 in shape:
        return np.zeros(shape, elements.dtype)
    steps = zip(shape, strides, strict=True)
    if offset + sum((n - 1) * stride for n, stride in steps) >= elements.size:
        raise ValueError(f"outside its storage: {view}")
    in_bytes = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, in_bytes).copy()
