"""What a run will need, shown before it starts: parameters, memory, disk, operations."""

import dataclasses
import functools
import math
import os
import shutil
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

from ez_jax.agent.learner import init_train_state
from ez_jax.agent.model import Model, precision_of
from ez_jax.config import BadInput, Config, search_budget
from ez_jax.envs.actions import told_actions
from ez_jax.storage import run_folder
from ez_jax.storage.checkpoint_items import tree_bytes
from ez_jax.structs import Embedding, EnvSpec, Variables
from ez_jax.system import free_memory, processes
from ez_jax.terminal.progress import duration
from ez_jax.training.planning import flops, memory
from ez_jax.training.planning.memory import MemoryNeeds

# Share of the backward pass's residuals in memory at once, because XLA recomputes cheap results.
# The published update takes 8.7 MB per sample on a CPU, 0.63 of its residuals.
KEPT = 0.7
BLOCKS_ON_CPU = 2  # the heap (`allocator.py`) may keep a second block of that size
LOG_BYTES = 64_000_000  # metrics, TensorBoard events and scores of a long run


@functools.lru_cache(maxsize=1)
def _shapes(config: Config, model: Model) -> tuple[Any, Any, Any]:
    """Train state, one observation and its embedding, as shapes; nothing is computed."""
    train = jax.eval_shape(lambda: init_train_state(config, model, jax.random.key(0)))
    spec = model.spec
    frames = jax.ShapeDtypeStruct(
        (1, spec.frame_stack, *spec.observation_shape), spec.observation_dtype
    )
    return train, frames, jax.eval_shape(model.represent, train.variables, frames)


def memory_needs(config: Config, model: Model) -> MemoryNeeds:
    """The memory that the run needs.

    With `replay.memory=auto`, frames are planned in host memory if they do not fit on the device.
    """
    train, _, embedding = _shapes(config, model)
    # The devices of a CPU share its memory.
    is_cpu = jax.default_backend() == "cpu"
    number = 1 if is_cpu else len(processes.choose_devices(config))
    kept = KEPT * (BLOCKS_ON_CPU if is_cpu else 1) * _unroll_bytes(config, model)
    needs = MemoryNeeds.of_sizes(
        model.spec,
        dataclasses.replace(sizes(config, model.spec), devices=number),
        train_state=train,
        embedding=embedding,
        activation_bytes=round(kept),
    )
    available = free_memory.available_memory()
    may_move = config.replay.memory == "auto" and not available.is_shared
    if may_move and not memory.fits(needs, available):
        return needs.at(on_host=True)
    return needs


def sizes(config: Config, spec: EnvSpec) -> memory.Sizes:
    """The settings that memory depends on."""
    unroll_steps, td_steps = config.learner.unroll_steps, config.targets.td_steps
    together = config.reanalyse.updates_per_search * config.learner.batch_size
    roots = round(config.reanalyse.ratio * together) * (unroll_steps + 1)
    if config.reanalyse.mode == "none":
        roots = 0
    if config.reanalyse.mode == "buffer":
        roots = min(config.reanalyse.chunk, together * (unroll_steps + 1))
    return memory.Sizes(
        capacity=config.replay.capacity,
        batch_size=config.learner.batch_size,
        frames=spec.frame_stack + unroll_steps + td_steps,
        unrolled=unroll_steps + 1,
        roots=max(config.actor.num_envs, roots),
        num_simulations=search_budget(config.search, spec.num_actions).num_simulations,
        choices=spec.num_actions or config.search.root_candidates,
        unsaved=config.checkpoint.every or config.replay.capacity,
        on_host=config.replay.memory == "host",
        drawn=together,
    )


def disk_bytes(config: Config, needs: MemoryNeeds) -> int:
    """The largest size of the run folder: an upper bound, without compression."""
    return kept_checkpoints(config) * checkpoint_bytes(needs) + needs.replay + LOG_BYTES


