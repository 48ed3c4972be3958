"""The reference of public functions, made from their signatures and docstrings."""

import ast
import inspect
import re
import textwrap

from mkdocs.exceptions import PluginError

from experiments.site import places

_SECTION = re.compile(r"^(Args|Returns|Raises|Args of the function returned):$")


def entry(target: str, level: int = 3) -> str:
    """Heading, signature and docstring of a function or class; of a class its methods as well.

    Raises:
      PluginError: nothing of that name, or without a docstring.
    """
    place = places.find(target)
    node = places.node_of(place.path, target.partition(":")[2], target)
    docstring = ast.get_docstring(node) if _has_docstring(node) else None
    if not docstring:
        raise PluginError(f"the docs describe {target}, which has no docstring")
    shown = target.replace(":", ".")
    parts = [f"{'#' * level} `{shown}`", f'{{{{ code("{target}") }}}}']
    if isinstance(node, ast.FunctionDef):
        parts.append(f"```python\n{signature(node)}\n```")
    parts.append(prose(docstring))
    if isinstance(node, ast.ClassDef):
        methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name[0] != "_"]
        parts += [entry(f"{target}.{method.name}", level + 1) for method in methods]
    return "\n\n".join(parts)


def _has_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


def signature(node: ast.FunctionDef) -> str:
    """`name(argument: type, ...) -> type`, broken into lines where it is long."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = ast.unparse(node.args)
    line = f"def {node.name}({arguments}){returns}"
    if len(line) <= 88:
        return line
    split = re.split(r", (?![^\[\]()]*[\])])", arguments)
    return f"def {node.name}(\n" + "".join(f"    {each},\n" for each in split) + f"){returns}"


def prose(docstring: str) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines, out, inside = inspect.cleandoc(docstring).splitlines(), [], False
    for line in lines:
        if head := _SECTION.match(line):
            out += ["", f"**{head[1]}**", ""]
            inside = True
        elif inside and line.startswith("  "):
            out.append(_item(line))
        else:
            inside = inside and not line.strip()
            out.append(line)
    return "\n".join(out)


def _item(line: str) -> str:
    """A line of a section: `name: text` begins an item, a deeper line goes on with it."""
    indent = len(line) - len(line.lstrip())
    found = re.match(r"(\w+): (.*)", line.strip())
    if indent <= 4 and found:
        return f"- `{found[1]}`: {found[2]}"
    return textwrap.indent(line.strip(), "  ")
