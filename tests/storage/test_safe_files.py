"""Run folders from strangers: what somebody could have made by hand, one by one."""

import json
import os
import sys
import time
from types import SimpleNamespace

import damage
import jax
import numpy as np
import pytest
import tensorstore

import ez_jax
from ez_jax.config import BadInput, Config, from_dict, to_dict, validate
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint import Checkpointer, DamagedCheckpoint, Restored
from ez_jax.storage.checkpoint_items import CHUNK_BYTES
from ez_jax.storage.metrics import read_metrics
from ez_jax.structs import Clocks

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.fixture(autouse=True)
def at_once():
    """Nothing here may take long."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 30


# config.yaml


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "aliases are not allowed"),
        ("seed: &a 1\n", "aliases are not allowed"),
        ("learner: &a\n  start: *a\n", "aliases are not allowed"),
        ("seed: !!int 3", "tags are not allowed"),
        ("game: !!python/object/apply:os.system ['true']", "tags are not allowed"),
        ("seed: 1\nseed: 2", "a key occurs twice"),
        ("a: " + "[" * 20 + "]" * 20, "nested too deeply"),
        ("[" * 60_000, "nested too deeply"),
        ("seed: " + "9" * 5_000, "it is not YAML"),
        ("seed: 2001-99-99", "it is not YAML"),
        ("x: " + "x" * 70_000, "70,003 bytes, at most 65,536"),
        ("- 1", "it contains no settings"),
    ],
)
def test_a_configuration_is_plain_and_small(tmp_path, text, reason):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadInput, match=f"config.yaml is damaged: .*{reason}"):
        run_folder.read_config(tmp_path)


@pytest.mark.parametrize("raw", [b"seed: 1\0", b"name: \xff\xfe", b"\xed\xa0\x80: 1"])
def test_bytes_that_are_no_text_are_refused(tmp_path, raw):
    (tmp_path / "config.yaml").write_bytes(raw)
    with pytest.raises(BadInput, match="it is not YAML"):
        run_folder.read_config(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay": {"capacity": 10**18}}, "replay.capacity is 1000000000000000000: it must be"),
        ({"replay": {"capacity": 10**400}}, "replay.capacity is a number of 1,329 bits: expected"),
        ({"discount": 10**400}, "discount is a number of 1,329 bits: expected a number"),
        ({"network": {"blocks": 10**9}}, "network.blocks is 1000000000: it must be at most 100"),
        ({"actor": {"num_envs": 10**9}}, "actor.num_envs is 1000000000: it must be at most"),
        ({"updates_per_step": 1e308}, "updates_per_step is 1e"),
        ({"learner": {"warmup_updates": 2**31}}, "it must be at most 2147483647"),
        ({"precision": "\x1b[31m\n"}, r"precision is '\\x1b\[31m\\n': choose"),
        ({"seed": damage.nested(900)}, r"seed is \[\[.* \.\.\.: expected a whole number"),
        ({"a\nb" * 30_000: 1}, r"unknown key 'a\\nba"),
    ],
)
def test_absurd_values_are_refused_in_one_line(values, message):
    with pytest.raises(BadInput, match=message) as caught:
        validate(from_dict(values))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2_100


def test_a_game_is_no_way_to_run_the_code_of_a_run_folder(tmp_path, monkeypatch):
    (tmp_path / "evil_game.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    run_folder.write_config(tmp_path, to_dict(Config(game="evil_game:Evil-v0")))
    with pytest.raises(BadInput, match=r"is code of the run folder .* only read as data"):
        ez_jax.load(tmp_path)
    assert "evil_game" not in sys.modules


@pytest.mark.parametrize("game", ["..:x", ".a:x", "a b:x", "os\n:x", "a\0:x", "\ud800:x"])
def test_a_game_names_a_module_or_nothing(tmp_path, game):
    run_folder.write_config(tmp_path, to_dict(Config(game=game)))
    with pytest.raises(BadInput, match="is not the name of a Python module"):
        ez_jax.load(tmp_path)


# The folder.


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "scores.json.part", "videos", "evaluations"]
)
def test_nothing_is_written_or_read_through_a_link(tmp_path, name):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.write_text("mine")
    folder.mkdir()
    run_folder.write_config(folder, to_dict(Config()))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    for opened in (run_folder.make_run_dir, run_folder.read_config):
        with pytest.raises(BadInput, match=f"{name} is a link that leads outside"):
            opened(folder)
    assert outside.read_text() == "mine"


def test_links_are_followed_within_the_folder_and_to_it(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    run_folder.write_config(folder, to_dict(Config()))
    (folder / "config.yaml").rename(folder / "first.yaml")
    (folder / "config.yaml").symlink_to("first.yaml")
    (tmp_path / "link").symlink_to(folder)
    assert run_folder.read_config(tmp_path / "link") == to_dict(Config())


def test_a_link_to_itself_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "config.yaml").symlink_to("config.yaml")
    with pytest.raises(BadInput, match=r"config\.yaml"):
        run_folder.read_config(tmp_path)
    (tmp_path / "config.yaml").unlink()
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(BadInput, match="is neither a file nor a folder"):
        run_folder.read_config(tmp_path)


# metrics.jsonl


@pytest.mark.parametrize(
    "line",
    [
        '{"agent_steps": 1}',
        '{"agent_steps": "1", "updates": 1}',
        '{"agent_steps": 1.0, "updates": 1}',
        '{"agent_steps": true, "updates": 1}',
        '{"agent_steps": -1, "updates": 1}',
        '{"agent_steps": 1, "agent_steps": 2, "updates": 1}',
        '{"agent_steps": 1, "updates": 1, "x": NaN}',
        '{"agent_steps": 1, "updates": 1, "x": 1e999}',
        '{"agent_steps": 1, "updates": 1, "x": "1"}',
        '{"agent_steps": 1, "updates": 1, "x": ' + "9" * 400 + "}",
        '{"agent_steps": 1, "updates": 1, "x": ' + "9" * 5_000 + "}",
        '{"agent_steps": 1, "updates": 1, "x": ' + "[" * 100_000 + "}",
        "[1]",
        "\0\0\0",
        " " * 2**21,
    ],
)
def test_a_foreign_line_of_metrics_is_refused_by_its_number(tmp_path, line):
    text = '{"agent_steps": 1, "updates": 1}\n' + line + "\n"
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(BadInput, match=r"line 2 of .*metrics.jsonl is damaged; delete the line"):
        read_metrics(tmp_path)


def test_a_file_without_end_is_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    os.truncate(tmp_path / "metrics.jsonl", 2**43)
    with pytest.raises(BadInput, match=r"metrics.jsonl is damaged: it has 8,796,093,022,208 bytes"):
        read_metrics(tmp_path)


# checkpoints/

STATE = {"train": {"w": np.arange(6.0).reshape(2, 3)}, "rest": {"key": jax.random.key(3)}}


@pytest.fixture
def checkpoint(tmp_path):
    """The folder of a sound checkpoint of step 5."""
    with Checkpointer(tmp_path) as checkpointer:
        clocks = {"agent_steps": 5, "env_frames": 5, "updates": 0, "seconds": 1.0}
        checkpointer.save(5, STATE, {"clocks": clocks})
    return tmp_path / "checkpoints" / "5"


def refused(checkpoint, message):
    """The sums are those of whatever lies there now; it is refused all the same."""
    damage.write_sums(checkpoint)
    with pytest.raises(DamagedCheckpoint, match=message) as caught:
        Checkpointer(checkpoint.parents[1]).restore(5, STATE)
    assert str(caught.value).isprintable()


def edit(path, change):
    """Change the object in a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(items=[]), "meta.json was not written by ez_jax"),
        (lambda meta: meta.update(items={"train": 3}), "meta.json was not written by ez_jax"),
        (lambda meta: meta.update(meta=None), "meta.json was not written by ez_jax"),
        (lambda meta: meta.update(format="1"), "meta.json was not written by ez_jax"),
        (lambda meta: meta.pop("format"), "meta.json was not written by ez_jax"),
        (lambda meta: meta.update(step=6), "it is that of step 6"),
        (lambda meta: meta.update(more=float("nan")), "meta.json is damaged: it is not JSON"),
    ],
)
def test_an_index_of_other_types_is_refused(checkpoint, change, message):
    edit(checkpoint / "meta.json", change)
    refused(checkpoint, message)


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"a": 1, "a": 2}', b"\xff", b"", b"1" * 5000])
def test_an_index_that_is_no_plain_json_is_refused(checkpoint, raw):
    (checkpoint / "meta.json").write_bytes(raw)
    refused(checkpoint, "meta.json is damaged: it is not JSON")


