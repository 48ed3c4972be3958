"""The shape of the code itself: which file may know which, how long they are, what they need."""

import ast
import configparser
import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT

import ez_jax

PACKAGE = ROOT / "ez_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES, MAX_FUNCTION_LINES = 350, 40

# What the files of the algorithm may know of the package: imports point one way.
MAY_IMPORT = {
    "structs": set(),
    "support": set(),
    "winograd": set(),
    "layers": {"winograd"},
    "augment": set(),
    "checks": set(),
    "config": {"checks"},
    "stems": {"layers"},
    "networks": {"config", "layers", "stems", "structs"},
    "model": {"config", "networks", "structs", "support"},
    "puct_ez": {"config"},
    "gumbel": {"config", "puct_ez"},
    "search": {"config", "gumbel", "model", "puct_ez", "structs"},
    "devices": set(),
    "replay": {"devices", "structs"},
    "reanalyse": {"config", "devices", "model", "search", "structs"},
    "targets": {"config", "model", "reanalyse", "structs"},
    "diagnostics": {"config", "structs", "support"},
    "actor": {"devices", "diagnostics", "model", "replay", "search", "structs"},
    "losses": {"augment", "config", "model", "structs", "support"},
    "pace": {"config", "search", "structs"},
    "host_frames": {"devices", "structs"},
    "learner": {
        *("config", "devices", "diagnostics", "losses", "model", "reanalyse", "replay"),
        *("pace", "structs", "targets"),
    },
    "envs": {"config", "structs"},
}
MAY_KNOW_EVERYBODY = {"run": {"train"}, "train": {"cell"}}  # and who may know them


def module_of(file: Path) -> str:
    """The first name below ez_jax: `replay`, or `envs` for every file of that folder."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Dotted names of all imports that are executed, at the top or inside functions."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_within() -> dict[str, set[str]]:
    """Modules of ez_jax that each module imports."""
    graph: dict[str, set[str]] = {module_of(file): set() for file in FILES}
    for file in FILES:
        names = {name.split(".")[1] for name in imported(file) if name.startswith("ez_jax.")}
        graph[module_of(file)] |= (names & graph.keys()) - {module_of(file)}
    return graph


def code_lines(function: ast.FunctionDef, lines: list[str]) -> int:
    """Lines of a function without its docstring, comments, blanks and inner functions."""
    inner = [n for n in ast.walk(function) if isinstance(n, ast.FunctionDef) and n is not function]
    left_out = inner + ([function.body[0]] if ast.get_docstring(function) else [])
    numbers = set(range(function.lineno, function.end_lineno + 1))
    for node in left_out:
        numbers -= set(range(node.lineno, node.end_lineno + 1))
    texts = [lines[number - 1].strip() for number in numbers]
    return sum(bool(text) and not text.startswith("#") for text in texts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_module_can_be_imported(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    importlib.import_module(".".join(parts).removesuffix(".__init__"))


def test_every_public_name_is_there():
    for name in ez_jax.__all__:
        assert getattr(ez_jax, name) is not None


def test_imports_of_the_algorithm_point_one_way():
    graph = imports_within()
    wrong = {name: graph[name] - allowed for name, allowed in MAY_IMPORT.items()}
    assert {name: extra for name, extra in wrong.items() if extra} == {}


def test_only_the_run_and_the_training_command_know_everybody():
    graph = imports_within()
    for name, knowers in MAY_KNOW_EVERYBODY.items():
        assert {other for other in graph if name in graph[other]} == knowers


def test_no_imports_go_round_in_circles():
    graph = imports_within()
    while graph:
        leaves = {name for name in graph if not graph[name] & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: known for name, known in graph.items() if name not in leaves}


def test_the_package_needs_only_what_it_declares():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = re.findall(r"^[\w-]+", setup["options"]["install_requires"], re.MULTILINE)
    declared = {re.sub(r"[-_]+", "-", name).lower() for name in declared}
    homes = importlib.metadata.packages_distributions()
    roots = {name.partition(".")[0] for file in FILES for name in imported(file)}
    for root in sorted(roots - set(sys.stdlib_module_names) - {"ez_jax"}):
        owners = {re.sub(r"[-_]+", "-", owner).lower() for owner in homes.get(root, ())}
        assert owners & declared, f"{root} is imported but not declared in setup.cfg"


def test_no_file_name_hides_a_module_of_the_standard_library():
    assert {file.stem for file in FILES} & set(sys.stdlib_module_names) <= {"__init__"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_short_enough_to_read(file):
    lines = file.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    functions = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef)]
    long = [f.name for f in functions if code_lines(f, lines) > MAX_FUNCTION_LINES]
    assert long == []


def test_the_table_of_deviations_and_the_marks_in_the_code_agree():
    readme = (ROOT / "README.md").read_text()
    section = readme.split("### Where we differ")[1].split("\n###")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    marks = [
        name for file in FILES for name in re.findall(r"# Deviates \((.+?)\)", file.read_text())
    ]
    assert sorted(marks) == sorted(rows[1:])  # without the headings


def test_the_package_and_the_command_line_are_imported_without_jax():
    code = "import sys, ez_jax, ez_jax.terminal.launch; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
