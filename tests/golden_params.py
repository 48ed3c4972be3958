"""The official network's named arrays as variables of our `ImageNetwork`, and the golden files.

Works for anything that is laid out as the official `state_dict`: parameters, buffers, gradients.
Only the layout changes: convolutions [out, in, kh, kw] -> [kh, kw, in, out], linear maps
[out, in] -> [in, out], and what reads a flattened image from (channel, h, w) to (h, w, channel).
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"

# Official module -> ours; `#` stands for a block's number.
MODULES = {
    "representation_network.downsample_net.conv1": "representation/stem/conv",
    "representation_network.downsample_net.bn1": "representation/stem/norm",
    "representation_network.downsample_net.resblocks1.0": "representation/stem/half_block",
    "representation_network.downsample_net.downsample_block": "representation/stem/strided_block",
    "representation_network.downsample_net.resblocks2.0": "representation/stem/quarter_block",
    "representation_network.downsample_net.resblocks3.0": "representation/stem/eighth_block",
    "representation_network.resblocks.#": "representation/tower/block#",
    "dynamics_network.resblocks.#": "dynamics/tower/block#",
    "dynamics_network.conv1x1_reward": "prefix_neck/reduce",
    "dynamics_network.bn_reward": "prefix_neck/norm",
    "dynamics_network.lstm": "prefix_head/lstm",
    "dynamics_network.bn_value_prefix": "prefix_head/norm",
    "dynamics_network.fc.0": "prefix_head/head/hidden",
    "dynamics_network.fc.1": "prefix_head/head/norm",
    "dynamics_network.fc.3": "prefix_head/head/out",
    "dynamics_network.conv": "dynamics/conv",
    "dynamics_network.bn": "dynamics/norm",
    "prediction_network.resblocks.#": "prediction_tower/block#",
    "prediction_network.conv1x1_value": "value_neck/reduce",
    "prediction_network.bn_value": "value_neck/norm",
    "prediction_network.fc_value.0": "value_head/hidden",
    "prediction_network.fc_value.1": "value_head/norm",
    "prediction_network.fc_value.3": "value_head/out",
    "prediction_network.conv1x1_policy": "policy_neck/reduce",
    "prediction_network.bn_policy": "policy_neck/norm",
    "prediction_network.fc_policy.0": "policy_head/hidden",
    "prediction_network.fc_policy.1": "policy_head/norm",
    "prediction_network.fc_policy.3": "policy_head/out",
    "projection.0": "projector/linear0",
    "projection.1": "projector/norm0",
    "projection.3": "projector/linear1",
    "projection.4": "projector/norm1",
    "projection.6": "projector/linear2",
    "projection.7": "projector/norm2",
    "projection_head.0": "predictor/linear0",
    "projection_head.1": "predictor/norm0",
    "projection_head.3": "predictor/linear1",
}
# Inside a module: the layers of a residual block, the two maps of the LSTM.
LAYERS = {
    "conv1.weight": "conv1/weight",
    "conv2.weight": "conv2/weight",
    "downsample.weight": "shortcut/weight",
    "bn1.": "norm1/",
    "bn2.": "norm2/",
    "weight_ih_l0": "input/weight",
    "weight_hh_l0": "hidden/weight",
    "bias_ih_l0": "input/bias",
    "bias_hh_l0": "hidden/bias",
}
BUFFERS = {"running_mean": "mean", "running_var": "var"}
# Never used by the official forward pass, counters, or a second name of the same tensor.
UNUSED = re.compile(
    r"reward_resblocks|^representation_network\.(conv|bn)\.|num_batches_tracked"
    r"|downsample_net\.conv2\."
)
READS_FLAT_IMAGE = ("_head/hidden", "lstm/input", "projector/linear0")


def load(name: str) -> dict[str, np.ndarray]:
    """Read one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays below a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def convert(official: dict[str, np.ndarray], latent: int) -> dict[str, Any]:
    """Return {"params": ..., "batch_stats": ...}; `latent` is the side of a square latent image."""
    variables: dict[str, Any] = {}
    for name, array in official.items():
        if UNUSED.search(name):
            continue
        module, kind = _rename(name).rsplit("/", 1)
        if kind in BUFFERS:
            path, value = f"batch_stats/{module}/{BUFFERS[kind]}", array
        elif kind == "weight" and array.ndim == 1:
            path, value = f"params/{module}/scale", array
        elif kind == "weight":
            path, value = f"params/{module}/kernel", _kernel(module, array, latent)
        else:
            path, value = f"params/{module}/{kind}", array
        _insert(variables, path.split("/"), value)
    return variables


def _rename(name: str) -> str:
    """Return our path of an official name, ending in the official kind (weight, bias, ...)."""
    for official, ours in MODULES.items():
        match = re.match(re.escape(official).replace(r"\#", r"(\d+)") + r"\.", name)
        if match:
            rest = name[match.end() :]
            for old, new in LAYERS.items():
                rest = new + rest[len(old) :] if rest.startswith(old) else rest
            return f"{ours.replace('#', match[1] if match.groups() else '')}/{rest}"
    raise KeyError(name)


def _kernel(module: str, weight: np.ndarray, latent: int) -> np.ndarray:
    """Return a kernel in our layout."""
    if weight.ndim == 4:
        kernel = weight.transpose(2, 3, 1, 0)
        return kernel[0, 0] if module.endswith("reduce") else kernel  # 1x1: our Linear
    if module.endswith(READS_FLAT_IMAGE):
        outputs = weight.shape[0]
        image = weight.reshape(outputs, -1, latent, latent)
        return image.transpose(2, 3, 1, 0).reshape(-1, outputs)
    return weight.T


def _insert(tree: dict[str, Any], path: list[str], value: np.ndarray) -> None:
    """Put a leaf into a nested dictionary."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
