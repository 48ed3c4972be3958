"""What can happen to a file: by accident, and by somebody who knows what stands in it."""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml


def nested(levels: int) -> list:
    """A list in a list in a list ..."""
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


VALUES = [
    None, True, False, -1, 0, 1, 2, 1.5, -0.0, 1e-300, 1e308, -1e308, float("nan"), float("inf"),
    2**31 - 1, 2**31, 2**53, 2**63, 10**18, 10**400, "", "1", "nan", "x" * 1000, "\0", "a\nb",
    "\x1b[31m", "\u202e", "\ud800", "../../../etc/passwd", "/etc/passwd", "gs://bucket/file",
    "http://127.0.0.1:9/x", "file:///etc/passwd", "os:system", "..:x", "float32[4]", [], {}, [[]],
    [1, 2], {"a": 1}, {"": {}}, list(range(300)), nested(20), nested(150),
]  # fmt: skip
YAML_LINES = [
    "bomb: &a [x, x]", "other: *a", "<<: {seed: 3}", "<<: 3", "? [1]\n: 2", "%YAML 9.9", "---",
    "...", "seed: 0x" + "f" * 5000, "seed: " + "9" * 5000, "seed: " + "1:" * 4000 + "1",
    "seed: 2001-99-99", "seed: 2001-01-01", "seed: !!int x", "seed: !!float x", "seed: !!bool x",
    "seed: !!timestamp x", "seed: !!binary x", "seed: !!python/name:os.system", "seed: =",
    "game: !!python/object/apply:os.system ['true']", "\t", "- " * 500, "{" * 500, "[" * 5000,
    "a: " * 300, "'", "\x00", "\u2028", "seed: 1", "seed: .inf", "seed: -.nan", "1: 2", "null: 1",
    "a: |\n b\n  c", "learner: 3", "learner: {}", "x" * 70_000,
]  # fmt: skip


