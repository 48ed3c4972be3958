import concurrent.futures
import json
import os
import shutil
import threading

import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from ez_jax.config import BadInput, Config, to_dict
from ez_jax.config.errors import Fault
from ez_jax.storage import checkpoint_files, replay_journal
from ez_jax.storage.checkpoint import Checkpointer, DamagedCheckpoint
from ez_jax.storage.replay_journal import Rows
from ez_jax.storage.run_folder import (
    check_same_config,
    make_run_dir,
    provenance,
    read_config,
    write_config,
    write_scores,
)
from ez_jax.structs import Clocks


class Learner(flax.struct.PyTreeNode):
    params: dict
    opt_state: tuple
    nothing: None
    updates: jax.Array


def make_state(seed=0, width=5):
    key = jax.random.key(seed)
    params = {"dense": {"w": jax.random.normal(key, (4, width)), "b": jnp.arange(3.0)}}
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    sgd = optax.sgd(0.1, momentum=0.9)
    half = {"w": jnp.full((2, 3), 1 / 3, jnp.bfloat16)}
    updates = jnp.array(seed, jnp.int32)
    rest = {
        "frames": np.random.default_rng(seed).integers(0, 255, (50, 4, 8, 8, 3), np.uint8),
        "is_first": jnp.array([True, False]),
        "keys": (key, jax.random.split(key, 3), jax.random.key(seed, impl="rbg")),
        "clock": np.array(2**40 + seed, np.int64),
        "half": np.array([1.5, -2.25], ml_dtypes.bfloat16),
        "odd": [jnp.array([np.nan, -0.0, np.inf]), jnp.zeros((0, 3))],
    }
    opt_state = (chain.init(params), sgd.init(params), chain.init(half))
    return {"train": Learner(params, opt_state, None, updates), "rest": rest}


def bits(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert isinstance(a, np.ndarray) == isinstance(b, np.ndarray)
        assert bits(a) == bits(b)


def save_all(run_dir, *steps, keep=2):
    with Checkpointer(run_dir, keep=keep) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_state(step), {"agent_steps": step})


def test_a_round_trip_is_bit_exact_and_keeps_types(tmp_path):
    save_all(tmp_path, 7)
    restored = Checkpointer(tmp_path).restore(7, make_state(0))
    assert restored.meta == {"agent_steps": 7}
    assert_same(restored.state, make_state(7))


def test_a_template_of_shapes_is_enough(tmp_path):
    save_all(tmp_path, 7)
    shapes = jax.tree.map(
        lambda x: x if isinstance(x, np.ndarray) else jax.ShapeDtypeStruct(x.shape, x.dtype),
        make_state(),
    )
    assert_same(Checkpointer(tmp_path).restore(7, shapes).state, make_state(7))


def test_the_small_item_is_restored_without_the_others(tmp_path):
    save_all(tmp_path, 7)
    shutil.rmtree(tmp_path / "checkpoints" / "7" / "rest")
    train = {"train": make_state()["train"]}
    assert_same(Checkpointer(tmp_path).restore(7, train).state, {"train": make_state(7)["train"]})
    with pytest.raises(DamagedCheckpoint, match="rest"):
        Checkpointer(tmp_path).restore(7, make_state())


def test_donating_right_after_save_does_no_harm(tmp_path, monkeypatch):
    may_write = threading.Event()
    save_item = checkpoint_files.save_item
    monkeypatch.setattr(
        checkpoint_files, "save_item", lambda *a: may_write.wait(60) and save_item(*a)
    )
    bump = jax.jit(lambda x: x + 1, donate_argnums=0)
    array, host = jnp.zeros((256, 256)), np.zeros(10)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"train": {"a": array, "h": host}}, {})
        changed = bump(array)
        host += 1
        changed.block_until_ready()
        assert array.is_deleted()
        assert checkpointer.latest() is None
        may_write.set()
    template = {"train": {"a": jax.ShapeDtypeStruct((256, 256), jnp.float32), "h": np.zeros(10)}}
    restored = Checkpointer(tmp_path).restore(1, template).state["train"]
    assert not restored["a"].any()
    assert not restored["h"].any()
    assert bump(bump(restored["a"])).max() == 2  # what was restored can be donated


def test_the_newest_are_kept(tmp_path):
    save_all(tmp_path, 1, 2, 3, 10, keep=2)
    assert Checkpointer(tmp_path).steps() == [3, 10]
    assert Checkpointer(tmp_path).latest() == 10


