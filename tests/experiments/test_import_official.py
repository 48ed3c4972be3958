"""The official code's weights: reading PyTorch files safely, fitting them, making a run of them."""

import math
import os
import pickle
import time
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from golden_params import GOLDEN, load, under

import ez_jax
from experiments import state_dict
from experiments.import_official import convert, fit, main, settings
from experiments.state_dict import LEGACY, read_state_dict
from ez_jax.agent.networks.image import ImageNetwork
from ez_jax.config import BadInput
from ez_jax.config.presets import make_config
from ez_jax.system import exits

TORCH_FILE = GOLDEN / "state_dict.p"  # its README says what it holds
F32 = np.float32
TENSORS = {
    "plain": F32([[1.5, -2.25, 3.0], [0.0, 1e-3, -1e6]]),
    "transposed_tail": F32([[4, 7], [5, 8], [6, 9]]) / 8,
    "every_second": F32([1, 3, 5, 7, 9, 11]) / 8,
    "count": np.int64(2**40 + 7),
    "half": np.float16([0.5, -1.75, 65504.0]),
    "brain": F32([1.0, -2.5, 226 / 128 * 2.0**127]),  # bfloat16 keeps eight bits of 3e38
    "flags": np.array([True, False, True]),
    "double": np.array([1 / 3]),
    "empty": np.zeros((0, 3), F32),
    "parameter": F32([7, 8]),
    "norm.weight": F32([1, 1]),
    "norm.bias": F32([0, 0]),
    "norm.running_mean": F32([0, 0]),
    "norm.running_var": F32([1, 1]),
    "norm.num_batches_tracked": np.int64(0),
}


def pickled_view(kind="FloatStorage", size=6, offset=0, shape=(2, 3), strides=(3, 1)) -> bytes:
    """A tensor as torch pickles it, in pickle's oldest protocol, which is text."""
    numbers = lambda values: "(" + "".join(f"I{n}\n" for n in values) + "t"  # noqa: E731
    storage = f"(Vstorage\nctorch\n{kind}\nV0\nVcpu\nI{size}\ntQ"
    view = f"({storage}I{offset}\n{numbers(shape)}{numbers(strides)}I00\nNt"
    return f"ctorch._utils\n_rebuild_tensor_v2\n{view}R".encode()


def pickled_dict(**values: bytes) -> bytes:
    """A dictionary of things that are pickled already."""
    return b"(d" + b"".join(b"V%b\n%bs" % (k.encode(), v) for k, v in values.items())