def test_an_absurd_shape_in_the_index_is_refused_before_any_array_is_read(checkpoint):
    edit(checkpoint / "meta.json", lambda meta: meta["items"]["train"].update(w="float64[9999999]"))
    damage.write_sums(checkpoint)
    with pytest.raises(BadInput, match=r"train/w is float64\[9999999\] there"):
        Checkpointer(checkpoint.parents[1]).restore(5, STATE)


@pytest.mark.parametrize(
    "clocks",
    [
        None,
        {"agent_steps": 5},
        {"agent_steps": "5", "env_frames": 5, "updates": 0, "seconds": 1.0},
        {"agent_steps": 6, "env_frames": 5, "updates": 0, "seconds": 1.0},
        {"agent_steps": 5, "env_frames": -5, "updates": 0, "seconds": 1.0},
        {"agent_steps": 5, "env_frames": 5, "updates": 10**18, "seconds": 1.0},
        {"agent_steps": 5, "env_frames": 5, "updates": True, "seconds": 1.0},
        {"agent_steps": 5, "env_frames": 5, "updates": 0, "seconds": float("nan")},
        {"agent_steps": 5, "env_frames": 5, "updates": 0, "seconds": -1},
        {"agent_steps": 5, "env_frames": 5, "updates": 0, "seconds": 1.0, "more": 1},
    ],
)
def test_clocks_are_counts_of_the_checkpoint_they_lie_in(clocks):
    with pytest.raises(BadInput, match="the clocks of checkpoint 5 are damaged"):
        _ = Restored(5, {}, {"clocks": clocks}).clocks


