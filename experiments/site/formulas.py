"""Formulas: LaTeX in the pages becomes MathML, which browsers draw without any script.

A block is a fence called math; the paragraph right below it, without an empty line between, says
where the formula is from, which function computes it and which test checks it.
"""

import html
import re
from collections.abc import Iterator

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

BLOCK = re.compile(r"^```math\n(?P<latex>(?:.*\n)*?)```\n(?P<below>(?:.+\n)*)", re.MULTILINE)
# Below every formula: its source in words, then the macros that link to its code and its tests.
_BELOW = re.compile(
    r"(?P<source>.*?\S)\s*(?P<code>\{\{ code\(.*?\) \}\})\s*(?P<test>\{\{ test\(.*?\) \}\})",
    re.DOTALL,
)
_ARITHMATEX = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def number_blocks(markdown: str, page: str) -> str:
    """Every block as a numbered figure with its references below.

    Raises:
      PluginError: a formula without a link to its function or to its test.
    """
    numbers: Iterator[int] = iter(range(1, 1_000))

    def figure(match: re.Match[str]) -> str:
        number, below = next(numbers), _BELOW.fullmatch(match["below"].strip())
        if not below:
            raise PluginError(
                f"formula {number} of {page}: write its source, {{{{ code(...) }}}} and "
                "{{ test(...) }} right below it, in this order"
            )
        return (
            f'<figure class="equation" id="eq-{number}" markdown="1">\n'
            f'<a class="number" href="#eq-{number}">({number})</a>\n\n'
            f"$$\n{match['latex'].strip()}\n$$\n\n"
            f'<figcaption markdown="1">\n<p class="from" markdown="span">{below["source"]}</p>\n'
            f'<p class="code" markdown="span">{below["code"]}</p>\n'
            f'<p class="test" markdown="span">{below["test"]}</p>\n</figcaption>\n</figure>\n'
        )

    return BLOCK.sub(figure, markdown)


def draw(page_html: str, page: str) -> str:
    """Replace what the Markdown extension marked as LaTeX by MathML."""

    def mathml(match: re.Match[str]) -> str:
        tag, text = match.groups()
        latex = html.unescape(text).strip()[2:-2]  # without \( \) or \[ \]
        return to_mathml(latex.strip(), "block" if tag == "div" else "inline", page)

    return _ARITHMATEX.sub(mathml, page_html)


def to_mathml(latex: str, display: str, page: str) -> str:
    r"""One formula.

    Raises:
      PluginError: a command that the converter does not know, which it would print as it is.
    """
    try:
        found = convert(latex, display=display)
    except Exception as error:
        raise PluginError(f"{page}: the formula {latex} cannot be read: {error!r}") from error
    unknown = re.search(r"\\\\\[[\d.]+\w+\]", latex)  # a distance between rows, which it prints
    if unknown := unknown or re.search(r"\\[A-Za-z]+|<mi>&<|<merror", found):
        raise PluginError(f"{page}: '{unknown[0]}' in the formula {latex} is not known to MathML")
    return found.replace("<math ", "<math data-search-exclude ", 1)
