"""The notebooks of the repository in a table, with a link that opens each in Colab."""

import json
import re

from experiments.site import places

COLAB = "https://colab.research.google.com/github"


def table() -> str:
    """Title, file and Colab link of every notebook; a sentence where there is none."""
    paths = sorted((places.ROOT / "notebooks").glob("*.ipynb"))
    if not paths:
        return "There are no notebooks in this copy of the repository."
    url, _ = places.repository()
    colab = url.replace("https://github.com", COLAB)
    rows = ["| notebook | on GitHub | in Colab |", "|---|---|---|"]
    for path in paths:
        file = f"blob/main/notebooks/{path.name}"
        rows.append(
            f"| {_title(path.read_text(encoding='utf-8')) or path.stem} "
            f"| [{path.name}]({url}/{file}) | [open]({colab}/{file}) |"
        )
    return "\n".join(rows)


def _title(text: str) -> str:
    """The first heading of a notebook."""
    cells = ("".join(cell["source"]) for cell in json.loads(text)["cells"])
    headings = (re.search(r"^# (.+)", cell, re.MULTILINE) for cell in cells)
    return next((found[1].strip() for found in headings if found), "")
