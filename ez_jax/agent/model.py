"""The learned model as pure functions of its variables: represent, dynamics, predict, project.

They can be used with mctx without anything else from this package. The value-prefix rule
(EfficientZero §4.2: the reward for the search, and when the LSTM is reset) is implemented only in
`Model.step`, which search and training unroll both call.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from ez_jax.agent import support
from ez_jax.agent.networks import make_network, normalise_state
from ez_jax.config import Config
from ez_jax.structs import Embedding, EnvSpec, Root, Variables
from ez_jax.system import devices

# Names of some layers that compute in float32: the last of a head, the first for vectors.
WHOLE_LAYERS = ("out", "linear", "linear1")


def scale_gradient(x: Array, scale: float) -> Array:
    """The identity, with its gradient multiplied by `scale`."""
    return x * scale + jax.lax.stop_gradient(x) * (1 - scale)


@dataclasses.dataclass(frozen=True)
class Model:
    """EfficientZero's model (§3.2 and §4.2): pure functions of its variables.

    Hashable; contains no arrays. Created by `make_model`. Every function takes a batch `B`. A root
    comes from stacked frames, and each imagined step from the previous embedding.

    Examples:
      >>> root = model.root(variables, frames)  # frames [B, F, *obs]
      >>> root.policy_logits.shape, root.value.shape
      ((2, 2), (2,))
      >>> following, reward = model.dynamics(variables, root.embedding, jnp.zeros(2, int))
      >>> reward.shape
      (2,)
    """

    network: nn.Module
    spec: EnvSpec
    horizon: int  # model steps per value prefix
    value_bin: float = 1.0  # width of a bin of the value, in transformed units
    prefix_bin: float = 1.0  # likewise of the value prefix
    state_norm: bool = False
    depths: int = 0  # with running statistics of their own; deeper nodes use the last; 0: shared

    def init(self, key: Array) -> Variables:
        """New variables, initialised as in PyTorch."""
        frames = jnp.zeros((1, self.spec.frame_stack, *self.spec.observation_shape))
        variables = dict(self.network.init(key, self._inputs(frames)))
        if not self.depths:
            return variables
        stats = jax.tree.map(
            lambda x: jnp.tile(x, (self.depths, *(1,) * x.ndim)), variables["batch_stats"]
        )
        return {**variables, "batch_stats": stats}

    def rounded(self, variables: Variables) -> Variables:
        """Weights in the layers' precision, which saves rounding them in every simulation.

        Layers that compute in float32 keep theirs. For acting only: training needs full precision.
        """
        dtype = getattr(self.network, "dtype", jnp.float32)
        if dtype == jnp.float32:
            return variables

        def as_taken(path: tuple[Any, ...], x: Array) -> Array:
            *_, layer, kind = (step.key for step in path)
            return x.astype(dtype) if kind == "kernel" and layer not in WHOLE_LAYERS else x

        params = jax.tree_util.tree_map_with_path(as_taken, variables["params"])
        return {**variables, "params": params}

    def represent(self, variables: Variables, frames: Shaped[Array, "B F *obs"]) -> Embedding:
        """Encode F stacked frames, oldest first; images as uint8 0..255, vectors as float32."""
        return self.encode(variables, frames)[0]

    def dynamics(
        self, variables: Variables, embedding: Embedding, action: Shaped[Array, " B *act"]
    ) -> tuple[Embedding, Float[Array, " B"]]:
        """Imagine one action; returns the next embedding and the reward f32[B]."""
        following, logits, _ = self.step(variables, embedding, action)
        return following, support.decode(logits, self.prefix_bin) - embedding.value_prefix

    def predict(
        self, variables: Variables, embedding: Embedding
    ) -> tuple[Float[Array, "B A"], Float[Array, " B"]]:
        """Policy logits and value (a scalar, float32) of an embedding.

        For continuous actions the logits [B, 2 D] are those of `continuous.moments`.
        """
        logits, _ = self.heads(variables, embedding.state, depth=embedding.depth)
        policy_logits, value_logits = logits
        return policy_logits, support.decode(value_logits, self.value_bin)

    def project(self, variables: Variables, embedding: Embedding) -> Float[Array, "B P"]:
        """SimSiam projection of an embedding (the side without a gradient)."""
        return self._call(variables, "project", embedding.state, depth=embedding.depth)[0]

    def root(self, variables: Variables, frames: Shaped[Array, "B F *obs"]) -> Root:
        """Represent and predict: the root of a search."""
        embedding = self.represent(variables, frames)
        policy_logits, value = self.predict(variables, embedding)
        return Root(embedding=embedding, policy_logits=policy_logits, value=value)

    # The following are also used in training. Each returns the variables after it, because
    # BatchNorm updates its statistics: those of the first sample's depth, which all share.

    def encode(
        self, variables: Variables, frames: Array, *, train: bool = False
    ) -> tuple[Embedding, Variables]:
        """As `represent`; frames may also be float images in 0..1."""
        batch, inputs = len(frames), self._inputs(frames)
        depth = jnp.zeros(batch, jnp.int32) if self.depths else None
        state, variables = self._call(variables, "represent", inputs, train=train, depth=depth)
        embedding = Embedding(
            state=normalise_state(state) if self.state_norm else state,
            carry=self.network.initial_carry(batch),
            value_prefix=jnp.zeros(batch),
            step=jnp.zeros(batch, jnp.int32),
            depth=depth,
        )
        return embedding, variables

    def step(
        self, variables: Variables, embedding: Embedding, action: Array, *, train: bool = False
    ) -> tuple[Embedding, Float[Array, "B S"], Variables]:
        """Imagine one action; also returns the logits of the value prefix after it.

        The prefix is the undiscounted sum of rewards since the last reset. After `horizon` steps
        carry, prefix and count are reset, so the next reward is counted from zero.
        """
        depth = None if embedding.depth is None else embedding.depth + 1
        call = functools.partial(self._call, train=train, depth=depth)
        raw, variables = call(variables, "transition", embedding.state, action)
        state = normalise_state(raw) if self.state_norm else raw
        if train:
            # Halved before all heads, not only before the next step: as in the official code.
            state = scale_gradient(state, 0.5)
        # The official reward head reads the state before it is scaled to 0..1.
        read = raw if self.state_norm else state
        (logits, carry), variables = call(variables, "value_prefix", read, embedding.carry)
        step = embedding.step + 1
        ends = step == self.horizon
        following = Embedding(
            state=state,
            carry=jax.tree.map(lambda x: jnp.where(ends[:, None], jnp.zeros_like(x), x), carry),
            value_prefix=jnp.where(ends, 0.0, support.decode(logits, self.prefix_bin)),
            step=jnp.where(ends, 0, step),
            depth=depth,
        )
        return following, logits, variables

    def heads(
        self, variables: Variables, state: Array, *, train: bool = False, depth: Array | None = None
    ) -> tuple[tuple[Float[Array, "B A"], Float[Array, "B S"]], Variables]:
        """Logits of policy and value, at the depth of the embedding."""
        return self._call(variables, "predict", state, train=train, depth=depth)

    def projections(
        self, variables: Variables, state: Array, *, predict: bool, depth: Array | None = None
    ) -> tuple[Float[Array, "B P"], Variables]:
        """SimSiam projection in training mode, through the predictor if asked."""
        call = functools.partial(self._call, train=True, depth=depth)
        projection, variables = call(variables, "project", state)
        if predict:
            projection, variables = call(variables, "predict_projection", projection)
        return projection, variables

    def _inputs(self, frames: Array) -> Array:
        """[B, F, *obs] as the input of the network: floats, frames stacked along the channels."""
        if frames.dtype == jnp.uint8:
            frames = frames.astype(jnp.float32) / 255
        stacked = jnp.moveaxis(frames, 1, -2)  # [B, H, W, F, C] or [B, F, D]
        return stacked.reshape(*stacked.shape[:-2], -1)

    def _call(
        self,
        variables: Variables,
        method: str,
        *inputs: Any,
        train: bool = False,
        depth: Array | None = None,
    ) -> tuple[Any, Variables]:
        used, index = variables, None
        if depth is not None:
            index = jnp.minimum(depth[0] if train else depth, self.depths - 1)
            used = {**variables, "batch_stats": _taken(variables["batch_stats"], index)}
        if not train:
            return self.network.apply(used, *inputs, train=False, method=method), variables
        output, updated = self.network.apply(
            used, *inputs, train=True, method=method, mutable=["batch_stats"]
        )
        if index is not None:
            updated = {"batch_stats": _put(variables["batch_stats"], updated["batch_stats"], index)}
        return output, {**variables, **updated}


def _taken(stats: dict, index: Int[Array, "*B"]) -> dict:
    """Running statistics of one depth, or of each sample's depth: f32[*B, c] each."""
    return jax.tree.map(lambda x: x[index], stats)