def torch_file(path: Path, pickled: bytes, storage: bytes = b"", order: str = "") -> Path:
    """Lay a file out as torch.save does."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickled + b".")
        archive.writestr("weights/data/0", storage)
        if order:
            archive.writestr("weights/byteorder", order)
    return path


# Reading.


def test_a_file_of_torch_is_read_exactly():
    found = read_state_dict(TORCH_FILE)
    assert list(found) == list(TENSORS)
    for name, expected in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape), name
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize(("order", "code"), [("little", "<f4"), ("big", ">f4"), ("", "<f4")])
def test_the_byte_order_is_that_of_the_file(tmp_path, order, code):
    raw = np.arange(6, dtype=code).tobytes()
    path = torch_file(tmp_path / "w.pt", pickled_dict(weight=pickled_view()), raw, order)
    found = read_state_dict(path)["weight"]
    assert found.dtype == F32
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_wrappings_of_checkpoints_and_data_parallel_are_taken_off(tmp_path, wrapper):
    column = pickled_view(shape=(2,), strides=(3,))
    inner = pickled_dict(**{"module.a": pickled_view(), "module.b": column})
    outer = pickled_dict(epoch=b"I3\n", **{wrapper: inner})
    found = read_state_dict(torch_file(tmp_path / "w.pt", outer, F32(range(6)).tobytes()))
    assert {name: array.tolist() for name, array in found.items()} == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "b": [0, 3],
    }


def test_an_npz_is_read_whatever_its_ending(tmp_path):
    with (tmp_path / "weights.p").open("wb") as file:
        np.savez(file, a=F32([1, 2]), b=np.int64(3))
    found = read_state_dict(tmp_path / "weights.p")
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1, 2], "b": 3}


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "argument"),
    [(os.system, "touch {}"), (exec, "open({!r}, 'w')"), (os.mkdir, "{}")],
)
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    tmp_path, function, argument, protocol
):
    trace = tmp_path / "trace"
    evil = pickle.dumps({"weight": Calls(function, argument.format(str(trace)))}, protocol)
    with pytest.raises(BadInput, match=f"{function.__name__}', which may run code"):
        read_state_dict(torch_file(tmp_path / "w.pt", evil.removesuffix(b".")))
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["torch\nload", "torch._utils\n_rebuild_qtensor", "collections\nOrderedDict.fromkeys"]
)
def test_other_names_of_the_same_modules_are_refused(tmp_path, name):
    with pytest.raises(BadInput, match="is refused: save nothing but a state_dict"):
        read_state_dict(torch_file(tmp_path / "w.pt", f"c{name}\n".encode()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 1},
        {"shape": (3, 3)},
        {"strides": (4, 1)},
        {"offset": -1},
        {"strides": (-3, 1)},
        {"shape": (2,)},
        {"size": 7},
        {"kind": "DoubleStorage"},
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, wrong):
    path = torch_file(tmp_path / "w.pt", pickled_dict(weight=pickled_view(**wrong)), bytes(24))
    with pytest.raises(BadInput, match=r"w\.pt is damaged or cut short"):
        read_state_dict(path)


def objects(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=np.array([{}], object))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b""), "is neither"),
        (lambda path: path.write_text("weights"), "is neither"),
        (
            lambda path: path.write_bytes(LEGACY),
            "old format of PyTorch; save it anew",
        ),
        (lambda path: path.write_bytes(TORCH_FILE.read_bytes()[:-300]), "damaged or cut short"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "damaged or cut short"),
        (objects, "damaged or cut short"),
        (lambda path: torch_file(path, b"I3\n"), "holds no state_dict"),
        (lambda path: torch_file(path, b"\xff"), "damaged or cut short"),
        (lambda path: torch_file(path, pickled_dict(epoch=b"I3\n")), "'epoch', which is no tensor"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "is neither"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, write, message):
    write(tmp_path / "weights.p")
    with pytest.raises(BadInput, match=message) as caught:
        read_state_dict(tmp_path / "weights.p")
    assert "\n" not in str(caught.value)


def deflated(path: Path) -> None:
    """A torch file of some kB that unpacks to 4 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", pickled_dict(weight=pickled_view()) + b".")
        archive.writestr("weights/data/0", bytes(2**22))


def tuples(times: int) -> bytes:
    """A dictionary whose key is a tuple of two equal tuples of two equal ones, ..."""
    pairs = b"".join(b"p%d\ng%d\n\x86" % (i, i) for i in range(times))
    return b"(d)" + pairs + b"Nsp99\n"