def test_sound_clocks_come_back():
    clocks = Clocks(5, 20, 3, 0.5)
    restored = Restored(
        5, {"train": SimpleNamespace(updates=np.int32(3))}, {"clocks": vars(clocks)}
    )
    assert restored.clocks == clocks
    restored.state["train"].updates += 1
    with pytest.raises(BadInput, match="the clocks of checkpoint 5 are damaged"):
        _ = restored.clocks


def test_checkpoints_without_their_settings_are_refused(checkpoint, tmp_path):
    with pytest.raises(BadInput, match=r"has checkpoints but no config\.yaml; put it back"):
        run_folder.is_new(tmp_path)
    assert run_folder.is_new(tmp_path / "checkpoints")


@pytest.mark.parametrize("name", ["05", "\u0665", "5.0", "-5", "5" * 30, "5 "])
def test_only_whole_numbers_are_checkpoints(checkpoint, name):
    checkpoint.rename(checkpoint.with_name(name))
    assert Checkpointer(checkpoint.parents[1]).steps() == []


@pytest.mark.parametrize("place", [".", "train", "train/d"])
def test_a_folder_that_is_a_link_is_refused(checkpoint, tmp_path, place):
    inside, outside = checkpoint / place, tmp_path / "outside"
    inside.rename(outside)
    inside.absolute().symlink_to(outside)
    with pytest.raises(DamagedCheckpoint, match="is a link"):
        Checkpointer(tmp_path).restore(5, STATE)


def test_a_pipe_and_a_file_without_end_are_refused(checkpoint):
    (checkpoint / "train" / "more").touch()
    os.truncate(checkpoint / "train" / "more", 2**43)
    with pytest.raises(DamagedCheckpoint, match="more is not a file, or too large"):
        Checkpointer(checkpoint.parents[1]).restore(5, STATE)
    (checkpoint / "train" / "more").unlink()
    os.mkfifo(checkpoint / "train" / "more")
    with pytest.raises(DamagedCheckpoint, match="more is not a file, or too large"):
        Checkpointer(checkpoint.parents[1]).restore(5, STATE)


# What orbax and tensorstore are told by files with sound sums.


def written_anew(checkpoint, name="w", **metadata):
    """Another array in the place of `w`, of which not one chunk is stored."""
    kvstore = {"driver": "ocdbt", "base": f"file://{checkpoint}/train/", "path": f"{name}/"}
    spec = {"driver": "zarr", "kvstore": kvstore, "metadata": {"dtype": "<f8", **metadata}}
    tensorstore.open(spec, create=True, delete_existing=True).result()


@pytest.mark.parametrize(
    "metadata",
    [
        {"shape": [10**12], "chunks": [1]},
        {"shape": [10**12], "chunks": [10**12]},
        {"shape": [2, 3], "chunks": [10**6, 10**6]},
        {"shape": [2, 3], "chunks": [2, CHUNK_BYTES]},
        {"shape": [3, 2], "chunks": [3, 2]},
        {"shape": [2, 3], "chunks": [2, 3], "dtype": "<f4"},
    ],
)
def test_arrays_larger_than_the_index_tells_are_refused_unread(checkpoint, metadata):
    written_anew(checkpoint, **metadata)
    refused(checkpoint, r"train is damaged: w is .* unlike in meta\.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(use_ocdbt=False),
        lambda told: told.update(use_zarr3=True),
        lambda told: told.update(tree_metadata={}),
        lambda told: told["tree_metadata"]["('w',)"]["key_metadata"][0].update(key="../../w"),
        lambda told: told["tree_metadata"]["('w',)"]["key_metadata"][0].update(key="/etc/passwd"),
        lambda told: told["tree_metadata"]["('w',)"]["key_metadata"][0].update(key="gs://x/y"),
        lambda told: told["tree_metadata"]["('w',)"]["value_metadata"].update(value_type="string"),
        lambda told: told["tree_metadata"]["('w',)"]["value_metadata"].update(
            value_type="jax.Array"
        ),
        lambda told: told["tree_metadata"].update(x=damage.nested(900)),
    ],
)
def test_other_names_kinds_and_layouts_are_refused(checkpoint, change):
    edit(checkpoint / "train" / "_METADATA", change)
    refused(checkpoint, "train is damaged")


def test_a_class_that_is_named_is_not_imported(checkpoint):
    path = checkpoint / "train" / "_CHECKPOINT_METADATA"
    edit(path, lambda told: told.update(item_handlers="antigravity.Handler"))
    damage.write_sums(checkpoint)
    restored = Checkpointer(checkpoint.parents[1]).restore(5, STATE)
    np.testing.assert_array_equal(restored.state["train"]["w"], STATE["train"]["w"])
    assert "antigravity" not in sys.modules


def test_names_that_lead_out_of_a_folder_are_no_keys_of_tensorstore(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    store = tensorstore.KvStore.open(f"file://{inside}/").result()
    for key in ("../secret", f"{tmp_path}/secret", "a/../../secret"):
        with pytest.raises(ValueError, match="Invalid key"):
            store.read(key).result()
