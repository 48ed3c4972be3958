"""What `mkdocs build` does beyond MkDocs: formulas, links into the code, pages made from it."""