def npy(path: Path) -> None:
    """An array that claims 8 TB."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (deflated, "would unpack to 4,194,[0-9,]+ bytes, more than the 2,097,152"),
        (lambda path: torch_file(path, tuples(60)), "damaged or cut short"),
        (lambda path: torch_file(path, b"Nr\xff\xff\xff\x7f"), "damaged or cut short"),
        (lambda path: torch_file(path, b"(d2"), "holds more than a state_dict .DUP"),
        (npy, "damaged or cut short"),
        (
            lambda path: torch_file(
                path,
                pickled_dict(w=pickled_view(shape=(10**6, 10**6), strides=(0, 0))),
                bytes(24),
            ),
            "would unpack to 4,000,000,000,000 bytes",
        ),
        (
            lambda path: torch_file(
                path, pickled_dict(w=pickled_view(shape=(0, 10**30), strides=(0, 0))), bytes(24)
            ),
            "damaged or cut short",
        ),
        (lambda path: os.mkfifo(path), "not a regular file"),
    ],
)
def test_what_would_fill_the_memory_or_never_end_is_refused_at_once(
    tmp_path, monkeypatch, write, message
):
    monkeypatch.setattr(state_dict, "MOST_BYTES", 2**21)
    write(tmp_path / "weights.p")
    began = time.monotonic()
    with pytest.raises(BadInput, match=message):
        read_state_dict(tmp_path / "weights.p")
    assert time.monotonic() - began < 2


# Fitting.


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return under(load("network"), "param/")


@pytest.fixture(scope="module")
def template(golden):
    """Shapes of the network that the golden parameters belong to."""
    config = make_config("Breakout", changes=settings(golden))
    size = config.env.image_size
    network = ImageNetwork(config.network, tiny.make_spec(size, size, 3, stack=4, actions=4))
    images = jnp.zeros((1, size, size, 3 * config.env.frame_stack))
    return jax.eval_shape(network.init, jax.random.key(0), images)


def test_sizes_follow_from_the_arrays(golden):
    assert settings(golden) == {
        "env.image_size": 32,
        "env.grayscale": False,
        "env.frame_stack": 4,
        "network.channels": 8,
        "network.blocks": 1,
        "network.head_channels": 4,
        "network.head_hidden": 8,
        "network.lstm_width": 16,
        "network.projection": 32,
        "network.predictor_hidden": 16,
        "network.support": 10,
    }


def test_the_golden_parameters_fit_and_the_latent_side_is_found(golden, template):
    variables = fit(golden, template)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, template)
    jax.tree.map(np.testing.assert_array_equal, variables, convert(golden, 2))


VALUE = "prediction_network.fc_value"


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("projection.4.running_var", None, "is missing"),
        (f"{VALUE}.0.weight", None, "is missing"),
        ("representation_network.resblocks.0.bn2.bias", None, "is missing"),
        ("dynamics_network.extra.weight", np.zeros(3), "is not a tensor of the official network"),
        ("dynamics_network.resblocks.1.conv1.weight", np.zeros((8, 8, 3, 3)), "is not a tensor"),
        (f"{VALUE}.0.weight", np.zeros((8, 17)), "17 numbers, not a square image of 4 planes"),
        (f"{VALUE}.0.weight", np.zeros(8), "has to have 2 axes"),
        (f"{VALUE}.3.weight", np.zeros((20, 8)), "does not fit"),
        ("dynamics_network.fc.3.weight", np.zeros((11, 8)), "does not fit"),
        ("dynamics_network.conv.weight", np.zeros((8, 8, 3, 3)), "does not fit"),
        ("dynamics_network.conv1x1_reward.weight", np.zeros((4, 8, 3, 3)), "does not fit"),
        ("projection.0.weight", np.zeros((32, 31)), "does not fit"),
        ("projection.1.weight", np.zeros(()), "does not fit"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(golden, template, name, array, message):
    changed = {k: v for k, v in golden.items() if k != name}
    if array is not None:
        changed[name] = array
    with pytest.raises(ValueError, match=f"^{name} .*{message}"):
        fit(changed, template)


# The command.


@pytest.fixture(scope="module")
def official(golden) -> dict[str, np.ndarray]:
    """The golden parameters for images of 64 pixels, with two blocks in every tower."""
    arrays = dict(golden)
    for name, array in golden.items():
        if ".resblocks.0." in name and "downsample" not in name:
            arrays[name.replace(".resblocks.0.", ".resblocks.1.")] = array + F32(0.01)
        if name in ("projection.0.weight", "dynamics_network.lstm.weight_ih_l0") or name.endswith(
            ("fc_value.0.weight", "fc_policy.0.weight")
        ):
            arrays[name] = np.repeat(array, 4, axis=1)
    return arrays


@pytest.fixture
def weights(official, tmp_path) -> Path:
    np.savez(tmp_path / "weights.npz", **official)
    return tmp_path / "weights.npz"


def imported(weights: Path, game: str, out: Path) -> int:
    return exits.guarded(lambda: main([str(weights), "--game", game, "--out", str(out)]))


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiling")
def test_the_command_makes_a_run_that_can_be_loaded_and_plays(weights, official, tmp_path, capsys):
    folder = tmp_path / "runs" / "official"
    assert imported(weights, "breakout", folder) == exits.DONE
    agent = ez_jax.load(folder)
    count = sum(x.size for x in jax.tree.leaves(agent.variables["params"]))
    assert capsys.readouterr().out == f"wrote {folder}: {count:,} parameters for Breakout\n"
    assert (agent.spec.observation_shape, agent.config.network.blocks) == ((64, 64, 3), 2)
    jax.tree.map(np.testing.assert_array_equal, agent.variables, convert(official))
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert agent.act(frame, num_simulations=2) in range(4)
    assert math.isfinite(agent.found.value[0])
    # Nothing is overwritten.
    assert imported(weights, "Breakout", folder) == exits.BAD_INPUT
    assert "already has a run; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ("Pong", "the weights are for 4 actions, but Pong has 6"),
        ("CartPole", r"those of CartPole have (4,); choose an Atari game"),
        ("Brekout", "did you mean Breakout"),
    ],
)
def test_another_game_is_refused_in_one_sentence(weights, tmp_path, capsys, game, message):
    assert imported(weights, game, tmp_path / "run") == exits.BAD_INPUT
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_weights_for_images_too_small_for_the_stem_are_refused(golden, tmp_path, capsys):
    np.savez(tmp_path / "small.npz", **golden)
    assert imported(tmp_path / "small.npz", "Breakout", tmp_path / "run") == exits.BAD_INPUT
    assert "read images of 32x32 pixels" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
