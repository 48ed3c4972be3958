"""The code of the package and the tests that pages name, as pages of the site, line by line."""

import re
from collections.abc import Iterable

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from experiments.site import places

_LEXER = PythonLexer()
# Every line is an element with an id and begins with its number, a link to itself.
_FORMATTER = HtmlFormatter(
    linenos="inline", lineanchors="L", linespans="L", anchorlinenos=True, cssclass="highlight"
)


def paths(named: Iterable[str]) -> list[str]:
    """Every file to show: the whole package and the files `named` by pages."""
    package = (places.ROOT / "ez_jax").rglob("*.py")
    return sorted({path.relative_to(places.ROOT).as_posix() for path in package} | set(named))


def page(path: str) -> str:
    """The Markdown of the page of a file; its code is put in when it is HTML, see `lines`."""
    return (
        f"---\ntitle: {path}\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n"
        f"# `{path}`\n\n{{{{ repository({path!r}) }}}}\n"
    )


def lines(path: str) -> str:
    """The highlighted code of a file."""
    code = (places.ROOT / path).read_text(encoding="utf-8")
    found = highlight(code, _LEXER, _FORMATTER)
    # Line spans and line anchors would be the same id twice.
    found = re.sub(r'<a id="L-\d+" name="L-\d+"></a>', "", found)
    return f'<div class="source">{found}</div>'
