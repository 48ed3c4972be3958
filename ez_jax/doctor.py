"""Check the machine or a game: versions, hardware, and checks that name the fix.

    python -m ez_jax.doctor
    python -m ez_jax.doctor env=my_package:MyEnv-v0     # can this game be trained on?

The last part flips every switch of the algorithm and checks that exactly what should change does
(see `switches.py`).
"""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ez_jax import terminal
from ez_jax.config import BadInput
from ez_jax.diagnosis import machine_checks
from ez_jax.diagnosis.verdicts import Verdicts
from ez_jax.system import compilation, machine
from ez_jax.terminal import arguments

if TYPE_CHECKING:
    from ez_jax.diagnosis.switches import Switch

OWN_KEYS = {"quick": False, "verbose": False}
GAME_KEYS = {"env": "", "preset": ""}


def switch_checks() -> Iterator[machine_checks.Check]:
    """One check for each row of the table of switches."""
    from ez_jax.diagnosis.switches import SWITCHES, claim

    for switch in SWITCHES:
        yield machine_checks.Check(
            name=str(switch),
            claim=claim(switch),
            run=functools.partial(_flip, switch),
            fix=lambda error: (
                "this is an error in the code, not in the machine: see the row of this switch in "
                "ez_jax/diagnosis/switches.py, or report it"
            ),
        )


def _flip(switch: "Switch") -> None:
    from ez_jax.diagnosis.switches import flip, in_groups

    result = flip(switch)
    if result.dead or result.leaks:
        dead, leaks = in_groups(sorted(result.dead)), in_groups(sorted(result.leaks))
        raise AssertionError(f"did not change: {dead}; changed though it should not: {leaks}")


def main(words: Sequence[str]) -> int:
    """Print everything; the exit code says whether all checks succeeded."""
    values, changes = arguments.read(list(map(_as_key, words)), OWN_KEYS | GAME_KEYS)
    verdicts = Verdicts(verbose=values["verbose"])
    if values["env"]:
        return _check_game(verdicts, values, changes)
    given = [key for key in GAME_KEYS if values[key]] + list(changes)
    if given:
        own = " and ".join(f"{key}=true" for key in OWN_KEYS)
        raise BadInput(f"{given[0]} belongs to a run; without env=GAME only {own} can be set")
    verdicts.section("versions")
    verdicts.columns({name: v or "not installed" for name, v in machine.versions().items()})
    verdicts.section("machine")
    verdicts.rows(machine.facts())
    verdicts.section("checks")
    succeeded = [verdicts.check(check) for check in machine_checks.CHECKS]
    if not values["quick"] and succeeded[0]:  # without a device there is nothing to flip
        verdicts.section("switches: each changes what is named, and nothing else")
        for check in switch_checks():
            verdicts.check(check)
    return verdicts.conclude()


def _check_game(verdicts: Verdicts, values: Mapping[str, Any], changes: Mapping[str, Any]) -> int:
    """Check one game, and print what it would get; returns the exit code."""
    # Imported late: without them, the machine can still be checked.
    from ez_jax.config import presets
    from ez_jax.diagnosis.game.checks import Game, stages

    compilation.configure_jax()
    config = presets.make_config(values["env"], values["preset"], changes=changes)
    game = Game(config, steps=200 if values["quick"] else 2_000)
    verdicts.section(f"checks of {config.game}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of the checks reports them
        for checks in stages(game):
            # Each stage needs what the one before checked.
            if not all([verdicts.check(_alive(check)) for check in checks]):
                return verdicts.conclude()
    verdicts.section("what it would get")
    verdicts.rows(game.would_get())
    return verdicts.conclude()


def _alive(check: machine_checks.Check) -> machine_checks.Check:
    """A check that survives a game that ends the process."""
    from ez_jax.config.errors import Fault
    from ez_jax.envs.answers import kept_alive

    def run() -> "str | machine_checks.Note | None":
        with kept_alive(lambda what: Fault(f"the game {what}")):
            return check.run()

    return dataclasses.replace(check, run=run)


def _as_key(word: str) -> str:
    """`--quick` means `quick=true`."""
    return f"{word[2:]}=true" if word[2:] in OWN_KEYS and word.startswith("--") else word


HELP = """usage: python -m ez_jax.doctor [quick=true] [verbose=true]
       python -m ez_jax.doctor env=GAME [preset=PRESET] [quick=true] [verbose=true] [KEY=VALUE ...]

Shows versions and machine, tries everything that a run relies on, and says what to fix.
With env=GAME it plays that game instead (any that ez_jax.train takes: Breakout,
my_package:MyEnv-v0), and says what to fix and which settings the game would get.
  quick=true                   skip the switches of the algorithm (half a minute), or play 200
                               random steps of the game instead of 2,000
  verbose=true                 full tracebacks of failures
  preset=small                 settings for the game, as any key of a run: env.frame_stack=4
exit codes: 0 all checks succeeded, 1 something failed, 2 bad input, 130 interrupted
"""

if __name__ == "__main__":
    terminal.start(main, HELP)
