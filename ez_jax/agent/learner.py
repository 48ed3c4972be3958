"""Learning: sample, reanalyse, compute targets; then update the network and the priorities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ez_jax.agent import diagnostics
from ez_jax.agent.losses import loss_weights, unroll_loss
from ez_jax.agent.model import Model
from ez_jax.agent.reanalyse import ReanalyseFn
from ez_jax.agent.replay import ring
from ez_jax.agent.replay.draw import keys_of, make_draw_group
from ez_jax.agent.schedules import learning_rate
from ez_jax.agent.targets import TargetsFn
from ez_jax.config import Config, LearnerConfig
from ez_jax.structs import (
    NEVER,
    Batch,
    LossOutput,
    Prepared,
    Replay,
    Sums,
    Targets,
    TrainState,
    Variables,
)
from ez_jax.system import devices

Metrics = dict[str, Array]  # f32[] of one update; `count` is 0 if it was skipped
LearnFn = Callable[..., tuple[TrainState, Replay, Sums]]


OPTIMIZERS: dict[str, Callable[[LearnerConfig], optax.GradientTransformation]] = {
    "sgd": lambda config: optax.trace(decay=config.momentum),
    "adam": lambda config: optax.scale_by_adam(),
}


def make_optimizer(config: LearnerConfig) -> optax.GradientTransformation:
    """Clip the global norm, add the L2 term to all parameters, then apply optimiser and schedule.

    The order is torch's: the L2 term is not clipped and passes through momentum.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.add_decayed_weights(config.weight_decay),
        OPTIMIZERS[config.optimizer](config),
        optax.scale_by_learning_rate(learning_rate(config)),
    )


def init_train_state(config: Config, model: Model, key: Array) -> TrainState:
    """The learner before its first update; both target copies equal the online network."""
    variables = model.init(key)
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731, donated buffers must differ
    return TrainState(
        variables=variables,
        next_target=copy(variables),
        target=copy(variables),
        opt_state=make_optimizer(config.learner).init(variables["params"]),
        updates=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def refresh_targets(train: TrainState, period: int) -> TrainState:
    """Every `period` updates, the target becomes the copy taken `period` updates earlier.

    The official trainer publishes weights that it saved one period before, so the target
    is one to two periods old.
    """

    def refreshed(train: TrainState) -> TrainState:
        return train.replace(target=train.next_target, next_target=train.variables)

    return jax.lax.cond(train.updates % period == 0, refreshed, lambda train: train, train)


class Proposal(NamedTuple):
    """An optimiser step, not yet checked for being finite."""

    output: LossOutput
    grads: Any  # like the parameters, not yet clipped
    variables: Variables  # after the step
    opt_state: Any  # after the step


def make_propose(
    config: Config, model: Model
) -> Callable[[TrainState, Array, Batch, Targets], Proposal]:
    """Gradients for given targets and the step they give; the key is consumed."""
    optimizer = make_optimizer(config.learner)
    differentiate = jax.grad(unroll_loss, has_aux=True)

    def propose(train: TrainState, key: Array, batch: Batch, targets: Targets) -> Proposal:
        params = train.variables["params"]
        stats = train.variables.get("batch_stats", {})
        grads, output = differentiate(
            params, stats, key, batch, targets, model=model, config=config
        )
        step, opt_state = optimizer.update(grads, train.opt_state, params)
        variables = {**train.variables, "params": optax.apply_updates(params, step)}
        if stats:
            variables["batch_stats"] = output.batch_stats
        return Proposal(output, grads, variables, opt_state)

    return propose


def make_update(
    config: Config, model: Model
) -> Callable[[TrainState, Array, Batch, Targets], tuple[TrainState, LossOutput, Metrics]]:
    """Make one optimiser step for given targets (EfficientZero, appendix A.1).

    A step that is not finite is skipped and counted. Every `learner.target_period` updates the
    target network is refreshed.

    Args:
      config: of the run; `learner` and `loss`.
      model: of the game.

    Returns:
      `(train, key, batch, targets) -> (train, LossOutput, metrics)`, metrics f32[] each; the key is
      consumed.

    Examples:
      >>> train = init_train_state(config, model, jax.random.key(0))
      >>> update = jax.jit(make_update(config, model))
      >>> train, output, metrics = update(train, jax.random.key(1), batch, targets)
      >>> int(train.updates), bool(metrics["loss/total"] > 0)
      (1, True)
    """
    propose = make_propose(config, model)

    def update(train: TrainState, key: Array, batch: Batch, targets: Targets):
        output, grads, *after = propose(train, key, batch, targets)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(grad_norm) & jnp.isfinite(output.loss)
        variables, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            tuple(after),
            (train.variables, train.opt_state),
        )
        train = train.replace(
            variables=variables,
            opt_state=opt_state,
            updates=train.updates + 1,
            skipped=train.skipped + ~finite,
            skipped_in_a_row=jnp.where(finite, 0, train.skipped_in_a_row + 1),
        )
        metrics = {
            "loss/total": output.loss,
            **{f"loss/{name}": term for name, term in output.terms.items()},
            "opt/grad_norm": grad_norm,
            "value/target_mean": jnp.mean(targets.value[:, 0]),
            "value/error": jnp.mean(output.priority),
            "replay/age": jnp.mean(batch.age.astype(jnp.float32)),
            "reanalyse/age": diagnostics.mean_where(
                targets.policy_mask * (batch.searched != NEVER),
                train.updates - 1 - batch.searched,
            ),
            **diagnostics.measure(output, targets, batch, config),
            "count": jnp.ones(()),
        }
        metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), metrics)  # skipped: no count
        return refresh_targets(train, config.learner.target_period), output, metrics

    return update


