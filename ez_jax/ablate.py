"""Which ideas matter? Trains every arm of a study with several seeds.

    python -m ez_jax.ablate +game=CartPole design=leave_one_out seeds=5

The same command resumes a study; more games, seeds or switches extend it.
"""

import textwrap
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax

from ez_jax import terminal
from ez_jax.config import BadInput, Config, errors, families, paths, presets
from ez_jax.envs import make_env, runs_on_device
from ez_jax.structs import EnvSpec
from ez_jax.studies.designs import DESIGNS, LEAVE_ONE_OUT, SWEEP, Comparison, compare
from ez_jax.studies.ledger import Ledger
from ez_jax.studies.status import arm_statuses, score_table, status_table
from ez_jax.studies.study import FILE_NAME, Request, Study
from ez_jax.studies.workers import Orders, Worker, launch, stop_file
from ez_jax.system import exits
from ez_jax.terminal import arguments
from ez_jax.terminal.progress import Progress, duration

# What the study compares, and how it is run.
ASKED = {"game": "", "design": "", "switches": "", "seeds": "", "pack": True}
HOW: dict[str, Any] = {
    "name": "",
    "dir": "",
    "status": False,
    "retries": Orders.retries,
    "fail_fast": Orders.fail_fast,
    "workers": 0,
}
DEFAULT_SEEDS, MOST_SEEDS, MOST_WORKERS = "5", 10_000, 10_000
ROOT = Path("runs/ablations")


def main(words: Sequence[str]) -> int:
    """Create, extend or resume a study, and run it to the end; returns the exit code."""
    hydras = [word for word in words if word.lstrip("+").startswith("hydra")]
    words = [word for word in words if word not in hydras]
    given, words = arguments.take(words, HOW)
    if given.get("workers") == 0:
        raise BadInput("workers=0 would train nothing: leave it out to train in this process")
    how = HOW | given
    _check(how, hydras)
    progress, began = Progress(), time.perf_counter()
    ledger = _open(how, words, progress)
    if how["status"]:
        return _tell_status(ledger, progress)
    _tell_study(ledger, progress)
    orders = Orders(uuid.uuid4().hex[:12], how["retries"], how["fail_fast"])
    try:
        if how["workers"]:
            is_interrupted = launch(ledger, orders, how["workers"], hydras)
        else:
            is_interrupted = Worker(ledger, orders, progress).work()
    finally:
        stop_file(ledger, orders).unlink(missing_ok=True)
    if is_interrupted:
        return exits.INTERRUPTED
    return _tell_end(ledger, progress, time.perf_counter() - began)


def _check(how: dict[str, Any], hydras: Sequence[str]) -> None:
    launchers = [word for word in hydras if word.lstrip("+").startswith("hydra/launcher=")]
    if bool(how["workers"]) != bool(launchers) or (hydras and not launchers):
        raise BadInput(
            "several workers need a Hydra launcher: write workers=4 "
            "hydra/launcher=joblib (or submitit_local, submitit_slurm)"
        )
    if how["retries"] < 0 or not 0 <= how["workers"] <= MOST_WORKERS:
        raise BadInput(f"retries and workers must lie between 0 and {MOST_WORKERS:,}")


def _open(how: dict[str, Any], words: Sequence[str], progress: Progress) -> Ledger:
    """Open or create the ledger of the study that the words describe."""
    given, overrides = arguments.take(words, ASKED)
    _check_overrides(overrides)
    sweeps = arguments.combinations(overrides, {"game": "", **ASKED, **HOW})
    is_sweep = len(sweeps) > 1 and "switches" not in given
    design = given.get("design") or (SWEEP if is_sweep else LEAVE_ONE_OUT)
    folder = paths.expanded(how["dir"] or ROOT / (how["name"] or design))
    if how["status"] or (not words and (folder / FILE_NAME).exists()):
        return Ledger.open(folder)
    request = _request(design, given, overrides)
    return Ledger.create(folder, request, _make_study)


def _check_overrides(overrides: Sequence[str]) -> None:
    for word in overrides:
        key = word.lstrip("+").partition("=")[0]
        if key == "seed":
            raise BadInput(
                "every arm has several seeds: write seeds=5, or seeds=[3,7] to name them"
            )
        if key == "run_dir":
            raise BadInput("the runs of a study are in its own folder: set that with dir=")


def _request(design: str, given: dict[str, Any], overrides: Sequence[str]) -> Request:
    _one_of("design", design, DESIGNS)
    if design == SWEEP and len(arguments.combinations(overrides, {})) < 2:
        raise BadInput("a sweep needs several values, such as learner.learning_rate=0.001,0.003")
    switches = arguments.listed("switches", given.get("switches") or ",".join(presets.IDEAS))
    for switch in switches:
        _one_of("switch", switch, presets.IDEAS)
    games = arguments.listed("game", given.get("game") or arguments.DEFAULT_GAME)
    return Request(
        design=design,
        games=tuple(dict.fromkeys(families.name_and_family(game)[0] for game in games)),
        switches=tuple(idea for idea in presets.IDEAS if idea in switches),
        seeds=(_seeds(given.get("seeds") or DEFAULT_SEEDS),),
        words=tuple(sorted(word.lstrip("+") for word in overrides)),
        pack=given.get("pack", True),
    )