def kept_checkpoints(config: Config) -> int:
    """The kept checkpoints, one more while it is written, and the best weights."""
    return config.checkpoint.keep + 1 + config.checkpoint.keep_best


def checkpoint_bytes(needs: MemoryNeeds) -> int:
    """Bytes that each checkpoint does not share."""
    return needs.train + needs.per_step_refreshed * needs.sizes.capacity


def disk_free(folder: Path) -> int:
    """Bytes that the run folder may still grow."""
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return shutil.disk_usage(run_folder.nearest(folder)).free + used


def check_disk(config: Config, needs: MemoryNeeds, folder: Path) -> None:
    """Refuse a run that does not fit on the disk.

    Raises:
      BadInput: the need, the free space, and what to do.
    """
    need, free = disk_bytes(config, needs), disk_free(folder)
    if need <= free:
        return
    capacity = memory.largest(lambda steps: disk_bytes(config, needs.at(capacity=steps)) <= free)
    smallest = min(needs.sizes.capacity, max(1_000, 4 * needs.sizes.batch_size))
    fix = "free some space or choose another run_dir="
    if capacity >= smallest:
        fix += f"; replay.capacity={memory.three_digits(capacity)} would fit"
    raise BadInput(
        f"this run can write {free_memory.gigabytes(need)} to {folder}, but only "
        f"{free_memory.gigabytes(free)} are free; {fix}"
    )


def _unroll_bytes(config: Config, model: Model) -> int:
    """Bytes kept for the gradient of one unrolled sample, without projections, which are small."""
    (train, frames, embedding), spec = _shapes(config, model), model.spec

    def encode(variables: Variables, frames: Array) -> Array:
        return model.encode(variables, frames, train=True)[0].state

    def step(variables: Variables, embedding: Embedding, action: Array) -> tuple[Array, ...]:
        embedding, prefix, variables = model.step(variables, embedding, action, train=True)
        logits, _ = model.heads(variables, embedding.state, train=True, depth=embedding.depth)
        return embedding.state, prefix, *logits

    def of_batch(size: int) -> int:
        sized = lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)  # noqa: E731
        kept = lambda f, *inputs: memory.residual_bytes(f, train.variables, *inputs)  # noqa: E731
        action = jax.ShapeDtypeStruct((size, *spec.action_shape), spec.action_dtype)
        per_step = kept(step, jax.tree.map(sized, embedding), action)
        return kept(encode, sized(frames)) + config.learner.unroll_steps * per_step

    return of_batch(2) - of_batch(1)  # without the parameters, which exist once


def searched_share(config: Config) -> float:
    """Share of a batch's positions that are searched; with `buffer`, at the end of a run."""
    if config.reanalyse.mode == "none":
        return 0.0
    if config.reanalyse.mode == "batch":
        return config.reanalyse.ratio
    positions = config.learner.batch_size * (config.learner.unroll_steps + 1)
    kept = min(config.replay.capacity, config.total_agent_steps)
    return min(1.0, kept / max(1, config.reanalyse.max_age) / positions)


def update_flops(config: Config, model: Model) -> float:
    """FLOPs of the products and convolutions of one update with its reanalysis."""
    train, frames, embedding = _shapes(config, model)
    spec = model.spec
    action = jax.ShapeDtypeStruct((1, *spec.action_shape), spec.action_dtype)

    def imagine(variables, embedding, action):
        following, reward = model.dynamics(variables, embedding, action)
        return model.predict(variables, following), reward

    represent = flops.count(model.represent, train.variables, frames)
    step = flops.count(imagine, train.variables, embedding, action)
    project = flops.count(model.project, train.variables, embedding)
    unroll_steps, positions = config.learner.unroll_steps, config.learner.unroll_steps + 1
    # Per sample: bootstrap values, the searches of a share, and the update, whose backward pass
    # costs two forward passes; the observed side of consistency has none.
    budget = search_budget(config.search, spec.num_actions)
    search = represent + budget.num_simulations * step
    sample = positions * (represent + searched_share(config) * search)
    sample += 3 * represent + 3 * unroll_steps * step
    if config.consistency:
        sample += unroll_steps * (represent + 5 * project)
    return config.learner.batch_size * sample


