"""Append-only files of replay rows: each row is written once, and all checkpoints share it.

    <folder>/<number of its first row>.rows    records, one after another

A record is a sequence of rows: a header, and the bytes of every field, each row XORed with the one
before and compressed (deflate), so that the static part of an image costs almost nothing. A
checkpoint names the files with their lengths and SHA-256 (`Journal.mark`); what follows belongs to
a later one. Files with rows that are no longer needed are deleted.
"""

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ez_jax.config import BadInput

FILE_BYTES = 2**26  # a larger file gets no more records
MOST_ROWS = 256  # per record
_HEADER = struct.Struct("<8sqqq")  # magic, first row, rows, bytes that follow
_MAGIC = b"ez_rows1"
_LEVEL = 1  # of compression: higher levels save little and take several times as long


class DamagedJournal(BadInput):
    """The files were changed."""


class Rows(NamedTuple):
    """Consecutive rows."""

    first: int  # number of the first, counted from the start of the run
    fields: tuple[np.ndarray, ...]  # each [rows, ...]


class Journal:
    """The files of one folder. One process appends; any number may read up to a mark."""

    def __init__(self, folder: Path):
        """Does not change anything before the first append."""
        self._folder = folder
        self._files: list[dict[str, Any]] = []  # as in a mark
        self._hash = hashlib.sha256()  # of the last file, so far

    def mark(self, oldest_row: int = 0) -> list[dict[str, Any]]:
        """The current files with `oldest_row` and later rows.

        Name, length in bytes, SHA-256, and `end`, the number of the row after its last.
        """
        return [dict(file) for file in self._files if file["end"] > oldest_row]

    @property
    def end(self) -> int:
        """Number of the next row."""
        return self._files[-1]["end"] if self._files else 0

    def append(self, records: Sequence[Rows]) -> None:
        """Append rows and flush them to the disk.

        Raises:
          DamagedJournal: the file does not read back equal.
        """
        self._folder.mkdir(exist_ok=True)
        self._drop_unknown()
        touched = set()
        for record in records:
            if not self._files or self._files[-1]["bytes"] >= FILE_BYTES:
                name = f"{record.first:012}.rows"
                self._files.append({"name": name, "bytes": 0, "sha256": "", "end": 0})
                self._hash = hashlib.sha256()
            raw, last = _encode(record), self._files[-1]
            with (self._folder / last["name"]).open("ab") as file:
                file.write(raw)
            touched.add(self._folder / last["name"])
            self._hash.update(raw)
            last["bytes"] += len(raw)
            last["sha256"] = self._hash.hexdigest()
            last["end"] = record.first + len(record.fields[0])
        for path in (*touched, self._folder):
            sync(path)
        self._check([file for file in self._files if self._folder / file["name"] in touched])

    def _check(self, files: Sequence[dict[str, Any]]) -> None:
        """Check that files are unchanged; keeps the hash of the last."""
        for file in files:
            path = self._folder / file["name"]
            self._hash = _hash(path, file["bytes"])
            if self._hash.hexdigest() != file["sha256"]:
                raise DamagedJournal(f"{path} is damaged: its content was changed")

    def _drop_unknown(self) -> None:
        """Remove what follows the mark, from a killed save or an abandoned part of the run."""
        known = {file["name"]: file["bytes"] for file in self._files}
        for path in self._folder.glob("*.rows"):
            if path.name not in known:
                path.unlink()
            elif path.stat().st_size > known[path.name]:
                os.truncate(path, known[path.name])

    def drop_before(self, oldest_row: int) -> None:
        """Delete files whose rows are all older than `oldest_row`."""
        while self._files and self._files[0]["end"] <= oldest_row:
            (self._folder / self._files.pop(0)["name"]).unlink(missing_ok=True)

    def go_back(self, mark: Sequence[dict[str, Any]]) -> None:
        """Go back to `mark`: the next append drops what follows it.

        Raises:
          DamagedJournal: the files up to the mark were changed.
        """
        for file in mark:
            if not _is_file_of_mark(file):
                raise DamagedJournal(f"{self._folder} is damaged: {file!r:.100} is not its file")
        self._files = [dict(file) for file in mark]
        self._check(self._files)

    def read(self, like: Sequence[Any]) -> Iterator[Rows]:
        """All rows up to the mark of `go_back`, record by record.

        Args:
          like: shape and type of one row of every field.

        Raises:
          DamagedJournal: a record does not contain such rows.
        """
        for file in self._files:
            path = self._folder / file["name"]
            with path.open("rb") as stream:
                while stream.tell() < file["bytes"]:
                    yield _decode(path, stream.read(_HEADER.size), stream, like)


def _is_file_of_mark(file: Any) -> bool:
    """Whether it can come from `mark`; then its name does not leave the folder."""
    kinds = {"name": str, "bytes": int, "sha256": str, "end": int}
    return (
        isinstance(file, dict)
        and {key: type(value) for key, value in file.items()} == kinds
        and re.fullmatch(r"\d{12}\.rows", file["name"]) is not None
        and file["bytes"] > 0
    )


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(path: Path, length: int) -> Any:
    """SHA-256 of the first `length` bytes."""
    if path.is_symlink() or not path.is_file():
        raise DamagedJournal(f"{path} is damaged: it is missing")
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while length and (piece := file.read(min(length, 2**20))):
            sha.update(piece)
            length -= len(piece)
    if length:
        raise DamagedJournal(f"{path} is damaged: it was cut short")
    return sha


def _encode(record: Rows) -> bytes:
    deflate = zlib.compressobj(_LEVEL)
    pieces = []
    for field in record.fields:
        flat = np.ascontiguousarray(field).reshape(len(field), -1)
        raw = flat.view(np.uint8).reshape(len(field), -1)  # [rows, bytes of a row]
        raw = np.concatenate([raw[:1], raw[1:] ^ raw[:-1]])
        pieces.append(deflate.compress(raw.data))
    body = b"".join([*pieces, deflate.flush()])
    return _HEADER.pack(_MAGIC, record.first, len(record.fields[0]), len(body)) + body


def _decode(path: Path, header: bytes, stream: Any, like: Sequence[Any]) -> Rows:
    damaged = DamagedJournal(f"{path} is damaged: its rows are not those of this run")
    if len(header) < _HEADER.size:
        raise damaged
    magic, first, count, length = _HEADER.unpack(header)
    sizes = [int(np.prod(one.shape, dtype=int)) * one.dtype.itemsize for one in like]
    if magic != _MAGIC or first < 0 or not 0 < count <= MOST_ROWS or length <= 0:
        raise damaged
    inflate = zlib.decompressobj()
    try:
        # One byte more than allowed, so that an untrusted file cannot fill the memory.
        raw = inflate.decompress(stream.read(length), count * sum(sizes) + 1)
    except zlib.error:
        raise damaged from None
    if len(raw) != count * sum(sizes):
        raise damaged
    fields, start = [], 0
    for one, size in zip(like, sizes, strict=True):
        flat = np.frombuffer(raw, np.uint8, count * size, start).reshape(count, size)
        flat = np.bitwise_xor.accumulate(flat, axis=0)
        fields.append(flat.view(one.dtype).reshape(count, *one.shape))
        start += count * size
    return Rows(first, tuple(fields))
