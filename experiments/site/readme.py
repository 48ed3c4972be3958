"""Parts of README.md and CONTRIBUTING.md in the site, so that each text has one home."""

import re

from mkdocs.exceptions import PluginError

from experiments.site import places

_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def section(heading: str, table: bool = False, file: str = "README.md") -> str:
    """What stands below a heading, or only its first table.

    Raises:
      PluginError: no such heading, or no table below it.
    """
    text = (places.ROOT / file).read_text(encoding="utf-8")
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL
    )
    if not found:
        raise PluginError(f"the docs show '{heading}' of {file}, which has no such heading")
    body = found[2].strip()
    if table:
        rows = re.search(r"^\|.*?(?=\n[^|]|\n\n|\Z)", body, re.MULTILINE | re.DOTALL)
        if not rows:
            raise PluginError(f"the docs show the table of '{heading}' of {file}: there is none")
        body = rows[0]
    return _LINK.sub(lambda match: f"]({_moved(match[1])})", body)


def _moved(link: str) -> str:
    """A link of the README as it is from the site: to a source page, or to the repository."""
    path = link.partition("#")[0]
    is_shown = path.startswith("ez_jax/") and path.endswith(".py")
    return f"source/{path}.md" if is_shown else places.address(path)