def test_the_same_step_is_replaced_and_later_ones_are_given_up(tmp_path):
    save_all(tmp_path, 5, 20, keep=3)
    with Checkpointer(tmp_path, keep=3) as checkpointer:
        checkpointer.save(5, make_state(6), {"again": True})
        checkpointer.wait()
        assert checkpointer.steps() == [5]
        assert checkpointer.restore(5, make_state()).meta == {"again": True}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def flip(path, at=None):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 if at is None else at] ^= 1
    path.write_bytes(raw)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, truncate, os.unlink])
def test_whatever_file_is_damaged_the_one_before_is_used(tmp_path, damage):
    save_all(tmp_path, 1, 2)
    newest, template = tmp_path / "checkpoints" / "2", make_state()
    assert len(files(newest)) > 6
    for path in files(newest):
        whole, told = path.read_bytes(), []
        damage(path)
        restored = Checkpointer(tmp_path, warn=told.append).restore_newest(template)
        assert restored.step == 1, path
        assert len(told) == 1
        assert f"{newest} is damaged" in told[0]
        path.write_bytes(whole)
    assert Checkpointer(tmp_path).restore_newest(template).step == 2


def test_the_last_one_damaged_is_refused_and_none_at_all_is_a_new_run(tmp_path):
    assert Checkpointer(tmp_path).restore_newest(make_state()) is None
    save_all(tmp_path, 1)
    flip(tmp_path / "checkpoints" / "1" / "meta.json")
    with pytest.raises(BadInput, match="every checkpoint in"):
        Checkpointer(tmp_path, warn=str).restore_newest(make_state())


def test_going_on_after_a_damaged_one_keeps_the_sound_one_until_the_next(tmp_path):
    save_all(tmp_path, 1, 2)
    flip(tmp_path / "checkpoints" / "2" / "meta.json")
    with Checkpointer(tmp_path, keep=1, warn=str) as checkpointer:
        assert checkpointer.restore_newest(make_state()).step == 1
        checkpointer.save(2, make_state(2), {})
        checkpointer.wait()
        assert checkpointer.restore_newest(make_state()).step == 2


@pytest.mark.parametrize("suffix", ["part", "old"])
def test_leftovers_of_a_killed_save_do_no_harm(tmp_path, suffix):
    save_all(tmp_path, 1, 2)
    folder = tmp_path / "checkpoints"
    (folder / "2").rename(folder / f"2.{suffix}")
    assert Checkpointer(tmp_path).latest() == 1
    save_all(tmp_path, 3, keep=3)
    kept = {"part": {"1", "3"}, "old": {"1", "2", "3"}}[suffix]
    assert {path.name for path in folder.iterdir()} == kept


def test_a_run_that_goes_on_finds_what_a_killed_save_had_put_aside(tmp_path):
    save_all(tmp_path, 2)
    folder = tmp_path / "checkpoints"
    (folder / "2").rename(folder / "2.old")
    again = Checkpointer(tmp_path)
    again.tidy_up()
    assert again.latest() == 2


def make_rows(first, count=3):
    return [Rows(first, (np.arange(first, first + count, dtype=np.int32)[:, None],))]


def read_rows(checkpointer):
    return [
        n for rows in checkpointer.journal.read([np.zeros(1, np.int32)]) for n in rows.fields[0]
    ]


