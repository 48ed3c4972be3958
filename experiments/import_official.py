"""Imports weights of the official EfficientZero (V1, images) into a run folder.

    python -m experiments.import_official model.p --game Breakout --out runs/Breakout/official
    python -m ez_jax.evaluate run=runs/Breakout/official

The file is a `state_dict` from `torch.save`, or an `.npz` with the same names. Sizes follow from
the arrays; everything else is `preset=efficientzero`. Only the layout changes: convolutions
[out, in, kh, kw] -> [kh, kw, in, out], linear maps [out, in] -> [in, out], and layers that read a
flattened image from (channel, h, w) to (h, w, channel). Running statistics are copied: both PyTorch
and our `BatchNorm` track the unbiased variance. The clocks of the new run are 0, because the file
does not say how long it was trained. The run can be loaded and evaluated, but has no replay, so
training cannot resume.
"""

import argparse
import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.state_dict import read_state_dict
from ez_jax.agent.learner import init_train_state
from ez_jax.agent.model import make_model
from ez_jax.agent.networks.image import downsampling
from ez_jax.config import BadInput, Config, paths, to_dict
from ez_jax.config.presets import make_config
from ez_jax.envs import make_env
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint import Checkpointer
from ez_jax.storage.checkpoint_items import describe
from ez_jax.structs import Clocks, EnvSpec, Variables
from ez_jax.system import exits

Arrays = Mapping[str, np.ndarray]

# The tensors of every kind of layer: official name -> our collection, and the name in it.
NORM = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
CONV = {"weight": ("params", "kernel")}
LINEAR = {**CONV, "bias": ("params", "bias")}
LSTM = {
    "weight_ih_l0": ("params", "input/kernel"),
    "weight_hh_l0": ("params", "hidden/kernel"),
    "bias_ih_l0": ("params", "input/bias"),
    "bias_hh_l0": ("params", "hidden/bias"),
}


def _below(official: str, ours: str, layer: dict[str, tuple[str, str]]) -> dict[str, Any]:
    return {f"{official}.{name}": (kind, f"{ours}/{leaf}") for name, (kind, leaf) in layer.items()}


BLOCK = {
    **_below("conv1", "conv1", CONV),
    **_below("bn1", "norm1", NORM),
    **_below("conv2", "conv2", CONV),
    **_below("bn2", "norm2", NORM),
}
STRIDED_BLOCK = {**BLOCK, **_below("downsample", "shortcut", CONV)}

# Official module -> ours, and the kind of layer.
STEM = "representation_network.downsample_net"
MODULES = {
    f"{STEM}.conv1": ("representation/stem/conv", CONV),
    f"{STEM}.bn1": ("representation/stem/norm", NORM),
    f"{STEM}.resblocks1.0": ("representation/stem/half_block", BLOCK),
    f"{STEM}.downsample_block": ("representation/stem/strided_block", STRIDED_BLOCK),
    f"{STEM}.resblocks2.0": ("representation/stem/quarter_block", BLOCK),
    f"{STEM}.resblocks3.0": ("representation/stem/eighth_block", BLOCK),
    "dynamics_network.conv": ("dynamics/conv", CONV),
    "dynamics_network.bn": ("dynamics/norm", NORM),
    "dynamics_network.conv1x1_reward": ("prefix_neck/reduce", LINEAR),
    "dynamics_network.bn_reward": ("prefix_neck/norm", NORM),
    "dynamics_network.lstm": ("prefix_head/lstm", LSTM),
    "dynamics_network.bn_value_prefix": ("prefix_head/norm", NORM),
    "dynamics_network.fc.0": ("prefix_head/head/hidden", LINEAR),
    "dynamics_network.fc.1": ("prefix_head/head/norm", NORM),
    "dynamics_network.fc.3": ("prefix_head/head/out", LINEAR),
    "prediction_network.conv1x1_value": ("value_neck/reduce", LINEAR),
    "prediction_network.bn_value": ("value_neck/norm", NORM),
    "prediction_network.fc_value.0": ("value_head/hidden", LINEAR),
    "prediction_network.fc_value.1": ("value_head/norm", NORM),
    "prediction_network.fc_value.3": ("value_head/out", LINEAR),
    "prediction_network.conv1x1_policy": ("policy_neck/reduce", LINEAR),
    "prediction_network.bn_policy": ("policy_neck/norm", NORM),
    "prediction_network.fc_policy.0": ("policy_head/hidden", LINEAR),
    "prediction_network.fc_policy.1": ("policy_head/norm", NORM),
    "prediction_network.fc_policy.3": ("policy_head/out", LINEAR),
    "projection.0": ("projector/linear0", LINEAR),
    "projection.1": ("projector/norm0", NORM),
    "projection.3": ("projector/linear1", LINEAR),
    "projection.4": ("projector/norm1", NORM),
    "projection.6": ("projector/linear2", LINEAR),
    "projection.7": ("projector/norm2", NORM),
    "projection_head.0": ("predictor/linear0", LINEAR),
    "projection_head.1": ("predictor/norm0", NORM),
    "projection_head.3": ("predictor/linear1", LINEAR),
}
TOWERS = {
    "representation_network.resblocks": "representation/tower",
    "dynamics_network.resblocks": "dynamics/tower",
    "prediction_network.resblocks": "prediction_tower",
}
# Never used by the official forward pass, counters, or a second name of the same tensor.
UNUSED = re.compile(
    r"dynamics_network\.reward_resblocks\.|representation_network\.(conv|bn)\."
    r"|representation_network\.downsample_net\.conv2\.|.*\.num_batches_tracked$"
)
READS_FLAT_IMAGE = (
    "dynamics_network.lstm.weight_ih_l0",
    "prediction_network.fc_value.0.weight",
    "prediction_network.fc_policy.0.weight",
    "projection.0.weight",
)


