"""The hooks that `mkdocs.yml` names: MkDocs calls each `on_...` where its name says.

Pages are templates of Jinja that may call `MACROS`, `{{ name("argument") }}`. A name of the code
that does not exist ends the build with a sentence.
"""

import re
import sys
from pathlib import Path
from typing import Any

import jinja2
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# Before an installed copy: what is shown is this working tree. `experiments` is not installed.
sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from experiments.site import (
    formulas,
    gpu,
    hyperparameters,
    links,
    notebooks,
    places,
    readme,
    sentences,
    settings,
    speed,
    status,
)

MACROS = {
    "address": places.address,  # of a file or folder in the repository
    "repository_url": lambda: places.repository()[0],
    "readme": readme.section,  # what stands below a heading of README.md
    "notebooks": notebooks.table,
    "refusals": sentences.refusals,
    "presets_on": hyperparameters.presets_on,
    "names": hyperparameters.names,
    "settings": settings.reference,
    "groups": settings.groups,
    "reproductions": status.overview,
    "reproduction_details": status.details,
    **{
        macro.__name__: macro
        for macro in (
            *(links.code, links.test, links.key, links.line, links.repository, links.api),
            *(status.atari, status.evaluations),
            *(gpu.gpu_notice, gpu.gpu_searches, gpu.gpu_parts, gpu.gpu_curve),
            *(gpu.gpu_evaluation, gpu.gpu_counts, speed.before_and_after),
            *(status.published_runs, status.small_games, status.clear_effects, status.suite),
            status.pretrained_agents,
        )
    },
}
_JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined)
_JINJA.globals.update(MACROS)


def expand(text: str, page: str) -> str:
    """Put in what the macros stand for.

    Raises:
      PluginError: an unknown macro, or one that cannot be expanded.
    """
    try:
        return _JINJA.from_string(text).render()
    except (jinja2.TemplateError, PluginError) as error:
        raise PluginError(f"{page}: {error}") from error


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the code and the figures of the results."""
    for folder in ("ez_jax", "experiments", "tests"):
        for file in (places.ROOT / folder).rglob("*.py"):
            path = file.relative_to(places.ROOT).as_posix()
            files.append(File.generated(config, f"source/{path}.md", content=places.page(path)))
    for address, picture in status.pictures().items():
        files.append(File.generated(config, address, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Number the formulas and put in what the macros stand for."""
    name = page.file.src_uri
    is_code = name.startswith("source/")
    return markdown if is_code else expand(formulas.number_blocks(markdown, name), name)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Draw the formulas, and tell MkDocs the lines of code that may be linked to."""
    (page.present_anchor_ids or set()).update(re.findall(r'id="(L-0-\d+)"', html))
    return formulas.draw(html, page.file.src_uri)
