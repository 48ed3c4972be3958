"""What a run will need, said before it starts: parameters, memory, and how long it would take."""

import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ez_jax import memory
from ez_jax.arrays import tree_bytes
from ez_jax.config import Config
from ez_jax.learner import init_train_state
from ez_jax.model import Model
from ez_jax.progress import cpu_warning

# Share of the intermediate results that is in memory at once: XLA fuses most of the others away.
KEPT = 0.5


def _shapes(config: Config, model: Model) -> tuple[Any, Any, Any]:
    """Train state, one observation and its embedding, as shapes; nothing is computed."""
    train = jax.eval_shape(lambda: init_train_state(config, model, jax.random.key(0)))
    spec = model.spec
    frames = jax.ShapeDtypeStruct(
        (1, spec.frame_stack, *spec.observation_shape), spec.observation_dtype
    )
    return train, frames, jax.eval_shape(model.represent, train.variables, frames)


def memory_plan(config: Config, model: Model) -> memory.MemoryPlan:
    """The memory that the run will ask for."""
    train, _, embedding = _shapes(config, model)
    unroll_steps, td_steps = config.learner.unroll_steps, config.targets.td_steps
    together = config.reanalyse.updates_per_search * config.learner.batch_size
    roots = round(config.reanalyse.ratio * together) * (unroll_steps + 1)
    if config.reanalyse.mode == "none":
        roots = 0
    if config.reanalyse.mode == "buffer":
        roots = min(config.reanalyse.chunk, together * (unroll_steps + 1))
    sizes = memory.Sizes(
        capacity=config.replay.capacity,
        batch_size=config.learner.batch_size,
        frames=model.spec.frame_stack + unroll_steps + td_steps,
        unrolled=unroll_steps + 1,
        roots=max(config.actor.num_envs, roots),
        num_simulations=config.search.num_simulations,
    )
    return memory.plan_memory(
        model.spec,
        sizes,
        train_state=train,
        embedding=embedding,
        activation_bytes=round(KEPT * _unroll_bytes(config, model)),
    )


def _unroll_bytes(config: Config, model: Model) -> int:
    """All intermediate results of one unrolled sample that a gradient passes through."""
    train, frames, embedding = _shapes(config, model)
    action = jax.ShapeDtypeStruct((1,), jnp.int32)
    encode = memory.forward_bytes(model.represent, train.variables, frames)
    step = memory.forward_bytes(model.dynamics, train.variables, embedding, action)
    heads = memory.forward_bytes(model.predict, train.variables, embedding)
    return encode + heads + config.learner.unroll_steps * (step + heads)


def searched_share(config: Config) -> float:
    """Share of a batch's positions that are searched anew; with a buffer: once it is full."""
    if config.reanalyse.mode == "none":
        return 0.0
    if config.reanalyse.mode == "batch":
        return config.reanalyse.ratio
    positions = config.learner.batch_size * (config.learner.unroll_steps + 1)
    return min(1.0, config.replay.capacity / max(1, config.reanalyse.max_age) / positions)


def update_flops(config: Config, model: Model) -> float:
    """Floating-point operations of one update with its reanalysis, from the lowered programs."""
    train, frames, embedding = _shapes(config, model)
    action = jax.ShapeDtypeStruct((1,), jnp.int32)

    def imagine(variables, embedding, action):
        following, reward = model.dynamics(variables, embedding, action)
        return model.predict(variables, following), reward

    represent = _flops(model.represent, train.variables, frames)
    step = _flops(imagine, train.variables, embedding, action)
    project = _flops(model.project, train.variables, embedding)
    unroll_steps, positions = config.learner.unroll_steps, config.learner.unroll_steps + 1
    # Per sample: bootstrap values, searches of the share that is made anew, and the update, whose
    # backward pass costs two forward passes; consistency encodes and projects without one.
    search = represent + config.search.num_simulations * step
    sample = positions * (represent + searched_share(config) * search)
    sample += 3 * represent + 3 * unroll_steps * step
    if config.consistency:
        sample += unroll_steps * (represent + 5 * project)
    return config.learner.batch_size * sample


def _flops(function: Any, *shapes: Any) -> float:
    return jax.jit(function).lower(*shapes).cost_analysis()["flops"]


def plan_rows(
    config: Config, model: Model, plan: memory.MemoryPlan, folder: Path, saved: int | None
) -> dict[str, str]:
    """What a person is told at the start, by name."""
    spec, device = model.spec, jax.devices()[0]
    params = _shapes(config, model)[0].variables["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    stack = f", {spec.frame_stack} frames stacked" if spec.frame_stack > 1 else ""
    shape = "x".join(map(str, spec.observation_shape))
    frames = config.total_agent_steps * spec.frame_skip
    rows = {
        "game": f"{config.game} ({spec.task_id}, {spec.backend}), {spec.num_actions} actions, "
        f"observation {shape} {spec.observation_dtype}{stack}",
        "preset": f"{config.preset}, seed {config.seed}, {config.search.policy} search with "
        f"{config.search.num_simulations} simulations",
        "length": f"{config.total_agent_steps:,} agent steps ({frames:,} frames), "
        f"{config.total_updates:,} updates of {config.learner.batch_size} x "
        f"{config.learner.unroll_steps}",
        "device": f"{jax.device_count()} x {device.device_kind} ({device.platform}), "
        f"{config.precision}",
        "network": f"{count:,} parameters ({memory.gigabytes(tree_bytes(params))})",
        "memory": plan.describe(),
        "folder": f"{folder}: config.yaml, metrics.jsonl, scores.json, checkpoints/, "
        "TensorBoard events",
    }
    return rows | ({"resumes": f"at {saved:,} agent steps"} if saved is not None else {})


def plan_warnings(config: Config, model: Model) -> list[str]:
    """What a person should think about before the run starts."""
    if jax.devices()[0].platform != "cpu" or config.preset == "small":
        return []
    flops, cores = update_flops(config, model), os.cpu_count() or 1
    return [cpu_warning(config.preset, config.total_updates, flops, cores=cores)]