def tensor_names(blocks: int) -> dict[str, str]:
    """Our path (`params/...` or `batch_stats/...`) of every official tensor that is used.

    `blocks` is the number of residual blocks in each of the three towers.
    """
    modules = dict(MODULES)
    for official, ours in TOWERS.items():
        modules |= {f"{official}.{i}": (f"{ours}/block{i}", BLOCK) for i in range(blocks)}
    names = {}
    for official, (ours, layer) in modules.items():
        for name, (collection, path) in _below(official, ours, layer).items():
            names[name] = f"{collection}/{path}"
    return names


def convert(official: Arrays, latent: int | None = None) -> dict[str, Any]:
    """The variables {"params", "batch_stats"} of our `ImageNetwork`, float32.

    Anything with the layout of the official `state_dict` can be converted, such as gradients or
    some of the tensors. `latent` is the side of the latent image; None: from the value head.

    Raises:
      BadInput: a tensor that the official network does not have.
    """
    latent = latent or latent_side(official)
    names = tensor_names(count_blocks(official))
    variables: dict[str, Any] = {}
    for name, array in official.items():
        if UNUSED.match(name):
            continue
        if name not in names:
            raise BadInput(f"{name} is not a tensor of the official network (V1, images)")
        side = latent if name in READS_FLAT_IMAGE else 1
        *folders, leaf = names[name].split("/")
        node = variables
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = _to_our_layout(array, folders[-1], side).astype(np.float32)
    return variables


def _to_our_layout(array: np.ndarray, layer: str, side: int) -> np.ndarray:
    """One tensor; an impossible shape is not changed, so that `fit` refuses it."""
    if array.ndim == 4:
        kernel = array.transpose(2, 3, 1, 0)
        is_linear = layer == "reduce" and kernel.shape[:2] == (1, 1)  # over channels
        return kernel[0, 0] if is_linear else kernel
    if array.ndim == 2 and array.shape[1] % side**2 == 0:
        image = array.reshape(array.shape[0], -1, side, side)
        return image.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array


def fit(official: Arrays, template: Variables) -> dict[str, Any]:
    """`convert`, and check that the result matches `template` (arrays or shapes).

    Raises:
      BadInput: a tensor is missing, unknown or of another shape; names it.
    """
    names = tensor_names(count_blocks(official))
    for name in names:
        _shape(official, name)
    variables = convert(official)
    found, wanted = describe(variables), describe(template)
    for name, path in names.items():
        if found[path] != wanted.get(path):
            raise BadInput(
                f"{name} of shape {official[name].shape} does not fit the other tensors: "
                f"{path} is {wanted.get(path, 'absent')}"
            )
    return variables


