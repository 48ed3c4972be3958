"""Where a name of the code stands: its file and lines, found without importing it."""

import ast
import configparser
import dataclasses
import difflib
import functools
import subprocess
from pathlib import Path

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parent.parent.parent


@dataclasses.dataclass(frozen=True)
class Place:
    """A definition in the repository, or a whole file, whose lines are 0."""

    name: str  # as a reader knows it: `targets.n_step_value`
    path: str  # from the root of the repository, with slashes
    first: int
    last: int

    @property
    def source(self) -> str:
        """The page of the site that shows it, with the line as its anchor."""
        return f"source/{self.path}.md" + (f"#L-0-{self.first}" if self.first else "")


@functools.cache
def repository() -> tuple[str, str]:
    """Its address, and the commit that is shown."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return setup["metadata"]["url"], found.stdout.strip() or "HEAD"


def address(path: str) -> str:
    """Of a file or folder in the repository.

    Raises:
      PluginError: there is none.
    """
    if not (ROOT / path).exists():
        raise PluginError(f"the docs name {path}, which does not exist")
    url, commit = repository()
    return f"{url}/{'tree' if (ROOT / path).is_dir() else 'blob'}/{commit}/{path}"


def page(path: str) -> str:
    """The Markdown of the page that shows a file, line by line."""
    code = (ROOT / path).read_text(encoding="utf-8")
    fence = "`" * 6  # code may hold shorter ones
    return (
        f"---\ntitle: {path}\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n"
        f"# `{path}`\n\n[`{path}` in the repository]({address(path)})\n\n"
        f'{fence} {{ .python linenums="1" }}\n{code}{fence}\n'
    )


def find(target: str) -> Place:
    """The place of `module:name`, `module:Class.name`, `tests/file.py::test` or of a whole file.

    Raises:
      PluginError: there is no such file, or nothing of that name in it; it ends the build.
    """
    is_test = "::" in target
    module, _, name = target.partition("::" if is_test else ":")
    path = module if module.endswith(".py") else module.replace(".", "/") + ".py"
    for inner in ("__init__.py", "__main__.py"):
        if not (ROOT / path).is_file():
            path = f"{module.replace('.', '/')}/{inner}"
    if not (ROOT / path).is_file():
        raise PluginError(f"the docs name {target}, but there is no file of that module")
    if not name:
        return Place(path, path, 0, 0)
    node: ast.AST = parse(path)
    for part in name.split("."):
        inner = definitions(node)
        if part not in inner:
            near = difflib.get_close_matches(part, inner, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise PluginError(f"the docs name {target}, but {path} has no '{part}' there{hint}")
        node = inner[part]
    shown = name if is_test else f"{module.removeprefix('ez_jax.')}.{name}"
    return Place(shown, path, node.lineno, node.end_lineno)


@functools.cache
def parse(path: str) -> ast.Module:
    """The syntax tree of a file of the repository."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def definitions(node: ast.AST) -> dict[str, ast.stmt]:
    """What a module, class or function defines directly, by name."""
    found = {}
    for child in getattr(node, "body", []):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            found[child.name] = child
        targets = child.targets if isinstance(child, ast.Assign) else []
        if isinstance(child, ast.AnnAssign):
            targets = [child.target]
        found |= {target.id: child for target in targets if isinstance(target, ast.Name)}
    return found