def no_metrics(config: Config) -> Sums:
    """Metrics before the first update; `count` is the number of updates in them."""
    names = [f"loss/{name}" for name in ("total", *loss_weights(config))]
    names += ["opt/grad_norm", "value/target_mean", "value/error", "replay/age"]
    names += ["reanalyse/searches", "reanalyse/age", *diagnostics.names(config), "count"]
    return Sums.of(names)


def make_prepare(
    config: Config, model: Model, reanalyse: ReanalyseFn, targets_for: TargetsFn
) -> Callable[..., tuple[Prepared, Replay, Sums]]:
    """Sample, reanalyse and compute targets for `reanalyse.updates_per_search` updates, jitted.

    `prepare(target, replay, metrics, key, updates, drawn)` returns the input of `learn`; replay and
    metrics are donated. All roots are searched together. The priorities are those before the first
    of the updates, or older if the samples were drawn ahead (`drawing_ahead.py`). The axis of
    samples is the first, so that every device has some of each update.
    """
    draw, group = make_draw_group(config, model), config.reanalyse.updates_per_search

    def prepare(
        target: Variables, replay: Replay, sums: Sums, key: Array, updates: Array,
        drawn: Batch | None = None,
    ):  # fmt: skip
        batch = draw(replay, key, updates) if drawn is None else drawn
        if batch.observation is None:
            batch = ring.with_frames(replay, batch)
        batch = devices.split(batch)
        done = reanalyse(target, keys_of(key, updates)[1], batch, replay, updates)
        targets = devices.spread(
            lambda target, updates, batch: targets_for(target, batch, updates),
            *(target, updates),
            rows=done.batch,
        )
        both = Prepared(batch=done.batch, targets=targets)
        prepared = jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), both)
        sums = sums.add({"reanalyse/searches": done.searches})
        return devices.split(prepared), ring.placed(done.replay), devices.whole(sums)

    return jax.jit(prepare, donate_argnums=(1, 2))


def make_learn(config: Config, model: Model) -> LearnFn:
    """Make one of the prepared updates and write its priorities, jitted.

    `learn(train, replay, metrics, key, prepared, i)` returns the first three after update i of the
    group; they are donated. Nothing waits for the result, so the caller can queue all updates that
    are due. (As a loop inside a program, the backward convolutions take four times the CPU time.)
    """
    update = make_update(config, model)

    def learn(train: TrainState, replay: Replay, sums: Sums, key: Array, group: Prepared, i: Array):
        chosen = devices.split(jax.tree.map(lambda x: x[:, i], group))
        loss_key = keys_of(key, train.updates)[2]
        train, output, metrics = update(train, loss_key, chosen.batch, chosen.targets)
        replay = ring.update_priorities(replay, chosen.batch.index, output.priority)
        return devices.whole(train), ring.placed(replay), devices.whole(sums.add(metrics))

    return jax.jit(learn, donate_argnums=(0, 1, 2))