def nodes(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of everything in nested lists and dictionaries, the outermost first."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from nodes(inner, (*path, key))


def changed(value: Any, rng: Random) -> Any:
    """A copy of nested values with something in it replaced, removed, renamed or wrapped."""
    value = copy.deepcopy(value)
    paths = list(nodes(value))
    path = rng.choice(paths)
    if not path:
        return rng.choice([rng.choice(VALUES), [value], {"a": value}])
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    last, action = path[-1], rng.randrange(6)
    if action == 0:
        del parent[last]
    elif action == 1 and isinstance(parent, dict):
        parent[rng.choice(["", "x", "../x", "a.b", f"{last}x", "\n"])] = parent.pop(last)
    elif action == 2:
        parent[last] = rng.choice([[parent[last]], {"a": parent[last]}, str(parent[last])])
    elif action == 3 and isinstance(parent[last], int | float):
        parent[last] = rng.choice([parent[last] + 1, -parent[last], float(parent[last])])
    else:
        parent[last] = copy.deepcopy(rng.choice(VALUES))
    return value


def damaged_bytes(raw: bytes, rng: Random) -> bytes:
    """Cut, flipped, filled, repeated, or with something inserted."""
    at = rng.randrange(len(raw) + 1)
    end = min(len(raw), at + rng.randrange(1, 200))
    junk = rng.randbytes(rng.randrange(1, 50))
    flipped = bytearray(raw or b"x")
    for _ in range(rng.choice([1, 1, 3, 30])):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return rng.choice([
        raw[:at],
        raw[at:],
        bytes(flipped),
        raw + junk,
        raw[:at] + junk + raw[at:],
        raw[:at] + bytes(end - at) + raw[end:],
        raw[:at] + raw[end:],
        raw + raw,
        raw[:at] + raw[at:end] + raw[at:],
        b"",
    ])  # fmt: skip


def damaged_yaml(raw: bytes, rng: Random) -> bytes:
    """A configuration after one to three changes."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        action = rng.randrange(5)
        if action == 0:
            raw = damaged_bytes(raw, rng)
        elif action == 1:
            lines = raw.split(b"\n")
            line = rng.choice(YAML_LINES).encode(errors="surrogatepass")
            lines.insert(rng.randrange(len(lines) + 1), line)
            raw = b"\n".join(lines)
        else:
            try:
                value = changed(yaml.safe_load(raw), rng)
                raw = yaml.safe_dump(value, sort_keys=False).encode(errors="surrogatepass")
            except Exception:  # noqa: BLE001 what was done before may lead to any
                continue
    return raw


def damaged_json(raw: bytes, rng: Random) -> bytes:
    """An object after a change, or a text that is none."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return damaged_bytes(raw, rng)
    text = json.dumps(changed(value, rng))
    doubled = text.replace("{", '{"format": 1, ', 1)
    endless = text.replace(": ", ": " + "[" * 100_000, 1)
    return rng.choice([text] * 8 + [doubled, endless, "[" + text + "]"]).encode()


def damaged_lines(raw: bytes, rng: Random) -> bytes:
    """Lines after one to three changes."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        lines = raw.splitlines(keepends=True) or [b"\n"]
        at = rng.randrange(len(lines))
        action = rng.randrange(17)
        if action < 3:
            lines = [damaged_bytes(raw, rng)]
        elif action < 5:
            del lines[at]
        elif action < 7:
            lines.insert(at, rng.choice(lines))
        elif action < 9:
            rng.shuffle(lines)
        elif action < 15:
            lines[at] = damaged_json(lines[at], rng) + b"\n"
        elif action == 15:
            lines.append(b"\0" * rng.choice([1, 4096]) + rng.choice([b"", b"\n"]))
        else:
            lines.append(b"x" * 2**21)
        raw = b"".join(lines)
    return raw


def damage_folder(folder: Path, rng: Random) -> None:
    """Do something to a file or folder below `folder`; some of it only a stranger would do."""
    everything = sorted(p for p in folder.rglob("*") if not p.is_symlink())
    files = [path for path in everything if path.is_file() and path.stat().st_size < 2**30]
    if not files:
        return
    file, other = rng.choice(files), rng.choice(files)
    texts = [p for p in files if p.name in ("meta.json", "_METADATA", "_CHECKPOINT_METADATA")]
    action = rng.randrange(12)
    if action < 4:
        file.write_bytes(damaged_bytes(file.read_bytes(), rng))
    elif action < 7 and texts:
        file = rng.choice(texts)
        file.write_bytes(damaged_json(file.read_bytes(), rng))
    elif action == 7:
        one, two = file.read_bytes(), other.read_bytes()
        file.write_bytes(two)
        other.write_bytes(one)
    elif action == 8:
        file.rename(file.with_name(rng.choice(["x", "lock", f"{file.name}.part", "\udcff"])))
    elif action == 9:
        path = rng.choice(everything)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif action == 10:
        special(file, rng)
    else:
        path = rng.choice([p for p in everything if p.is_dir()] or [folder])
        path.rename(path.with_name(path.name + rng.choice(["x", ".part"])))


def special(file: Path, rng: Random) -> None:
    """Something else in the place of a file."""
    whole = file.read_bytes()
    file.unlink()
    kind = rng.randrange(5)
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.mkdir()
    elif kind == 2:
        file.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", file.name, "..", "nowhere"]))
    elif kind == 3:
        file.write_bytes(whole)
        os.truncate(file, 2**43)  # 8 TB that take no room
    else:
        outside = file.parents[-2] / "nowhere"
        file.symlink_to(outside)


def write_sums(checkpoint: Path) -> None:
    """SHA256SUMS of whatever lies in a checkpoint now, as a stranger would write it."""
    sums = checkpoint / "SHA256SUMS"
    if sums.is_dir() or sums.is_symlink():
        return
    files = [p for p in checkpoint.rglob("*") if p.is_file() and p != sums and not p.is_symlink()]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(checkpoint)}\n"
        for path in sorted(files)
        if path.stat().st_size < 2**30
    ]
    if not sums.is_fifo():
        sums.write_bytes(os.fsencode("".join(lines)))
