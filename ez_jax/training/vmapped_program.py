"""Runs side by side in one program: environment, search, replay and update, under `jax.vmap`.

Only for games that are pure functions (`envs.gymnax_adapter`). The agent's functions are those of
every other run; what `run.py` does on the host for one run is done here on the device for all.
Runs share only the program: each has its own seed, replay, clocks and numbers (`NUMBERS`). They do
not affect each other: a run that has to wait for another, because its episodes ended at other
times, stays unchanged.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num, UInt32

from ez_jax.agent import schedules
from ez_jax.agent.actor import init_playing, make_decide, make_eval_policy
from ez_jax.agent.learner import make_learn, make_prepare
from ez_jax.agent.model import Model
from ez_jax.agent.reanalyse import make_reanalyse
from ez_jax.agent.replay import ring
from ez_jax.agent.search import make_search
from ez_jax.agent.state import ACT, LEARN, init_run_state
from ez_jax.agent.targets import make_targets
from ez_jax.config import Config
from ez_jax.envs.gymnax_adapter import DeviceGame, GameState, game_keys
from ez_jax.structs import Clocks, RunState, TimeStep
from ez_jax.training.lanes import BY_RUN, SHARED

# Settings that may differ between runs: numbers used in computations that affect no shape.
NUMBERS = (
    "discount",
    *(f"loss.{name}" for name in ("policy", "value", "value_prefix", "consistency")),
    *(f"learner.{name}" for name in ("learning_rate", "momentum", "weight_decay", "max_grad_norm")),
    *("replay.priority_exponent", "replay.importance_exponent"),
    *("replay.importance_exponent_final", "replay.min_weight", "targets.age_fraction"),
    *(f"search.{name}" for name in ("min_q_range", "dirichlet_fraction", "dirichlet_alpha")),
    *(f"search.{name}" for name in ("pb_c_init", "pb_c_base", "gumbel_scale", "value_scale")),
    "search.maxvisit_init",
)


ENDLESS = np.int32(2**30)  # more steps and updates than any run has


class Finished(flax.struct.PyTreeNode, kw_only=True):
    """Episodes that ended since the last line of metrics."""

    games: jax.Array  # f32[]
    score: jax.Array  # f32[], the sum of their scores
    length: jax.Array  # f32[], of their agent steps


class VmappedRun(flax.struct.PyTreeNode, kw_only=True):
    """One run; the program has a leading axis of runs. Checkpoints use these names."""

    run: RunState  # as of a single run
    games: GameState  # [N], the current episodes
    step: TimeStep  # [N], their last time step
    score: jax.Array  # f32[N], of the current episodes so far
    length: jax.Array  # i32[N], their agent steps
    finished: Finished
    agent_steps: jax.Array  # i32[]
    numbers: dict[str, jax.Array]  # f32[] each, by dotted key: settings of this run alone


class Program(NamedTuple):
    """The jitted functions; `advance` and `forget` donate their runs.

    Every device has the same number of runs, and works on them without the others.
    """

    # (seed i32[R], seed of the games i32[R], numbers by key f32[R], spare bool[R]) -> runs; spare
    # ones have nothing to do
    start: Callable[[ArrayLike, ArrayLike, Mapping[str, ArrayLike], ArrayLike], VmappedRun]
    # (runs, agent steps, updates): all act and learn up to the former, then only learn up to the
    # latter, which has no effect if it is less than the updates due for the data
    advance: Callable[[VmappedRun, ArrayLike, ArrayLike], VmappedRun]
    # runs, limits i32[R] of their episodes in agent steps -> scores f32[R, E], lengths i32[R, E]
    # and digests u32[R, E] of one episode for each seed from eval.seed on
    evaluate: Callable[[VmappedRun, ArrayLike], tuple[Array, Array, Array]]
    # (runs, bool[R]) -> runs, without the sums of metrics and episodes of those that are chosen
    forget: Callable[[VmappedRun, ArrayLike], VmappedRun]


def make_program(
    config: Config, model: Model, game: DeviceGame, eval_game: DeviceGame, mesh: Mesh
) -> Program:
    """The program for runs that differ only in seed, name, folder and numbers.

    Nothing is compiled yet. Further calls return the same program, with what was compiled. The
    configuration is that of any of the runs; `eval_game` is the game as evaluations play it, and
    `mesh` is that of `lanes.make_mesh`.
    """
    return _make_program(
        dataclasses.replace(config, seed=0, name="", run_dir=""), model, game, eval_game, mesh
    )


@functools.lru_cache(maxsize=2)
def _make_program(
    config: Config, model: Model, game: DeviceGame, eval_game: DeviceGame, mesh: Mesh
) -> Program:
    advance = functools.partial(_advance, config, model, game)
    start = functools.partial(_start, config, model, game)
    evaluate = functools.partial(_evaluate, config, model, eval_game)

    def on_each_device(function: Callable, *in_specs: PartitionSpec) -> Callable:
        # Not checked: nothing is exchanged, and mctx's loops cannot be annotated.
        return jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=BY_RUN, check_vma=False
        )

    def score(one: VmappedRun, limit: Int[Array, ""]) -> tuple[Array, Array, Array]:
        return evaluate(one.run.train.variables, one.numbers, limit)

    return Program(
        start=jax.jit(on_each_device(jax.vmap(start), BY_RUN, BY_RUN, BY_RUN, BY_RUN)),
        advance=jax.jit(on_each_device(advance, BY_RUN, SHARED, SHARED), donate_argnums=0),
        evaluate=jax.jit(on_each_device(jax.vmap(score), BY_RUN, BY_RUN)),
        forget=jax.jit(on_each_device(_forget_sums, BY_RUN, BY_RUN), donate_argnums=0),
    )


def with_numbers(config: Config, numbers: Mapping[str, Any]) -> Config:
    """The configuration with some numbers replaced by dotted key; they may be traced."""
    for key, value in numbers.items():
        section, _, leaf = key.rpartition(".")
        if not section:
            config = dataclasses.replace(config, **{leaf: value})
            continue
        changed = dataclasses.replace(getattr(config, section), **{leaf: value})
        config = dataclasses.replace(config, **{section: changed})
    return config


def _start(
    config: Config,
    model: Model,
    game: DeviceGame,
    seed: Int[Array, ""],
    game_seed: Int[Array, ""],
    numbers: Mapping[str, Array],
    is_spare: Bool[Array, ""],
) -> VmappedRun:
    num_envs = config.actor.num_envs
    games, step = jax.vmap(game.reset)(game_keys(game_seed, num_envs))
    run = init_run_state(with_numbers(config, {"seed": seed}), model)
    done = jnp.where(is_spare, ENDLESS, 0)
    return VmappedRun(
        run=run.replace(train=run.train.replace(updates=done)),
        games=games,
        step=step,
        score=jnp.zeros(num_envs),
        length=jnp.zeros(num_envs, jnp.int32),
        finished=Finished(games=jnp.zeros(()), score=jnp.zeros(()), length=jnp.zeros(())),
        agent_steps=done,
        numbers=dict(numbers),
    )


def _advance(
    config: Config, model: Model, game: DeviceGame, runs: VmappedRun, steps: Array, updates: Array
) -> VmappedRun:
    """Rounds of one decision in every run and the updates due, until all reach the target."""
    owed = jnp.array(_owed(config))
    handful = schedules.handful(config)
    group = config.reanalyse.updates_per_search
    decide = functools.partial(_decide, config, model)
    learn = functools.partial(_learn, config, model)

    def has_work(runs: VmappedRun) -> Bool[Array, " R"]:
        return (runs.agent_steps < steps) | (runs.run.train.updates < updates)

    def round_of_all(runs: VmappedRun) -> VmappedRun:
        plays = runs.agent_steps < steps
        runs, action = jax.vmap(decide)(runs, plays)
        due = jnp.where(
            plays,
            owed[jnp.minimum(runs.agent_steps, config.total_agent_steps)],
            jnp.minimum(runs.run.train.updates + handful, updates),
        )
        due = jnp.maximum(0, due - runs.run.train.updates)
        waits = plays & (runs.agent_steps < config.total_agent_steps)
        due -= jnp.where(waits, due % group, 0)
        groups = (jnp.max(due) + group - 1) // group
        runs = jax.lax.fori_loop(
            0, groups, lambda i, runs: jax.vmap(learn)(runs, due - i * group), runs
        )
        return jax.vmap(functools.partial(_play, game))(runs, action, plays)

    return jax.lax.while_loop(lambda runs: jnp.any(has_work(runs)), round_of_all, runs)


def _forget_sums(runs: VmappedRun, told: Bool[Array, " R"]) -> VmappedRun:
    """Reset the sums of the runs that were reported."""
    summed = runs.run.metrics, runs.finished
    nothing = jax.tree.map(jnp.zeros_like, summed)
    sums, finished = jax.vmap(where)(told, nothing, summed)
    return runs.replace(run=runs.run.replace(metrics=sums), finished=finished)


def _owed(config: Config) -> np.ndarray:
    """Updates i32[total_agent_steps + 1] that are due after each number of agent steps."""
    steps = range(config.total_agent_steps + 1)
    return np.array([schedules.updates_owed(config, n) for n in steps], np.int32)


def _temperatures(config: Config) -> np.ndarray:
    """Acting temperature f32[total_updates + 1] after each number of updates."""
    updates = range(config.total_updates + 1)
    return np.array([schedules.temperature(config, Clocks(updates=n)) for n in updates], np.float32)


def _decide(
    config: Config, model: Model, one: VmappedRun, plays: Bool[Array, ""]
) -> tuple[VmappedRun, Num[Array, "N ..."]]:
    """Search and record the decisions, as `Run.decide`; waiting runs do not change."""
    chosen = with_numbers(config, one.numbers)
    search = make_search(chosen.search, model, discount=chosen.discount, explore=True)
    run, updates = one.run, one.run.train.updates
    temperature = jnp.array(_temperatures(config))[jnp.minimum(updates, config.total_updates)]
    row, frames, metrics = make_decide(model, search, config.search.root_candidates)(
        run.train.variables,
        run.replay.count,
        run.frames,
        one.step,
        jax.random.fold_in(run.key, ACT),
        temperature,
        config.actor.random_start & (one.agent_steps < config.learner.start),
        updates,
    )
    replay = ring.add_where(run.replay, row, plays)
    frames = jnp.where(plays, frames, run.frames)
    sums = run.metrics.add(jax.tree.map(lambda x: jnp.where(plays, x, 0.0), metrics))
    played = jnp.where(plays, jnp.sum(~one.step.is_last), 0)
    one = one.replace(
        run=run.replace(replay=replay, frames=frames, metrics=sums),
        agent_steps=one.agent_steps + played,
    )
    return one, row.action


def _play(
    game: DeviceGame, one: VmappedRun, action: Num[Array, "N ..."], plays: Bool[Array, ""]
) -> VmappedRun:
    """Step the games and record the scores, as `RepeatableGames`."""
    games, step = jax.vmap(game.step)(one.games, action)
    score, length = one.score + step.score, one.length + ~step.is_first
    over, done = step.game_over, one.finished
    finished = Finished(
        games=done.games + jnp.sum(over),
        score=done.score + jnp.sum(jnp.where(over, score, 0.0)),
        length=done.length + jnp.sum(jnp.where(over, length, 0)),
    )
    after = one.replace(
        games=games,
        step=step,
        score=jnp.where(over, 0.0, score),
        length=jnp.where(over, 0, length),
        finished=finished,
    )
    # The run itself has not changed, so it need not be selected array by array.
    return where(plays, after.replace(run=None), one.replace(run=None)).replace(run=one.run)


def _learn(config: Config, model: Model, one: VmappedRun, due: Int[Array, ""]) -> VmappedRun:
    """The first `due` updates of a group, as `Run.learn`."""
    chosen = with_numbers(config, one.numbers)
    search = make_search(chosen.search, model, discount=chosen.discount, explore=True)
    reanalyse, targets = make_reanalyse(chosen, model, search), make_targets(chosen, model)
    prepare, learn = make_prepare(chosen, model, reanalyse, targets), make_learn(chosen, model)
    key = jax.random.fold_in(one.run.key, LEARN)
    before = one.run
    group, replay, sums = prepare(
        before.train.target, before.replay, before.metrics, key, before.train.updates
    )
    run = _run_where(due > 0, before.replace(replay=replay, metrics=sums), before)
    for i in range(config.reanalyse.updates_per_search):
        after = learn(run.train, run.replay, run.metrics, key, group, i)
        train, replay, sums = after
        run = _run_where(due > i, run.replace(train=train, replay=replay, metrics=sums), run)
    return one.replace(run=run)


def where(chosen: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """Select one of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), yes, no)