def start_rows(config: Config, model: Model, needs: MemoryNeeds, folder: Path) -> dict[str, str]:
    """The facts shown at the start, by name."""
    spec = model.spec
    params = _shapes(config, model)[0].variables["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    stack = f", {spec.frame_stack} frames stacked" if spec.frame_stack > 1 else ""
    shape = "x".join(map(str, spec.observation_shape))
    frames = config.total_agent_steps * spec.frame_skip
    return {
        "game": f"{config.game} ({spec.task_id}, {spec.backend}), {told_actions(spec)}, "
        f"observation {shape} {spec.observation_dtype}{stack}",
        "preset": f"{config.preset}, seed {config.seed}, {config.search.policy} search with "
        f"{search_budget(config.search, spec.num_actions).num_simulations} simulations",
        "length": f"{config.total_agent_steps:,} agent steps ({frames:,} frames), "
        f"{config.total_updates:,} updates of {config.learner.batch_size} x "
        f"{config.learner.unroll_steps}",
        "device": f"{_devices(config)}, {precision_of(config)}",
        "network": f"{count:,} parameters ({free_memory.gigabytes(tree_bytes(params))})",
        "memory": needs.describe(),
        "folder": f"{folder}: config.yaml, metrics.jsonl, scores.json, checkpoints/, "
        "TensorBoard events",
    }


def _devices(config: Config) -> str:
    """The devices of the run, in words."""
    chosen, count = processes.choose_devices(config), jax.process_count()
    told = f"{len(chosen)} x {chosen[0].device_kind} ({chosen[0].platform})"
    left = jax.device_count() - len(chosen)
    if left and config.devices == "all":
        told += f", {left} more do not divide learner.batch_size={config.learner.batch_size}"
    return f"{told}, in {count} processes" if count > 1 else told


def start_warnings(config: Config, model: Model) -> list[str]:
    """Warnings before the run starts."""
    warnings = candidates_warnings(config, model)
    if jax.local_devices()[0].platform != "cpu" or config.preset in ("small", "continuous"):
        return warnings
    per_update, cores = update_flops(config, model), os.cpu_count() or 1
    about_cpu = cpu_warning(config.preset, config.total_updates, per_update, cores=cores)
    return [*warnings, about_cpu]


def candidates_warnings(config: Config, model: Model) -> list[str]:
    """What a search among sampled actions would miss."""
    if not model.spec.is_continuous:
        return []
    budget = search_budget(config.search, model.spec.num_actions)
    considered, candidates = budget.max_considered_actions, config.search.root_candidates
    if considered < candidates:
        return [
            f"the actions of {config.game} are continuous, but each search considers only "
            f"{considered} of {candidates} candidates; preset=continuous has settings for such "
            "games"
        ]
    if budget.num_simulations <= candidates:
        return [
            f"{budget.num_simulations} simulations visit {candidates} candidates at most once, so "
            "no search looks further than one step: set search.num_simulations="
            f"{2 * candidates} as EfficientZero V2 does, or a smaller search.root_candidates"
        ]
    return []


CPU_FLOP_PER_S = 2.5e10  # of one core, convolutions in float32, measured on a server


def cpu_warning(preset: str, updates: int, flop_per_update: float, *, cores: int) -> str:
    """The warning about a long run on a CPU; a published update takes 3e12 FLOP."""
    seconds = updates * flop_per_update / (CPU_FLOP_PER_S * cores)
    return (
        f"on this CPU preset={preset} would take about {duration(seconds)}; "
        "preset=small is made for CPUs"
    )
