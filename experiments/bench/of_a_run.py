"""Where the time of a run goes: its programs one by one, and how many operations each begins."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.measure import Case, counted
from experiments.bench.parts import Setting
from experiments.bench.programs import first_step
from ez_jax.agent.actor import make_policy
from ez_jax.agent.learner import make_propose, make_update
from ez_jax.agent.replay import ring
from ez_jax.agent.replay.draw import make_draw_group
from ez_jax.agent.search import make_search
from ez_jax.agent.targets import make_targets

FREE = ("parameter", "constant", "get-tuple-element", "bitcast", "tuple")  # cost nothing to begin


def parts(setting: Setting) -> Iterator[Case]:
    """Draw, targets, search, gradient, update, decision: calls per second."""
    config, model, key = setting.config, setting.model, jax.random.key(0)
    train, number = setting.train(), jnp.int32(0)
    replay = setting.replay(ring.ring_rows(config, setting.spec))
    draw, targets_for = make_draw_group(config, model), make_targets(config, model)
    batch = ring.with_frames(replay, jax.jit(draw)(replay, key, number))
    targets = jax.jit(targets_for)(train.target, batch, number)
    search = make_search(config.search, model, discount=config.discount, explore=True)
    policy, propose = make_policy(model, search), make_propose(config, model)

    def gradient(*given: Any) -> Any:
        return propose(*given).grads

    def searched(variables: Any, frames: jax.Array, key: jax.Array) -> Any:
        return search(variables, model.root(variables, frames), key)

    given = train.replace(target=None, next_target=None), key, batch, targets
    chunk, envs = config.reanalyse.chunk, config.actor.num_envs
    roots = train.variables, setting.frames(chunk), key
    acting = train.variables, setting.frames(envs), first_step(setting), key, jnp.ones(())
    yield _case(f"draw {config.learner.batch_size}", draw, replay, key, number)
    yield _case("targets", targets_for, train.target, batch, number)
    yield _case(f"search {chunk} again", searched, *roots)
    yield _case("gradient", gradient, *given)
    yield _case("update", make_update(config, model), *given)
    yield _case(f"decide in {envs}", policy, *acting)


def _case(name: str, function: Callable[..., Any], *given: Any) -> Case:
    """One program, named with the number of its operations outside of loops."""
    program = jax.jit(function).lower(*given).compile()
    call = lambda: program(*given)  # noqa: E731
    return Case(f"{name}: {operations(program)} operations", call, 1, "calls", counted(program))


def operations(program: Any) -> int:
    """What a compiled program begins one after the other; a loop or a condition counts once."""
    entry = program.as_text().partition("\nENTRY ")[2].partition("\n}")[0]
    lines = [line for line in entry.splitlines() if " = " in line]
    return sum(not any(f" {kind}(" in line for kind in FREE) for line in lines)
