"""Replay rows in append-only files: round trips, going back, damage, files of strangers."""

import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ez_jax.agent.replay import ring
from ez_jax.storage import replay_journal
from ez_jax.storage.replay_journal import DamagedJournal, Journal, Rows
from ez_jax.training import saving

LIKE = [jax.ShapeDtypeStruct((2, 3), np.uint8), jax.ShapeDtypeStruct((2,), np.float32)]


def rows(first, count, seed=0):
    rng = np.random.default_rng([seed, first])
    return Rows(
        first,
        (rng.integers(0, 255, (count, 2, 3), np.uint8), rng.normal(size=(count, 2)).astype("f")),
    )


def read(folder, mark):
    opened = Journal(folder)
    opened.go_back(mark)
    return list(opened.read(LIKE))


def assert_same(found, expected):
    assert [record.first for record in found] == [record.first for record in expected]
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one.fields, other.fields, strict=True):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


def test_what_is_appended_comes_back_bit_by_bit_over_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(replay_journal, "FILE_BYTES", 100)
    written = Journal(tmp_path)
    records = [rows(0, 4), rows(4, 1), rows(5, 9)]
    written.append(records[:1])
    early = written.mark()
    written.append(records[1:])
    assert len(written.mark()) > 1
    assert written.end == 14
    assert_same(read(tmp_path, written.mark()), records)
    assert_same(read(tmp_path, early), records[:1])  # an older checkpoint still has its own
    nan = Rows(14, (rows(0, 1).fields[0], np.array([[np.nan, -0.0]], np.float32)))
    written.append([nan])
    assert_same(read(tmp_path, written.mark())[-1:], [nan])


def test_after_going_back_the_other_way_is_dropped_and_nothing_is_left_of_a_killed_save(tmp_path):
    first = Journal(tmp_path)
    first.append([rows(0, 3)])
    mark = first.mark()
    first.append([rows(3, 5)])
    (tmp_path / "000000000099.rows").write_bytes(b"a later file")
    again = Journal(tmp_path)
    again.go_back(mark)
    again.append([rows(3, 2, seed=1)])
    assert_same(read(tmp_path, again.mark()), [rows(0, 3), rows(3, 2, seed=1)])
    assert [path.name for path in tmp_path.iterdir()] == ["000000000000.rows"]
    assert again.mark()[0]["bytes"] == (tmp_path / "000000000000.rows").stat().st_size


def test_files_that_nobody_needs_are_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(replay_journal, "FILE_BYTES", 1)  # a file per record
    written = Journal(tmp_path)
    records = [rows(first, 2) for first in range(0, 10, 2)]
    written.append(records)
    assert [file["end"] for file in written.mark(oldest_row=5)] == [6, 8, 10]
    written.drop_before(5)
    assert_same(read(tmp_path, written.mark()), records[2:])
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "link"])
def test_damage_is_noticed(tmp_path, damage):
    written = Journal(tmp_path)
    written.append([rows(0, 3)])
    path = tmp_path / written.mark()[0]["name"]
    raw = path.read_bytes()
    path.unlink()
    if damage == "flip":
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    elif damage == "cut":
        path.write_bytes(raw[:-1])
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(raw)
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedJournal, match=r"000\.rows is damaged"):
        read(tmp_path, written.mark())


def stranger(tmp_path, raw, **changes):
    """A mark whose sums agree with whatever the file holds."""
    sha = replay_journal.hashlib.sha256(raw).hexdigest()
    (tmp_path / "000000000000.rows").write_bytes(raw)
    return [{"name": "000000000000.rows", "bytes": len(raw), "sha256": sha, "end": 3, **changes}]


def record(first=0, count=3, body=None):
    body = zlib.compress(bytes(count * 14)) if body is None else body
    return struct.pack("<8sqqq", b"ez_rows1", first, count, len(body)) + body


@pytest.mark.parametrize(
    "raw",
    [
        b"short",
        b"other_magic" + bytes(50),
        record(first=-1),
        record(count=0),
        record(count=10**12, body=b"x"),
        record(body=b"no deflate"),
        record(body=zlib.compress(bytes(10**7))),  # more than there are rows for
        record(body=zlib.compress(bytes(5))),
        record() + b"rest",
    ],
)
def test_a_file_of_a_stranger_is_refused(tmp_path, raw):
    with pytest.raises(DamagedJournal, match="its rows are not those"):
        read(tmp_path, stranger(tmp_path, raw))


@pytest.mark.parametrize(
    "changes",
    [{"name": "../../secret.rows"}, {"bytes": "7"}, {"bytes": 0}, {"end": None}, {"more": 1}],
)
def test_a_mark_of_a_stranger_is_refused(tmp_path, changes):
    with pytest.raises(DamagedJournal, match="is not its file"):
        read(tmp_path, stranger(tmp_path, record(), **changes))


@pytest.mark.parametrize("count", [5, 12, 31])
def test_a_ring_comes_back_from_the_rows_that_are_new_each_time(tmp_path, monkeypatch, count):
    monkeypatch.setattr(saving, "RECORD_BYTES", 100)  # several records
    size, rng = 12, np.random.default_rng(0)
    filled = {
        "observation": jnp.zeros((size, 2, 3), jnp.uint8),
        "reward": jnp.zeros((size, 2)),
        "discount": jnp.ones((size, 2)),
        "is_first": jnp.zeros((size, 2), bool),
        "action": jnp.zeros((size, 2), jnp.int32),
    }
    empty = jax.tree.map(jnp.copy, filled)
    written = Journal(tmp_path)
    for number in range(count):
        for name, field in filled.items():
            new = rng.integers(0, 2, field.shape[1:])
            filled[name] = field.at[number % size].set(new.astype(field.dtype))
        if number % 7 == 6 or number == count - 1:
            replay = ring.Replay(
                rows=ring.Row(**filled, policy=None, value=None, searched=None),
                priority=jnp.zeros((size, 2)),
                count=jnp.int32(number + 1),
            )
            unsaved, oldest = saving._unsaved_rows(replay, written.end)
            written.append(unsaved)
    found = Journal(tmp_path)
    found.go_back(written.mark(oldest))
    back = saving._read_journal(found, empty)
    for name, field in filled.items():
        np.testing.assert_array_equal(back[name], field, err_msg=name)