def latent_side(official: Arrays) -> int:
    """The side of the latent image, from the input of the value head.

    Raises:
      BadInput: its input is not a square image.
    """
    name = "prediction_network.fc_value.0.weight"
    inputs = _shape(official, name, 2)[1]
    planes = _shape(official, "prediction_network.conv1x1_value.weight", 4)[0]
    side = math.isqrt(inputs // planes)
    if planes * side**2 != inputs:
        raise BadInput(f"{name} reads {inputs} numbers, not a square image of {planes} planes")
    return side


def count_blocks(official: Arrays) -> int:
    """Residual blocks of the representation's tower; the other towers have to have as many."""
    pattern = re.compile(r"representation_network\.resblocks\.(\d+)\.")
    matches = [pattern.match(name) for name in official]
    return len({match[1] for match in matches if match})


def _shape(official: Arrays, name: str, axes: int = 0) -> tuple[int, ...]:
    """The shape of a tensor, with the required number of axes."""
    if name not in official:
        raise BadInput(f"{name} is missing: this is not the whole official network (V1, images)")
    shape = official[name].shape
    if axes and (len(shape) != axes or 0 in shape):
        raise BadInput(f"{name} of shape {shape} has to have {axes} axes, none of them empty")
    return shape


def settings(official: Arrays) -> dict[str, Any]:
    """Settings of images and network from the arrays, by dotted key.

    Raises:
      BadInput: a tensor is missing or has the wrong number of axes.
    """
    planes = _shape(official, f"{STEM}.conv1.weight", 4)[1]
    is_gray = planes % 3 != 0  # 12 planes are 4 frames in colour
    bins = _shape(official, "prediction_network.fc_value.3.weight", 2)[0]
    return {
        "env.image_size": 16 * latent_side(official),
        "env.grayscale": is_gray,
        "env.frame_stack": planes if is_gray else planes // 3,
        "network.channels": _shape(official, "dynamics_network.conv.weight", 4)[0],
        "network.blocks": count_blocks(official),
        "network.head_channels": _shape(official, "prediction_network.conv1x1_value.weight", 4)[0],
        "network.head_hidden": _shape(official, "prediction_network.fc_value.0.weight", 2)[0],
        "network.lstm_width": _shape(official, "dynamics_network.lstm.weight_hh_l0", 2)[1],
        "network.projection": _shape(official, "projection.0.weight", 2)[0],
        "network.predictor_hidden": _shape(official, "projection_head.0.weight", 2)[0],
        "network.support": bins // 2,
    }


def check_game(config: Config, spec: EnvSpec, actions: int) -> None:
    """Check that the weights fit such a game.

    Raises:
      BadInput: the images or the number of actions differ.
    """
    size = config.env.image_size
    if downsampling(size, size) != 16:
        raise BadInput(
            f"the weights read images of {size}x{size} pixels, "
            "but the published stem is for images of 64 pixels or more"
        )
    wanted = (size, size, 1 if config.env.grayscale else 3)
    if spec.observation_shape != wanted:
        raise BadInput(
            f"the weights read frames of shape {wanted}, "
            f"but those of {spec.game} have {spec.observation_shape}; choose an Atari game"
        )
    if spec.num_actions != actions:
        raise BadInput(
            f"the weights are for {actions} actions, but {spec.game} has {spec.num_actions}; "
            "name the game that they were trained on"
        )


def write_run(config: Config, spec: EnvSpec, official: Arrays) -> int:
    """Write the run folder `config.run_dir`; returns the number of parameters.

    Raises:
      BadInput: the tensors do not fit, or the folder has a run or cannot be written.
    """
    folder = paths.expanded(config.run_dir)
    if (folder / run_folder.CONFIG_FILE).exists() or Checkpointer(folder).steps():
        raise BadInput(f"{folder} already has a run; choose another --out")
    model = make_model(config, spec)
    template = jax.eval_shape(lambda: init_train_state(config, model, jax.random.key(0)))
    variables = fit(official, template.variables)
    # Before its first update all of the optimiser is 0.
    train = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    train = train.replace(variables=variables, next_target=variables, target=variables)
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(0, {"train": train}, {"clocks": dataclasses.asdict(Clocks())})
    # Last, because it makes the folder a run folder.
    run_folder.write_config(folder, to_dict(config))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def main(words: Sequence[str]) -> int:
    """Read the weights and write the run folder; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="file of torch.save, or .npz")
    parser.add_argument("--game", required=True, help="the game they were trained on")
    parser.add_argument("--out", type=Path, required=True, help="the new run folder")
    chosen = parser.parse_args(words)
    official = read_state_dict(chosen.weights)
    actions = _shape(official, "prediction_network.fc_policy.3.weight", 2)[0]
    changes = {"name": "official", "run_dir": str(chosen.out), **settings(official)}
    config = make_config(chosen.game, "efficientzero", changes=changes)
    env = make_env(config.game, config.env, num_envs=1, seed=0, training=False)
    env.close()
    check_game(config, env.spec, actions)
    parameters = write_run(config, env.spec, official)
    sys.stdout.write(f"wrote {chosen.out}: {parameters:,} parameters for {config.game}\n")
    return exits.DONE


if __name__ == "__main__":
    sys.exit(exits.guarded(lambda: main(sys.argv[1:])))
