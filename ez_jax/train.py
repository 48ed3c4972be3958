"""EfficientZero (Ye et al., 2021): act by search, learn, act by search, learn.

    python -m ez_jax.train +game=Breakout

One process and one loop. While the environments step on their threads, the device learns; the
learner always sees a defined prefix of the data, so the same seed gives the same curve.
"""

from ez_jax import cli
from ez_jax.config import Config, run_folder
from ez_jax.interrupt import Interrupt
from ez_jax.progress import Progress
from ez_jax.run import Run
from ez_jax.watchdog import Watchdog


def train(config: Config) -> int:
    """Train to the end, or go on with the run that its folder holds; returns the exit code."""
    cli.configure_jax()
    watchdog = Watchdog(run_folder(config), config.log.watchdog)
    with watchdog, Run(config, Progress(live=config.log.progress)) as run, Interrupt() as interrupt:
        step = run.env.reset()
        while run.clocks.agent_steps < config.total_agent_steps and not interrupt.requested:
            action = run.decide(step)  # 1. search in every environment, record the decision
            run.env.send(action)
            run.learn(run.updates_due())  # 2. sample, reanalyse, unroll, refresh priorities
            step = run.observe(run.env.recv())
            run.report()
        while run.updates_left() and not interrupt.requested:
            run.learn(run.updates_left())  # 3. the updates that run past the data
            run.report()
        run.finish(interrupted=interrupt.requested)
    return cli.INTERRUPTED if interrupt.requested else cli.DONE


if __name__ == "__main__":
    cli.main(train, description=__doc__.splitlines()[0])
