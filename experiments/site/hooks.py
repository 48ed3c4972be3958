"""The hooks that `mkdocs.yml` names: MkDocs calls each `on_...` where its name says.

Pages may hold macros, `{{ name("argument") }}`, of which `MACROS` is the list. A name of the code
that does not exist ends the build with a sentence.
"""

import ast
import html
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Before an installed copy: what is shown is this working tree. `experiments` is not installed.
sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from experiments.site import (
    api,
    formulas,
    notebooks,
    places,
    readme,
    sentences,
    settings,
    sources,
    status,
)
from ez_jax import config as configs

_MACRO = re.compile(r"\{\{ (\w+)\((.*?)\) \}\}")


class Here:
    """The page that is made, and how to link from it."""

    def __init__(self, page: Page, config: MkDocsConfig, files: Files):
        """As MkDocs calls its hooks."""
        self.page = page
        self.files = files
        self.repo_url = (config.repo_url or "").rstrip("/")
        self.commit = config.extra["commit"]

    def to(self, target: str) -> str:
        """The relative address of a page of the site, `settings.md#seed` for example."""
        path, hash_, anchor = target.partition("#")
        file = self.files.get_file_from_path(path)
        if file is None:
            raise PluginError(f"{self.page.file.src_uri} links to {path}, which is no page")
        return file.url_relative_to(self.page.file) + hash_ + anchor

    def link(self, place: places.Place, shown: str, kind: str) -> str:
        """A link to the lines in the site, and a small one to those in the repository."""
        there = place.on_repository(self.repo_url, self.commit)
        return (
            f'<a class="{kind}" href="{self.to(place.source)}">{shown}</a>'
            f'<a class="repository" href="{there}" title="{place.path} in the repository">↗</a>'
        )


def _code(here: Here, *targets: str) -> str:
    found = map(places.find, targets)
    return " ".join(here.link(x, f"<code>{html.escape(x.name)}</code>", "code") for x in found)


def _test(here: Here, *targets: str) -> str:
    parts = []
    for place in map(places.find, targets):
        *_, name = place.name.split(".")  # the tests of a class are named by it as well
        parts.append(here.link(place, name.removeprefix("test_").replace("_", " "), "test"))
    return " ".join(parts)


def _key(here: Here, key: str) -> str:
    if key not in configs.dotted_keys():
        raise PluginError(f"{here.page.file.src_uri}: {configs.unknown_key(key)}")
    return f'<a class="key" href="{here.to("configuration.md")}#{key}"><code>{key}</code></a>'


def _repository(here: Here, path: str) -> str:
    if not (places.ROOT / path).exists():
        raise PluginError(f"{here.page.file.src_uri} names {path}, which does not exist")
    kind = "tree" if (places.ROOT / path).is_dir() else "blob"
    url = f"{here.repo_url}/{kind}/{here.commit}/{path}"
    return f'<a href="{url}"><code>{path}</code> in the repository</a>'


def _readme(here: Here, heading: str, table: bool = False, file: str = "README.md") -> str:
    text = readme.section(heading, file, repo_url=here.repo_url, commit=here.commit, table=table)
    # MkDocs turns links between files of pages into addresses itself.
    folder = posixpath.dirname(here.page.file.src_uri)
    return re.sub(r"SITE/([^)]+)", lambda match: posixpath.relpath(match[1], folder), text)


def _line(here: Here, path: str, number: int) -> str:
    place = places.Place(f"{path}:{number}", path, number, number)
    return f'<a class="line" href="{here.to(place.source)}">line {number}</a>'


def _made(make: Callable[..., str]) -> Callable[..., str]:
    """A macro of text that does not depend on the page."""
    return lambda here, *args: make(*args)


MACROS: dict[str, Callable[..., str]] = {
    "code": _code,  # definitions, by `module:name`
    "test": _test,  # tests, by `tests/file.py::name`
    "key": _key,  # a key of the configuration
    "line": _line,  # a line of a file
    "repository": _repository,  # a file or folder there
    "readme": _readme,  # what stands below a heading of README.md
    "api": _made(api.entry),  # signature and docstring
    "notebooks": lambda here: notebooks.table(here.repo_url),
    "refusals": _made(sentences.refusals),
    "settings": _made(settings.reference),
    "groups": _made(settings.groups),
    "reproductions": _made(status.overview),
    "reproduction_details": _made(status.details),
    "atari": _made(status.atari),
    "evaluations": _made(status.evaluations),
    "gpu_items": _made(status.gpu_items),
    "gpu_notice": _made(status.gpu_notice),
    "published_runs": _made(status.published_runs),
    "small_games": _made(status.small_games),
    "clear_effects": _made(status.clear_effects),
}


def expand(text: str, here: Here) -> str:
    """Put in what the macros stand for; what they give may hold macros itself.

    Raises:
      PluginError: an unknown macro, or one with arguments that are not plain values.
    """

    def one(match: re.Match[str]) -> str:
        name, arguments = match.groups()
        if name not in MACROS:
            raise PluginError(
                f"{here.page.file.src_uri}: {match[0]} is none of {', '.join(MACROS)}"
            )
        try:
            call = ast.parse(f"f({arguments})", mode="eval").body
            values = [ast.literal_eval(each) for each in call.args]
            named = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
        except (SyntaxError, ValueError) as error:
            raise PluginError(f"{here.page.file.src_uri}: {match[0]} cannot be read") from error
        return expand(MACROS[name](here, *values, **named), here)

    return _MACRO.sub(one, text)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Find the commit that links into the repository name."""
    command = ["git", "-C", str(places.ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    config.extra["commit"] = found.stdout.strip() or "HEAD"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the code and the figures of the results."""
    named = set()
    for file in files.documentation_pages():
        for name, arguments in _MACRO.findall(file.content_string):
            if name in ("code", "test"):
                targets = re.findall(r'"([^"]+)"', arguments)
                named |= {places.find(target).path for target in targets}
    for path in sources.paths(named):
        files.append(File.generated(config, f"source/{path}.md", content=sources.page(path)))
    for address, path in status.pictures().items():
        files.append(File.generated(config, address, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Number the formulas and put in what the macros stand for."""
    here = Here(page, config, files)
    text = expand(formulas.number_blocks(markdown, page.file.src_uri), here)
    return text.replace("REPOSITORY/", f"{here.repo_url}/blob/{here.commit}/")


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Draw the formulas, and put the code into its pages."""
    name = page.file.src_uri
    if name.startswith("source/"):
        return html + sources.lines(name.removeprefix("source/").removesuffix(".md"))
    return formulas.draw(html, name)