def test_a_checkpoint_adds_its_rows_to_those_that_are_there(tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in range(0, 12, 3):
            checkpointer.save(step, make_state(step), {}, make_rows(step), oldest_row=step // 2)
    again = Checkpointer(tmp_path)
    assert again.restore_newest(make_state(), rows=True).step == 9
    assert read_rows(again) == list(range(12))


@pytest.mark.parametrize("damaged", ["rows", "meta.json"])
def test_rows_of_a_damaged_checkpoint_go_with_it(tmp_path, damaged):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        checkpointer.save(3, make_state(3), {}, make_rows(0))
        checkpointer.save(6, make_state(6), {}, make_rows(3))
    (rows,) = (tmp_path / "checkpoints" / "rows").iterdir()
    # The last byte belongs to the newest checkpoint alone.
    flip(rows, -1) if damaged == "rows" else flip(tmp_path / "checkpoints" / "6" / damaged)
    told = []
    with Checkpointer(tmp_path, keep=2, warn=told.append) as again:
        assert again.restore_newest(make_state(), rows=True).step == 3
        assert "is damaged" in told[0]
        assert read_rows(again) == [0, 1, 2]
        again.save(5, make_state(5), {}, make_rows(3, count=2))
        again.wait()
        assert again.steps() == [3, 5], "the damaged one is given up, the sound one stays"
    last = Checkpointer(tmp_path)
    assert last.restore_newest(make_state(), rows=True).step == 5
    assert read_rows(last) == [0, 1, 2, 3, 4]


def test_the_best_weights_are_kept_beside_the_newest(tmp_path):
    with Checkpointer(tmp_path, keep=1, warn=str) as checkpointer:
        assert checkpointer.best() is None
        checkpointer.save_best(1, {"train": make_state(1)["train"]}, {"score": 7.5})
        for step in (1, 2, 3):
            checkpointer.save(step, make_state(step), {})
        checkpointer.wait()
        assert checkpointer.steps() == [3]
        assert checkpointer.best() == {"score": 7.5}
        best = checkpointer.restore(checkpoint_files.BEST, {"train": make_state()["train"]})
        assert best.step == 1
        assert_same(best.state["train"], make_state(1)["train"])
        flip(tmp_path / "checkpoints" / "best" / "meta.json")
        assert checkpointer.best() is None


def test_weights_on_their_way_to_the_disk_are_the_best_already(tmp_path, monkeypatch):
    write, may_write = Checkpointer._write, threading.Event()

    def write_late(*args):
        assert may_write.wait(30)
        write(*args)

    monkeypatch.setattr(Checkpointer, "_write", write_late)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save_best(1, {"train": make_state(1)["train"]}, {"score": 7.5})
        threading.Timer(0.2, may_write.set).start()
        assert checkpointer.best() == {"score": 7.5}


def test_arrays_of_another_configuration_are_refused(tmp_path):
    save_all(tmp_path, 1)
    with pytest.raises(BadInput, match=r"another configuration: train/\S*dense/w is float32\[4, 5"):
        Checkpointer(tmp_path).restore(1, make_state(width=6))
    template = make_state()
    template["rest"]["keys"] = template["rest"]["keys"][:2]
    with pytest.raises(BadInput, match=r"rest/keys/2 is key<rbg>\[\] there and absent here"):
        Checkpointer(tmp_path).restore(1, template)
    with pytest.raises(BadInput, match="other/x is absent there"):
        Checkpointer(tmp_path).restore(1, {"other": {"x": np.zeros(2)}})
    with pytest.raises(BadInput, match="there is no checkpoint"):
        Checkpointer(tmp_path).restore(9, template)


def test_another_format_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "FORMAT", 3)
    save_all(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(BadInput, match="format 3, and this version of ez_jax reads format 2"):
        Checkpointer(tmp_path).restore_newest(make_state())


def test_what_fails_in_the_background_is_raised_and_loses_nothing(tmp_path, monkeypatch):
    save_all(tmp_path, 1)

    def full(folder, tree):
        raise OSError(28, "No space left on device")

    checkpointer = Checkpointer(tmp_path)
    monkeypatch.setattr(checkpoint_files, "save_item", full)
    checkpointer.save(2, make_state(), {})
    with pytest.raises(OSError, match="No space"):
        checkpointer.wait()
    monkeypatch.undo()
    assert checkpointer.latest() == 1
    checkpointer.save(2, make_state(), {})
    checkpointer.close()
    assert Checkpointer(tmp_path).steps() == [2]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(Fault, match="make room and give the same command again"),
    ):
        checkpointer.save(1, make_state(), {})


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for run_dir in (tmp_path / "file", "/proc/ez_jax"):
        with pytest.raises(BadInput, match=f"{run_dir} cannot be written"):
            make_run_dir(run_dir)


def test_plain_values_belong_into_meta(tmp_path):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(TypeError, match="go into meta"):
        checkpointer.save(1, {"train": {"a": 3}}, {})


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path):
    save_all(tmp_path, 1)
    assert not any(path.read_bytes().startswith(b"\x80\x04") for path in files(tmp_path))


def test_a_configuration_comes_back(tmp_path):
    config = to_dict(Config(game="Catch"))
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config
    check_same_config(tmp_path, config)