def _put(stats: dict, of_one: dict, index: Int[Array, ""]) -> dict:
    """Replace the running statistics of one depth."""
    return jax.tree.map(lambda x, one: x.at[index].set(one), stats, of_one)


def precision_of(config: Config) -> str:
    """The type in which networks compute, `float32` or `bfloat16`; parameters are float32."""
    if config.precision != "auto":
        return config.precision
    return "float32" if devices.platform() == "cpu" else "bfloat16"


def make_model(config: Config, spec: EnvSpec) -> Model:
    """Make the model for an environment, from `network`, `precision`, `value_prefix` and others.

    Args:
      config: of the run.
      spec: of the environment, such as `make_env(...).spec`.

    Raises:
      BadInput: `network.kind=image` for observations that are not images.

    Examples:
      >>> model = ez_jax.make_model(config, env.spec)
      >>> variables = jax.jit(model.init)(jax.random.key(0))
      >>> sorted(variables)
      ['batch_stats', 'params']
    """
    per_depth = config.network.norm == "batch_per_depth"
    return Model(
        network=make_network(config.network, spec, jnp.dtype(precision_of(config))),
        spec=spec,
        horizon=config.horizon,
        value_bin=config.network.value_bin,
        prefix_bin=config.network.prefix_bin,
        state_norm=config.network.state_norm,
        depths=config.learner.unroll_steps + 1 if per_depth else 0,
    )
