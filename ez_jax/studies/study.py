"""A study: the request and its arms, as stored in `ablation.json`."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ez_jax import config
from ez_jax.config import BadInput, flatten
from ez_jax.storage import safe_files
from ez_jax.studies.designs import Arm, Comparison

FILE_NAME = "ablation.json"
FORMAT = 1
LARGEST_FILE = 2**27  # bytes; a factorial of 256 arms has some 100,000 per game
_SAFE_NAME = re.compile(r"(?!\.)[\w.+=-]{1,240}")  # of an arm, because it names a folder


@dataclass(frozen=True)
class Request:
    """The request."""

    design: str
    games: tuple[str, ...]
    switches: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]  # by request: a pack trains the seeds of one group
    words: tuple[str, ...]  # the overrides for every run, and the sweeps
    pack: bool = True

    def extended(self, more: "Request", folder: Path) -> "Request":
        """Join two requests.

        Raises:
          BadInput: they do not fit together; names the first difference.
        """
        for there, here in [(self.design, more.design), (self.pack, more.pack)]:
            if there != here:
                raise _another(folder, f"it is {_word(there)} there and {_word(here)} here")
        there, here = (dict(word.split("=", 1) for word in it.words) for it in (self, more))
        for key in sorted(there | here):
            if there.get(key) != here.get(key):
                told = f"{key} is {there.get(key)} there and {here.get(key)} here"
                raise _another(folder, told.replace("None", "not given"))
        known = {seed for group in self.seeds for seed in group}
        new = tuple(seed for group in more.seeds for seed in group if seed not in known)
        return dataclasses.replace(
            self,
            games=tuple(dict.fromkeys(self.games + more.games)),
            switches=tuple(dict.fromkeys(self.switches + more.switches)),
            seeds=self.seeds + ((new,) if new else ()),
        )


@dataclass(frozen=True)
class Study:
    """The request, and the comparison in every game."""

    request: Request
    comparisons: Mapping[str, Comparison]
    packed: frozenset[str]  # games that train all seeds of a group in one program


def check_same(folder: Path, there: Study, here: Study) -> None:
    """Refuse to mix different arms of the same name, for example after a preset changed.

    Raises:
      BadInput: names the first difference.
    """
    for game, compared in there.comparisons.items():
        before = {arm.name: compared.config(arm) for arm in compared.arms}
        ours = here.comparisons[game]
        after = {arm.name: ours.config(arm) for arm in ours.arms}
        for name, chosen in before.items():
            if name not in after:
                raise _another(folder, f"{game} has the arm {name} there and not here")
            flat = flatten(after[name])
            for key, value in flatten(chosen).items():
                if flat[key] != value:
                    told = f"{key} is {value} there and {flat[key]} here"
                    raise _another(folder, f"in {game} {name} {told}")


def write(folder: Path, study: Study) -> None:
    """Write the study into its folder, completely or not at all."""
    safe_files.write_whole(folder / FILE_NAME, json.dumps(_to_json(study), indent=1) + "\n")


def _another(folder: Path, difference: str) -> BadInput:
    return BadInput(
        f"{folder} has another study: {difference}; choose another name= or dir=, "
        "or use the command that created it"
    )


def _word(value: Any) -> str:
    return f"pack={str(value).lower()}" if isinstance(value, bool) else str(value)


def _to_json(study: Study) -> dict[str, Any]:
    plans = {
        game: {
            "packed": game in study.packed,
            "base": config.to_dict(compared.base),
            "arms": [dataclasses.asdict(arm) for arm in compared.arms],
            "left_out": list(compared.left_out),
        }
        for game, compared in study.comparisons.items()
    }
    return {"format": FORMAT, "request": dataclasses.asdict(study.request), "plans": plans}


def read(folder: Path) -> Study:
    """The study in a folder.

    Raises:
      BadInput: there is none, or it is damaged.
    """
    path = folder / FILE_NAME
    try:
        content = safe_files.read_json(path, LARGEST_FILE)
    except OSError as error:
        reason = error.strerror
        raise BadInput(f"{folder} has no study: {FILE_NAME}: {reason}") from error
    if content.get("format") != FORMAT:
        raise BadInput(
            f"{path} has format {content.get('format')!r}, and this version of ez_jax reads "
            f"format {FORMAT}"
        )
    try:
        return _from_json(content)
    except (BadInput, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged ({error}); delete it and use the whole command again: "
            "finished runs are kept"
        ) from error


def _from_json(content: dict[str, Any]) -> Study:
    asked = content["request"]
    request = Request(
        design=str(asked["design"]),
        games=tuple(map(str, asked["games"])),
        switches=tuple(map(str, asked["switches"])),
        seeds=tuple(tuple(map(int, group)) for group in asked["seeds"] if group),
        words=tuple(map(str, asked["words"])),
        pack=bool(asked["pack"]),
    )
    if not all("=" in word for word in request.words):
        raise ValueError("a word has no value")
    comparisons = {}
    for game, told in content["plans"].items():
        arms = tuple(
            Arm(str(a["name"]), dict(a["settings"]), str(a["against"])) for a in told["arms"]
        )
        for arm in arms:
            if not _SAFE_NAME.fullmatch(arm.name):
                raise ValueError(f"{arm.name!r} is not the name of an arm")
        base = config.validate(config.from_dict(told["base"]))
        comparisons[game] = Comparison(base, arms, tuple(map(str, told["left_out"])))
    packed = frozenset(game for game, told in content["plans"].items() if told["packed"])
    return Study(request, comparisons, packed)
