"""`plan=true`: what a run would need and how long it would take, without the run.

The needs are computed (`needs.py`), the time is measured (`rehearsal.py`).
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path

from ez_jax import config as configs
from ez_jax.agent.model import Model, make_model
from ez_jax.config import Config, checks
from ez_jax.envs import make_env
from ez_jax.evaluation.scores import while_training
from ez_jax.storage import run_folder
from ez_jax.system import free_memory
from ez_jax.system.free_memory import Available, gigabytes
from ez_jax.terminal.progress import Progress, duration
from ez_jax.training.planning import memory
from ez_jax.training.planning.memory import MemoryNeeds
from ez_jax.training.planning.needs import (
    check_disk,
    checkpoint_bytes,
    disk_bytes,
    disk_free,
    kept_checkpoints,
    memory_needs,
    sizes,
    start_rows,
)
from ez_jax.training.planning.rehearsal import Rates, rehearse

WIDTH = 86  # of the text beside a name


def show_plan(config: Config, progress: Progress) -> None:
    """Show the needs, refuse what does not fit, measure, and show the time.

    Raises:
      BadInput: not enough memory or disk, or a folder that cannot be used.
    """
    folder = configs.run_folder(config).absolute()
    run_folder.check_writable(folder)
    is_there = (folder / run_folder.CONFIG_FILE).exists()
    if is_there:
        run_folder.check_same_config(folder, configs.to_dict(config))
    model = model_of(config)
    needs, available = memory_needs(config, model), free_memory.available_memory()
    rows = start_rows(config, model, needs, folder)
    rows |= need_rows(config, needs, available, folder)
    rows["folder"] = f"{folder}" + (
        ", which already has this run; the plan is for the whole run"
        if is_there
        else ", not made yet"
    )
    _show(progress, rows)
    memory.check(needs, available)
    check_disk(config, needs, folder)
    _show(progress, {"largest": largest_settings(config, model, needs, available, folder)})
    load = os.getloadavg()[0]  # before this process adds to it
    rates = rehearse(config, model, needs, progress.say)
    _show(progress, time_rows(config, rates) | caveats(config, rates, load, os.cpu_count() or 1))
    progress.say("this run fits; the same command without plan=true starts it")


def model_of(config: Config) -> Model:
    """The model for the game, which is created for this."""
    env = make_env(config.game, config.env, num_envs=1, seed=0, training=True)
    env.close()
    return make_model(config, env.spec)


def need_rows(
    config: Config, needs: MemoryNeeds, available: Available, folder: Path
) -> dict[str, str]:
    """Needed and available memory and disk."""
    parts = "; ".join(f"{name} {gigabytes(size)}" for name, size in needs.parts.items())
    device, host = gigabytes(needs.device), needs.describe_host()
    number = needs.sizes.devices
    where = "the device" if number == 1 else f"each of {number} devices"
    usable = f"of which {memory.USABLE:.0%} may be planned"
    if available.is_shared:
        rows = {
            "memory": f"{gigabytes(needs.device + needs.host)} of {gigabytes(available.device)} "
            f"available, {usable}: {device} for the device ({parts}), {host} for the host"
        }
    else:
        rows = {
            "memory": f"on {where} {device} of {gigabytes(available.device)} available, "
            f"{usable}: {parts}",
            "host": f"{host} of memory, of {gigabytes(available.host)} available",
        }
    need, free = gigabytes(disk_bytes(config, needs)), gigabytes(disk_free(folder))
    return rows | {
        "disk": f"at most {need} of {free} free: replay {gigabytes(needs.replay)}, "
        f"{kept_checkpoints(config)} checkpoints of {gigabytes(checkpoint_bytes(needs))}, logs"
    }


def largest_settings(
    config: Config, model: Model, needs: MemoryNeeds, available: Available, folder: Path
) -> str:
    """The largest replay and the largest batch that fit, each with the other unchanged."""
    free = disk_free(folder)

    def holds(capacity: int) -> bool:
        larger = needs.at(capacity=capacity)
        return memory.fits(larger, available) and disk_bytes(config, larger) <= free

    def learns(batch: int) -> bool:
        changed = configs.override(config, {"learner.batch_size": batch})
        if any(checks.problems(changed)):  # such as more than learner.start provides
            return False
        larger_sizes = dataclasses.replace(
            sizes(changed, model.spec), devices=needs.sizes.devices, on_host=needs.sizes.on_host
        )
        larger = dataclasses.replace(needs, sizes=larger_sizes)
        return memory.fits(larger, available)

    capacity = max(needs.sizes.capacity, memory.three_digits(memory.largest(holds)))
    enough = " (more than the run plays)" if capacity > config.total_agent_steps else ""
    most = memory.largest(learns, needs.sizes.capacity)  # more cannot be sampled
    batch, why = memory.three_digits(most), ""
    if any(checks.problems(configs.override(config, {"learner.batch_size": most + 1}))):
        batch, why = most, f" (all that learner.start={config.learner.start} fills)"
    batch = max(needs.sizes.batch_size, batch)
    return (
        f"replay.capacity={capacity}{enough} or learner.batch_size={batch}{why} would still fit, "
        "each with the other unchanged"
    )


def num_evaluations(config: Config) -> int:
    """Number of evaluations of the whole run, including those after the last step."""
    if not config.eval.every:
        return 1
    past = round(config.final_updates / (config.updates_per_step or 1))
    return math.ceil((config.total_agent_steps + past) / config.eval.every)


def seconds(config: Config, rates: Rates) -> dict[str, float]:
    """Seconds of each part of the whole run; evaluation is an upper bound."""
    waves = math.ceil(config.eval.episodes / config.eval.num_envs)
    before = while_training(config).env.eval_max_episode_steps
    last = config.env.eval_max_episode_steps
    steps = waves * ((num_evaluations(config) - 1) * before + last)
    return {
        "compiling": sum(rates.compiling.values()),
        "acting": config.total_agent_steps / config.actor.num_envs * rates.decision,
        "learning": config.total_updates * rates.update,
        "evaluation": steps * rates.evaluation,
    }


def time_rows(config: Config, rates: Rates) -> dict[str, str]:
    """The time of the parts and the whole, in words."""
    parts = seconds(config, rates)
    shown = {name: duration(value) for name, value in parts.items()}
    compiling = ", ".join(f"{name} {duration(part)}" for name, part in rates.compiling.items())
    games, size = config.eval.episodes, config.learner.batch_size
    rows = {
        "compiling": f"{shown['compiling']} ({compiling}); less where it was compiled before",
        "acting": f"{shown['acting']}: {config.total_agent_steps:,} agent steps, "
        f"{config.actor.num_envs} at once in {_short(rates.decision)}",
        "learning": f"{shown['learning']}: {config.total_updates:,} updates of {size} samples, "
        f"{_short(rates.update)} each with their targets",
        "evaluation": f"at most {shown['evaluation']}: {num_evaluations(config)} x {games} games, "
        f"if each lasted {_limits(config)} steps, {_short(rates.evaluation)} "
        f"for a step of {min(games, config.eval.num_envs)} games",
    }
    total = sum(parts.values())
    fewest, most = duration(total - parts["evaluation"]), duration(total)
    span = f"{fewest} without evaluation, at most {most} with it" if fewest != most else most
    rows["whole run"] = (
        f"{span}; less if games and learning overlap, more if others use this machine"
    )
    return rows


def _limits(config: Config) -> str:
    limits = [one.env.eval_max_episode_steps for one in (while_training(config), config)]
    return " and at last ".join(f"{limit:,}" for limit in dict.fromkeys(limits))


def caveats(config: Config, rates: Rates, load: float, cores: int) -> dict[str, str]:
    """How the measurement differs from the run."""
    told = []
    if rates.batch_size != config.learner.batch_size:
        told.append(
            f"an update of {config.learner.batch_size} samples takes too long to measure here: "
            f"{rates.batch_size} were measured and scaled by counted operations "
            "(a large batch can be slower)"
        )
    if rates.capacity < config.replay.capacity:
        told.append(f"measured with a replay of {rates.capacity:,} agent steps, not the whole one")
    rows = {"estimated": "; ".join(told)} if told else {}
    if load > cores / 2:
        busy = f"load {load:.1f} on {cores} cores before this plan"
        rows["busy"] = f"{busy}: the times above may be longer than on an idle machine"
    return rows


def _short(each: float) -> str:
    return f"{each:.3g} s" if each >= 1 else f"{1e3 * each:.3g} ms"


def _show(progress: Progress, rows: Mapping[str, str]) -> None:
    """Rows with aligned names and lines that fit a terminal."""
    progress.plan({f"{name:10}": value for name, value in rows.items()}, width=WIDTH)
