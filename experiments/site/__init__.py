"""Extensions of `mkdocs build`: formulas, links into the code, pages generated from it."""
