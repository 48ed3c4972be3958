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

# What each wing may import of the package: lower ones, so that there are no circles.
MAY_IMPORT = {
    "structs": set(),
    "config": set(),
    "system": {"config", "structs"},
    "envs": {"config", "structs"},
    "agent": {"config", "structs", "system"},
    "storage": {"config", "structs", "system"},
    "terminal": {"config", "structs", "system", "storage"},
    "evaluation": {"config", "structs", "system", "envs", "agent", "storage"},
    "reports": {"config", "storage", "evaluation"},
    "inspection": {"config", "structs", "system", "envs", "agent", "storage", "evaluation"},
    "training": {
        *("config", "structs", "system", "envs", "agent", "storage", "terminal", "evaluation"),
    },
    "diagnosis": {
        *("config", "structs", "system", "envs", "agent", "storage", "evaluation", "training"),
    },
    "studies": {
        *("config", "structs", "system", "agent", "storage", "terminal", "training"),
    },
}
# Thin commands may import everything, and are imported by nobody but the process of a study's run.
COMMANDS = {
    "ablate", "doctor", "evaluate", "inspect", "notebook", "replay_crash", "report", "train",
}  # fmt: skip
MAY_IMPORT_A_COMMAND = {("studies/run_process.py", "train")}


def wing_of(file: Path) -> str:
    """The first name below ez_jax: a folder, or a file beside the folders."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Dotted names of all imports, at the top, inside functions and for types alone."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in FILES
}


def modules_imported(file: Path) -> set[Path]:
    """Files of the package that a file imports."""
    found = set()
    for name in imported(file):
        home = name if name in MODULES else name.rpartition(".")[0]
        if home in MODULES:
            found.add(MODULES[home])
    return found - {file}


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


def test_a_wing_imports_only_lower_ones():
    wings = {wing_of(file) for file in FILES if file.parent != PACKAGE or file.stem == "structs"}
    assert wings - COMMANDS == MAY_IMPORT.keys()
    wrong = [
        (str(file.relative_to(PACKAGE)), wing_of(other))
        for file in FILES
        for other in modules_imported(file)
        if wing_of(file) in MAY_IMPORT
        and wing_of(other) not in {*MAY_IMPORT[wing_of(file)], wing_of(file), "__init__"}
    ]
    assert set(wrong) == MAY_IMPORT_A_COMMAND


def test_nobody_imports_a_command():
    importing = {
        (str(file.relative_to(PACKAGE)), wing_of(other))
        for file in FILES
        for other in modules_imported(file)
        if wing_of(other) in COMMANDS and wing_of(other) != wing_of(file)
    }
    assert importing == MAY_IMPORT_A_COMMAND


def test_no_imports_go_round_in_circles():
    graph = {file: modules_imported(file) for file in FILES}
    while graph:
        leaves = {file for file in graph if not graph[file] & graph.keys()}
        assert leaves, f"a circle among {sorted(str(file) for file in graph)}"
        graph = {file: known for file, known in graph.items() if file not in leaves}


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
    page = (ROOT / "docs/differences.md").read_text()
    section = page.split("## Deviations")[1].split("\n##")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    marks = [
        name for file in FILES for name in re.findall(r"# Deviates \((.+?)\)", file.read_text())
    ]
    assert sorted(marks) == sorted(rows[1:])  # without the headings


def test_the_package_and_the_command_line_are_imported_without_jax():
    code = "import sys, ez_jax, ez_jax.train; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_training_starts_without_the_libraries_of_games():
    code = (
        "import sys, ez_jax.train; "
        "sys.exit(bool({'envpool', 'gymnax', 'matplotlib', 'pandas'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
