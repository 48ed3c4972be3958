"""Links into the code, as Markdown: MkDocs itself checks that they lead somewhere."""

import importlib

from mkdocs.exceptions import PluginError

from experiments.site import places
from ez_jax import config


def code(*targets: str) -> str:
    """Definitions, by `module:name`."""
    return " ".join(_link(each, f"`{each.name}`", "code") for each in map(places.find, targets))


def test(*targets: str) -> str:
    """Tests, by `tests/file.py::name`."""
    parts = []
    for place in map(places.find, targets):
        *_, name = place.name.split(".")  # the tests of a class are named by it as well
        parts.append(_link(place, name.removeprefix("test_").replace("_", " "), "test"))
    return " ".join(parts)


def _link(place: places.Place, shown: str, kind: str) -> str:
    """To the lines in the site, and a small one to those in the repository."""
    lines = f"#L{place.first}-L{place.last}" if place.first else ""
    there = f'{places.address(place.path)}{lines}){{ .repository title="{place.path}" }}'
    return f"[{shown}]({place.source}){{ .{kind} }}[↗]({there}"


def line(path: str, number: int) -> str:
    """A line of a file."""
    return f"[line {number}]({places.Place(path, path, number, number).source}){{ .line }}"


def key(name: str) -> str:
    """A key of the configuration.

    Raises:
      PluginError: there is none of that name.
    """
    if name not in config.dotted_keys():
        raise PluginError(config.unknown_key(name))
    return f"[`{name}`](configuration.md#{name}){{ .key }}"


def repository(path: str) -> str:
    """A file or folder there."""
    return f"[`{path}` in the repository]({places.address(path)})"


def api(target: str) -> str:
    """What mkdocstrings makes of a definition, by the name to import, and a link to its code."""
    module, _, name = target.partition(":")
    packages = "ez_jax", module.rpartition(".")[0]
    home = next((p for p in packages if hasattr(importlib.import_module(p), name)), module)
    options = f"    options:\n      heading: {home}.{name}\n      toc_label: {name}"
    return f"::: {module}.{name}\n{options}\n\n{code(target)}"