def _one_of(what: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise BadInput(errors.unknown(what, name, names))


def _seeds(text: str) -> tuple[int, ...]:
    """`5` means five seeds; `3,7` or `[3]` list them."""
    items = arguments.listed("seeds", text)
    is_count = text.strip() == items[0] if len(items) == 1 else False
    if not all(item.isdecimal() and int(item) < 2**31 for item in items):
        raise BadInput(f"seeds is {text}: write seeds=5, or seeds=[3,7] for these")
    numbers = tuple(dict.fromkeys(map(int, items)))
    if is_count and not 1 <= numbers[0] <= MOST_SEEDS:
        raise BadInput(f"seeds is {text}: it must lie between 1 and {MOST_SEEDS:,}")
    return tuple(range(numbers[0])) if is_count else numbers


def _make_study(request: Request) -> Study:
    comparisons: dict[str, Comparison] = {}
    packed = set()
    sweeps = arguments.combinations(request.words, {})
    for game in request.games:
        bases = {
            name: arguments.compose([f"game={game}", *words, "seed=0"])
            for name, words in sweeps.items()
        }
        base = next(iter(bases.values()))
        comparisons[game] = compare(request.design, request.switches, bases, _spec(base))
        is_packed = request.pack and base.replay.memory == "device"
        if is_packed and runs_on_device(game, base.env.backend):
            packed.add(game)
    return Study(request, comparisons, frozenset(packed))


def _spec(base: Config) -> EnvSpec:
    env = make_env(base.game, base.env, num_envs=1, seed=0, training=True)
    env.close()
    return env.spec


def _tell_study(ledger: Ledger, progress: Progress) -> None:
    study = ledger.study
    seeds = sum(map(len, study.request.seeds))
    rows, left_out = {"study": f"{study.request.design}, {ledger.folder}"}, []
    for game, compared in study.comparisons.items():
        together = ", all seeds in one program" if game in study.packed else ""
        arms, each = len(compared.arms), f"{seeds} seed{'s' * (seeds != 1)}"
        rows[game] = f"{arms} arm{'s' * (arms != 1)} with {each} each{together}"
        left_out += [f"left out of {game}: {why}" for why in compared.left_out]
    progress.plan(rows, left_out)


def _tell_status(ledger: Ledger, progress: Progress) -> int:
    rows = arm_statuses(ledger)
    progress.table(status_table(rows))
    for row in rows:
        for failure in row.failures:
            progress.warn(failure)
    return exits.DONE


def _tell_end(ledger: Ledger, progress: Progress, seconds: float) -> int:
    """Print the scores if everything is done, otherwise what is missing."""
    rows = arm_statuses(ledger)
    if all(row.seeds["done"] == row.seeds.total() for row in rows):
        progress.table(score_table(rows))
        progress.say(f"done in {duration(seconds)}")
        progress.say(f"next: python -m ez_jax.report {ledger.folder}")
        return exits.DONE
    _tell_status(ledger, progress)
    progress.say("not everything is done; the same command resumes it")
    return exits.FAILED


HELP = """usage: python -m ez_jax.ablate [game=GAME,...] [design=DESIGN] [seeds=N] [KEY=VALUE ...]

Trains every arm of a study with several seeds, one run after another, each in its own process.
The same command resumes a study; more games, seeds or switches extend it.

examples
  python -m ez_jax.ablate game=CartPole,Catch seeds=5
  python -m ez_jax.ablate game=CartPole design=factorial switches=consistency,value_prefix
  python -m ez_jax.ablate game=Catch search.num_simulations=4,16,64 seeds=3     a sweep
  python -m ez_jax.ablate dir=runs/ablations/leave_one_out                      resume or join it
  python -m ez_jax.ablate dir=runs/ablations/leave_one_out status=true
  python -m ez_jax.ablate workers=8 hydra/launcher=submitit_slurm hydra.launcher.partition=gpu

what to compare
  design=leave_one_out     everything on, and each idea off by itself (default)
         add_one_in        everything off, each idea on by itself, everything on
         factorial         every combination of the ideas
         sweep             all combinations of the keys with several values
                           (default if there are any)
  switches=A,B             the ideas (default: all that have an effect in the game):
                           {ideas}
  seeds=5                  number of seeds, or a list: seeds=[3,7]
  pack=false               never train several seeds in one program, even if the game allows it
  KEY=VALUE                a key of ez_jax.train, for every run; KEY=A,B makes a sweep

how to run it
  name=NAME                folder runs/ablations/NAME (default: the design), or dir=PATH
  status=true              only print the progress
  retries=2                how often to try a failed run again
  fail_fast=true           stop at the first failure
  workers=4                run this many at once, with hydra/launcher=joblib, submitit_local or
                           submitit_slurm and any hydra.launcher.* key; all have to see the folder

exit codes: 0 all done, 1 something failed, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    # Leave the accelerator to the runs: this process only asks games for their observations.
    jax.config.update("jax_platforms", "cpu")
    ideas = textwrap.wrap(", ".join(presets.IDEAS), 69)
    terminal.start(main, HELP.format(ideas=f"\n{' ' * 27}".join(ideas)))
