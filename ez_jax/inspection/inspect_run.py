"""Makes the page about one episode of a run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ez_jax
from ez_jax.agent.complaints import ENOUGH, complaints
from ez_jax.config import BadInput, Config, eval_simulations, paths
from ez_jax.evaluation import pretrained
from ez_jax.evaluation.trained_agent import Agent, changed, check_free, load
from ez_jax.inspection import MAX_NODES, MAX_STEPS, episode, imagined, measures, page
from ez_jax.storage import run_folder, safe_files
from ez_jax.storage.metrics import FILE_NAME, read_metrics

MOST_STEPS = 10_000  # decisions shown
MOST_DEPTH = 100  # imagined steps


def inspect_run(
    run: str | Path,
    *,
    out: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    best: bool = False,
    max_steps: int = MAX_STEPS,
    depth: int = 0,
    max_nodes: int = MAX_NODES,
    say: Callable[[str], object] = lambda sentence: None,
) -> Path:
    """Play one evaluation episode and write a page about what the agent thought.

    Args:
      run: the run folder.
      out: the file to write; `inspect.html` in the run folder by default.
      changes: keys of search, eval and env that differ from the training run, by dotted name;
        `eval.seed` is the seed of the episode.
      best: use the weights of the best evaluation instead of the newest.
      max_steps: number of decisions after which to stop.
      depth: steps to imagine from each frame; 0: as in training (`learner.unroll_steps`).
      max_nodes: nodes of each search tree to keep, the most visited.
      say: called with each finding, a sentence.

    Returns:
      The file's absolute path.

    Raises:
      BadInput: there is no such run, or an argument is impossible.
    """
    changes = dict(changes or {})
    check_free(changes)
    _check_sizes(max_steps, depth, max_nodes)
    agent, run = load(run, best=best), pretrained.output_folder(run)
    config = changed(agent, changes)
    path = _prepare(paths.expanded(out or run / run_folder.INSPECT_FILE).absolute())
    played = episode.play(config, agent, max_steps=max_steps, max_nodes=max_nodes)
    depth = depth or config.learner.unroll_steps
    ahead = imagined.actions_ahead(played, depth)
    dreamt = imagined.unroll(agent.model, agent.variables, played.roots, ahead)
    returns = imagined.returns_to_go(played, config.discount)
    real = imagined.real(played, returns, depth=depth, horizon=config.horizon)
    measured = measures.measure(played, returns, dreamt, real)
    findings = [*measures.findings(played, measured), *of_training(run, config)]
    html = page.render(
        page.content(
            played, measured, dreamt, real, discount=config.discount, horizon=config.horizon
        ),
        findings,
        title=f"What does the agent think? {config.game}",
        about=_about(config, agent, best),
        settings=_settings(config, agent, run, changes, max_nodes),
    )
    for finding in findings:
        say(f"{finding.kind}: {finding.text}" if finding.kind == "warning" else finding.text)
    safe_files.write_whole(path, html)
    return path


def of_training(run: Path, config: Config) -> list[measures.Finding]:
    """The warnings about the last line of metrics, if any."""
    path = run / FILE_NAME
    lines = [line for line in read_metrics(path) if "loss/total" in line] if path.is_file() else []
    is_early = not lines or lines[-1]["updates"] < ENOUGH
    said = () if is_early else complaints(lines[-1], config).values()
    return [measures.Finding("warning", f"At the end of training, {each}.") for each in said]


def _check_sizes(max_steps: int, depth: int, max_nodes: int) -> None:
    if not 1 <= max_steps <= MOST_STEPS:
        raise BadInput(f"max_steps is {max_steps}: choose 1 to {MOST_STEPS:,}")
    if not 0 <= depth <= MOST_DEPTH:
        raise BadInput(f"depth is {depth}: choose 1 to {MOST_DEPTH}, or 0 for that of training")
    if max_nodes < 2:
        raise BadInput(f"max_nodes is {max_nodes}: a tree has a root and at least one child")


def _prepare(path: Path) -> Path:
    if path.is_dir():
        raise BadInput(f"{path} is a folder: name a file, such as out={path / 'inspect.html'}")
    run_folder.make_run_dir(path.parent, key="out")
    return path


def _about(config: Config, agent: Agent, best: bool) -> str:
    count = eval_simulations(config, agent.spec.num_actions)
    weights = "the weights of its best evaluation" if best else "its newest weights"
    return (
        f"One episode of {config.game}, seed {config.eval.seed:,}, played without noise after "
        f"{agent.clocks.agent_steps:,} agent steps of training ({weights}). Before every step "
        f"the agent searches with {count} simulation{'s' * (count != 1)} ({config.search.policy})."
    )


def _candidates(config: Config, agent: Agent) -> dict[str, str]:
    """A row about the candidates, if actions are continuous."""
    if not agent.spec.is_continuous:
        return {}
    root, node = config.search.root_candidates, config.search.node_candidates
    return {"candidates": f"{root} at the root, {node} at every other node"}


def _settings(
    config: Config, agent: Agent, run: str | Path, changes: Mapping[str, Any], max_nodes: int
) -> dict[str, str]:
    rows = {
        "run": str(run),
        "game": f"{config.game} ({agent.spec.backend}: {agent.spec.task_id})",
        "preset": config.preset,
        "agent steps": f"{agent.clocks.agent_steps:,}",
        "updates": f"{agent.clocks.updates:,}",
        "discount": f"{config.discount:.6g}",
        "search": config.search.policy,
        "simulations": str(eval_simulations(config, agent.spec.num_actions)),
        **_candidates(config, agent),
        "imagined steps in training": str(config.learner.unroll_steps),
        "steps per value prefix": str(config.horizon),
        "nodes kept of a tree": f"at most {max_nodes}, the most visited",
    }
    if changes:
        rows["changed"] = ", ".join(f"{key}={value}" for key, value in changes.items())
    return rows | {"ez_jax": ez_jax.__version__}
