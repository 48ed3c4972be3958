"""EfficientZero (Ye et al., 2021): act by search, learn, act by search, learn.

    python -m ez_jax.train +game=Breakout

Until the data is collected, in N environments at once:

    1. search from every observation and choose an action      agent/search/, actor.py
       record observation, policy and value                    agent/replay/
    2. sample sequences by priority, search some of them again agent/replay/, reanalyse/
       compute targets of value, value prefix and policy       agent/targets/
       unroll the model, descend the gradient of the losses    agent/losses.py, learner.py
    3. observe what the actions led to                         envs/
    4. log, evaluate, save: each when it is due                training/record.py

Then 5. the updates after the last step. While the environments step on their threads, the device
learns; the learner always sees a defined prefix of the data, so the same seed gives the same curve.
On many devices and hosts each process runs the same loop (system/devices.py, processes.py).
"""

from collections.abc import Sequence

from ez_jax.config import Config, run_folder
from ez_jax.system import compilation, exits
from ez_jax.system.watchdog import Watchdog
from ez_jax.terminal import launch


def train(config: Config) -> int:
    """Train to the end, or resume the run in its folder; returns the exit code."""
    # Imported here, so that help and refusals do not wait for JAX.
    from ez_jax.system import processes
    from ez_jax.terminal.progress import Progress
    from ez_jax.training import process_guard
    from ez_jax.training.run import Run

    compilation.configure_jax(alone=False)
    processes.join(config)
    compilation.check_device()
    progress = Progress(live=config.log.progress, silent=not processes.is_first())
    folder = run_folder(config)
    with (
        process_guard.ending_together(folder, progress.warn),
        Watchdog(folder, config.log.watchdog),
        Run(config, progress) as run,
    ):
        step = run.begin()
        with run.interrupt:
            while run.collects():
                run.games.send(run.decide(step))  # 1. search; the games begin to step
                run.learn(run.updates_due())  # 2. sample, reanalyse, unroll, update
                step = run.observe()  # 3. observe
                run.report()  # 4. log, evaluate, save
            while run.updates_left():
                run.learn(run.updates_left())  # 5. after the last step
                run.report()
            run.finish()
    return exits.INTERRUPTED if run.is_stopped else exits.DONE


def plan(config: Config) -> int:
    """Print what the run would need and how long it would take; leaves nothing behind."""
    from ez_jax.terminal.progress import Progress
    from ez_jax.training.planning.preview import show_plan

    compilation.configure_jax()
    show_plan(config, Progress(live=config.log.progress))
    return exits.DONE


def together(runs: Sequence[Config]) -> int:
    """Train several runs of one game in one program, if the game allows it."""
    from ez_jax.training.vmapped import train_together

    return train_together(runs)


if __name__ == "__main__":
    launch.main(train, plan=plan, together=together, description=__doc__.splitlines()[0])
