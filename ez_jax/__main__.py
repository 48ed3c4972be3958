"""`ez_jax COMMAND ...` and `python -m ez_jax COMMAND ...`: the commands under one name.

`ez_jax train game=Catch` is `python -m ez_jax.train game=Catch`: same words, same exit codes.
Nothing is imported before a command is chosen, so help and errors are printed at once.
"""

import runpy
import sys

import ez_jax

COMMANDS = {
    "train": "train an agent, or resume a run",
    "evaluate": "play full episodes with a trained agent, and record videos",
    "inspect": "write a page that shows what an agent thinks in every frame of an episode",
    "ablate": "train with each idea switched off, over several seeds; or sweep any key",
    "report": "make figures, tables and a page from many runs",
    "doctor": "check this machine, or an environment of your own",
    "replay_crash": "repeat the last update of a failed run and find what broke",
}
_ASKS_FOR_HELP = {"-h", "--help"}


def main() -> None:
    """Run the command that `sys.argv` names; it ends the process with its exit code."""
    words = sys.argv[1:]
    if not words or words[0] in _ASKS_FOR_HELP:
        sys.stdout.write(_overview())
    elif words[0] == "--version":
        sys.stdout.write(f"ez_jax {ez_jax.__version__}\n")
    elif words[0] in COMMANDS:
        _run(words[0], words[1:])
    else:
        from ez_jax.config import errors

        sys.stderr.write(f"error: {errors.unknown('command', words[0], COMMANDS)}\n")
        sys.exit(2)


def _run(name: str, words: list[str]) -> None:
    if name == "train" and _ASKS_FOR_HELP & set(words):
        # The module needs JAX; its help does not.
        from ez_jax.terminal import help_page

        sys.stdout.write(
            help_page.render("Train EfficientZero (Ye et al., 2021), or resume a run.")
        )
        return
    sys.argv = [f"ez_jax {name}", *words]
    runpy.run_module(f"ez_jax.{name}", run_name="__main__", alter_sys=True)


def _overview() -> str:
    lines = [f"  {name:<14} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ez_jax COMMAND [KEY=VALUE ...]",
            "",
            "EfficientZero in JAX. Commands:",
            *lines,
            "",
            "  ez_jax COMMAND --help     what a command takes",
            "  ez_jax --version          the version",
            "",
            "`python -m ez_jax COMMAND` and `python -m ez_jax.COMMAND` are the same.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