def _run_where(chosen: Bool[Array, ""], yes: RunState, no: RunState) -> RunState:
    """Select one of two states with equal recorded rows, which are most of them."""
    bare = lambda run: run.replace(replay=ring.without_recorded(run.replay))  # noqa: E731
    run = where(chosen, bare(yes), bare(no))
    recorded = {name: getattr(no.replay.rows, name) for name in ring.RECORDED}
    return run.replace(replay=ring.with_recorded(run.replay, recorded))


def _evaluate(
    config: Config,
    model: Model,
    game: DeviceGame,
    variables: Any,
    numbers: Mapping[str, Array],
    limit: Int[Array, ""],
) -> tuple[Float[Array, " E"], Int[Array, " E"], UInt32[Array, " E"]]:
    """Full episodes, one per environment, as in `evaluation.play.make_evaluate`."""
    game = game._replace(params=game.params.replace(max_steps_in_episode=limit))
    chosen, count = with_numbers(config, numbers), config.eval.episodes
    policy = make_eval_policy(chosen, model)

    def move(state: tuple) -> tuple:
        games, step, memory, score, length, digest, playing = state
        found, memory = policy(variables, memory, step)
        acted = playing & ~step.is_last
        games, step = jax.vmap(game.step)(games, found.action)
        score, length = score + step.score * playing, length + acted
        digest = jnp.where(playing, _digested(digest, found.action, step.score), digest)
        return games, step, memory, score, length, digest, playing & ~step.game_over

    games, step = jax.vmap(game.reset)(game_keys(config.eval.seed, count))
    nothing = jnp.zeros(count), jnp.zeros(count, jnp.int32), jnp.zeros(count, jnp.uint32)
    memory = jax.tree.map(jnp.asarray, init_playing(model.spec, config.eval.seed, count))
    start = games, step, memory, *nothing, jnp.ones(count, bool)
    *_, score, length, digest, _ = jax.lax.while_loop(lambda state: jnp.any(state[-1]), move, start)
    return score, length, digest


def _digested(digest: Array, action: Array, score: ArrayLike) -> UInt32[Array, " E"]:
    """Update the digests of episodes with an action and its reward, as `evaluation.play`."""
    told = jax.lax.bitcast_convert_type(jnp.asarray(score), jnp.uint32) + jnp.uint32(1)
    numbers = [action] if action.ndim == 1 else jax.lax.bitcast_convert_type(action, jnp.uint32).T
    for number in numbers:
        told = told * jnp.uint32(0x85EBCA6B) + number.astype(jnp.uint32)
    return (digest ^ (digest >> 15) ^ told) * jnp.uint32(0x9E3779B1)
