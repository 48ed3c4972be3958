"""EfficientZero (Ye et al., 2021): act by search, learn, act by search, learn.

    python -m ez_jax.train +game=Breakout

One process and one loop. While the environments step on their threads, the device learns; the
learner always sees a defined prefix of the data, so the same seed gives the same curve. On many
devices and hosts it is the same loop, in each process (`devices.py`, `processes.py`).
"""

from collections.abc import Sequence

from ez_jax.config import Config, run_folder
from ez_jax.system import compilation, exits, processes
from ez_jax.system.watchdog import Watchdog
from ez_jax.terminal import launch
from ez_jax.terminal.progress import Progress
from ez_jax.training import process_guard
from ez_jax.training.planning import plan as planning
from ez_jax.training.run import Run


def train(config: Config) -> int:
    """Train to the end, or go on with the run that its folder holds; returns the exit code."""
    compilation.configure_jax()
    processes.join(config)
    progress = Progress(live=config.log.progress, silent=not processes.is_first())
    watchdog = Watchdog(run_folder(config), config.log.watchdog)
    with (
        process_guard.called(run_folder(config), progress.warn),
        watchdog,
        Run(config, progress) as run,
    ):
        step = run.begin()
        with run.interrupt:
            while run.collects():
                action = run.decide(step)  # 1. search in every environment, record the decision
                run.games.send(action)
                run.learn(run.updates_due())  # 2. sample, reanalyse, unroll, refresh priorities
                step = run.games.recv()
                run.report()
            while run.updates_left():
                run.learn(run.updates_left())  # 3. the updates that run past the data
                run.report()
            run.finish()
    return exits.INTERRUPTED if run.is_stopped else exits.DONE


def plan(config: Config) -> int:
    """Say what the run would need and how long it would take; nothing is left behind."""
    compilation.configure_jax()
    return planning.tell(config, Run, Progress(live=config.log.progress))


def together(runs: Sequence[Config]) -> int:
    """Train several runs of one game in one program, where the game allows it."""
    from ez_jax.training.vmapped import train_together

    return train_together(runs)


if __name__ == "__main__":
    launch.main(train, plan=plan, together=together, description=__doc__.splitlines()[0])
