"""What does the agent think? One episode of a run, with every search in it, as a page.

    python -m ez_jax.inspect run=runs/CartPole/default/seed0

This folder has no `__init__.py` on purpose: a module or package `inspect` in `ez_jax` would hide
that of the standard library if a file of `ez_jax` is started by its path. The code is in
`inspection`, and `ez_jax.inspect_run` is the same as a function.
"""

from collections.abc import Sequence

from ez_jax import terminal
from ez_jax.config import BadInput
from ez_jax.inspection import MAX_NODES, MAX_STEPS
from ez_jax.system import compilation, exits
from ez_jax.terminal import arguments

OWN_KEYS = {
    "run": "",
    "out": "",
    "best": False,
    "max_steps": MAX_STEPS,
    "depth": 0,
    "max_nodes": MAX_NODES,
}
BYTES_PER_MB = 1e6


def main(words: Sequence[str]) -> int:
    """Play an episode and write its page; print what was found and the size of the page."""
    values, changes = arguments.read(words, OWN_KEYS)
    run = values.pop("run")
    if not run:
        raise BadInput("which run? write run=DIR, such as run=runs/CartPole/default/seed0")
    if "seed" in changes:  # of the episode; the run's own does not matter here
        changes["eval.seed"] = changes.pop("seed")
    # Imported late: it loads JAX, and refusals should be quick.
    from ez_jax.inspection.inspect_run import inspect_run
    from ez_jax.terminal.progress import Progress

    compilation.configure_jax()
    say = Progress().say
    path = inspect_run(run, changes=changes, say=say, **values)
    say(f"wrote {path}, {path.stat().st_size / BYTES_PER_MB:.1f} MB")
    return exits.DONE


HELP = f"""usage: python -m ez_jax.inspect run=DIR [KEY=VALUE ...]

Plays one evaluation episode and writes a self-contained page about it: frames, policies and values
before and after each search, the search trees, and imagined beside observed states.
  run=DIR                      the run folder
  run=pretrained:CartPole      an agent that comes with ez_jax; DIR is runs/pretrained/CartPole
  out=FILE                     where to write the page (default: DIR/inspect.html)
  seed=3                       seed of the episode (default: eval.seed of the run)
  best=true                    use the weights of the best evaluation instead of the newest
  max_steps={MAX_STEPS}                stop after this many steps
  depth=10                     steps to imagine from each frame (default: as in training)
  max_nodes={MAX_NODES}                 nodes of each search tree to keep, the most visited
  search.num_simulations=50    any key of search, eval and env, except those that the weights
                               fix (env.frame_stack, image_size, grayscale) and those of
                               training alone (its noise, env.max_episode_steps)
exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    terminal.start(main, HELP)
