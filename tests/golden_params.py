"""The golden files: numbers that the official code produced, and its sizes as settings of ours."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny

from experiments.import_official import convert, latent_side, settings
from ez_jax.agent.model import Model
from ez_jax.agent.networks.image import ImageNetwork
from ez_jax.config import Config

GOLDEN = Path(__file__).parent / "golden"
Arrays = dict[str, np.ndarray]


def under(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays below a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def load(name: str) -> Arrays:
    """Read one of the committed files."""
    return Golden().load(name)


class Golden:
    """A folder of golden files; `tests/golden/README.md` says what is in them."""

    def __init__(self, folder: Path = GOLDEN):
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.sizes: dict[str, Any] = self.meta["sizes"]

    @functools.cache  # noqa: B019, few objects per test run
    def load(self, name: str) -> Arrays:
        """Read one file."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def config(self, name: str, changes: dict[str, Any]) -> Config:
        """Settings of the sizes that the parameters of a file have."""
        of_network = settings(under(self.load(name), "param/"))
        network = {k: v for k, v in of_network.items() if k.startswith("network.")}
        return tiny.make_config({**network, **changes})

    def model(self, config: Config, horizon: Any) -> Model:
        """The published network, whatever the size of the images; the horizon may be traced."""
        hw, stack, actions = (self.sizes[name] for name in ("hw", "stack", "actions"))
        spec = tiny.make_spec(hw, hw, 3, stack=stack, actions=actions)
        return Model(
            network=ImageNetwork(config.network, spec),
            spec=spec,
            horizon=horizon,
            state_norm=config.network.state_norm,
        )

    def convert(self, name: str, prefix: str) -> dict[str, Any]:
        """The arrays of a file below a prefix, as variables of our network."""
        arrays = self.load(name)
        return convert(under(arrays, prefix), latent_side(under(arrays, "param/")))