def test_what_does_not_change_learning_may_change(tmp_path):
    write_config(tmp_path, to_dict(Config()))
    config = to_dict(Config(run_dir="elsewhere"))
    config["eval"]["every"] = config["log"]["every"] = config["checkpoint"]["keep"] = 3
    check_same_config(tmp_path, config)


def test_another_configuration_is_refused_by_its_keys(tmp_path):
    write_config(tmp_path, to_dict(Config()))
    config = to_dict(Config(seed=3))
    config["learner"]["batch_size"] = 64
    sentence = "learner.batch_size is 256 there and 64 here, seed is 0 there and 3 here; choose"
    with pytest.raises(BadInput, match=sentence):
        check_same_config(tmp_path, config)


@pytest.mark.parametrize("text", ["[1", "just words", "!!python/object/apply:os.getcwd []", "\0"])
def test_a_damaged_configuration_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadInput, match="is damaged"):
        read_config(tmp_path)


def test_no_run_folder(tmp_path):
    with pytest.raises(BadInput, match="is not a run folder"):
        read_config(tmp_path / "nowhere")


def test_scores_carry_clocks_and_provenance(tmp_path):
    write_scores(tmp_path, {"mean": 2.5, "returns": [2.0, 3.0]}, Clocks(agent_steps=9))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["mean"], scores["returns"], scores["agent_steps"]) == (2.5, [2.0, 3.0], 9)
    assert scores["versions"]["jax"] == jax.__version__
    assert scores["device"].startswith(jax.default_backend())
    assert provenance().keys() <= scores.keys()


ODD_NAMES = (
    *("a[1]b", "a]b", "**", "?", "back\\slash", "{process_index}", "%20", "lr=0.1", "a,b", " a b "),
    *("it's", 'a"b', "line\nbreak", "gs:", "file:", "naïve☃", "-o", "~", "${x}", "\udcff"),
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_may_have_any_name(tmp_path, name):
    save_all(tmp_path / name, 7)
    restored = Checkpointer(tmp_path / name).restore_newest(make_state(0))
    assert_same(restored.state, make_state(7))


def damaging(monkeypatch, damage):
    """From now on a disk that damages an item once it is written."""
    save_item = checkpoint_files.save_item

    def save(folder, tree):
        save_item(folder, tree)
        damage(folder)

    monkeypatch.setattr(checkpoint_files, "save_item", save)


def lose_index(folder):
    (folder / "manifest.ocdbt").unlink()


def flip_a_bit(folder):
    flip(max((folder / "d").iterdir(), key=lambda path: path.stat().st_size))


@pytest.mark.parametrize("damage", [lose_index, flip_a_bit])
def test_a_checkpoint_that_cannot_be_read_does_not_count(tmp_path, monkeypatch, damage):
    save_all(tmp_path, 3, keep=1)
    damaging(monkeypatch, damage)
    checkpointer = Checkpointer(tmp_path, keep=1)
    checkpointer.save(7, make_state(7), {"agent_steps": 7})
    with pytest.raises(Fault, match="checkpoint of 7 agent steps does not read back"):
        checkpointer.close()
    assert checkpointer.steps() == [3]
    assert_same(checkpointer.restore_newest(make_state()).state, make_state(3))


def test_best_weights_that_cannot_be_read_leave_those_before(tmp_path, monkeypatch):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save_best(3, make_state(3), {"score": 1.0})
    damaging(monkeypatch, flip_a_bit)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save_best(7, make_state(7), {"score": 2.0})
    with pytest.raises(Fault, match="does not read back"):
        checkpointer.close()
    assert checkpointer.best() == {"score": 1.0}


def test_what_went_wrong_in_a_save_is_told_without_waiting(tmp_path, monkeypatch):
    damaging(monkeypatch, flip_a_bit)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.check()  # there is none
    checkpointer.save(7, make_state(7), {"agent_steps": 7})
    concurrent.futures.wait([checkpointer._pending])
    with pytest.raises(Fault, match="7 agent steps"):
        checkpointer.check()
    checkpointer.close()


def test_rows_that_cannot_be_read_do_not_count(tmp_path, monkeypatch):
    rows = [Rows(0, (np.arange(6, dtype=np.float32).reshape(3, 2),))]
    monkeypatch.setattr(replay_journal, "sync", lambda path: path.is_file() and flip(path, -1))
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(7, make_state(7), {"agent_steps": 7}, rows)
    with pytest.raises(Fault, match=r"rows is damaged"):
        checkpointer.close()
    assert checkpointer.steps() == []
