"""The notebooks are well formed, honest and without logic; and they run (`-m notebooks`)."""

import ast
import configparser
import re

import nbformat
import pytest
import runs

from experiments import notebooks

NAMES = notebooks.names()
LARGEST = 1_500_000  # bytes


@pytest.fixture(scope="module")
def url():
    """The repository's address, which stands in one place."""
    setup = configparser.ConfigParser()
    setup.read(runs.ROOT / "setup.cfg")
    return setup["metadata"]["url"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def notebook(name):
    return nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """Everything that cells show, as one text each."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield output.get("text", "") + "".join(map(str, output.get("data", {}).values()))


def test_there_are_seven():
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05", "06", "07"]


def test_a_notebook_is_well_formed_and_small(name, notebook):
    nbformat.validate(notebook)
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < LARGEST
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert not any("execution" in cell.metadata for cell in notebook.cells)


def test_badge_and_installation_name_the_repository_of_setup_cfg(name, notebook, url):
    first, install = notebook.cells[:2]
    path = f"{url.removeprefix('https://github.com')}/blob/main/notebooks/{name}.ipynb"
    assert f"](https://colab.research.google.com/github{path})" in first.source.splitlines()[0]
    assert set(re.findall(r"git\+([\w:/.-]+)", install.source)) == {url}
    for cell in notebook.cells:
        for address in re.findall(r"https://github\.com/[\w-]+/ez_jax", cell.source):
            assert address == url


def test_all_notebooks_install_in_the_same_way(notebook):
    other = nbformat.read(notebooks.FOLDER / f"{NAMES[0]}.ipynb", as_version=4)
    assert notebook.cells[1].source == other.cells[1].source


def test_cells_hold_calls_and_no_logic(notebook):
    for cell in code_cells(notebook):
        if cell.source.startswith("%%writefile"):
            continue
        plain = "\n".join(line for line in cell.source.splitlines() if line[:1] not in "!%")
        kinds = {type(node) for node in ast.walk(ast.parse(plain))}
        assert not kinds & {
            *(ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If, ast.Try),
            *(ast.With, ast.IfExp),
        }


def test_outputs_are_committed_without_errors_or_traces_of_a_machine(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert "error" not in kinds
    for text in texts(notebook):
        if len(text) < 100_000:  # pictures, videos and pages hold any letters
            assert "\x1b" not in text  # of a terminal
            assert not re.search(r"(?<![\w./-])/(tmp|root|home|work|content|usr)/", text)
        assert "Traceback" not in text
        assert not re.search(r"^\S*Warning", text, re.MULTILINE)


def test_the_quick_start_has_the_numbers_of_the_readme():
    notebook = nbformat.read(notebooks.FOLDER / f"{NAMES[0]}.ipynb", as_version=4)
    readme = (runs.ROOT / "README.md").read_text()
    (row,) = [line for line in readme.splitlines() if line.startswith("| `cartpole` ")]
    assert "3,003 steps, 44 s" in row
    assert "3,003 agent steps and 44 s" in notebook.cells[0].source


def test_the_game_of_the_notebook_is_the_example(name):
    """The sixth notebook writes the game of `experiments/own_game.py`, but for its name."""
    notebook = nbformat.read(notebooks.FOLDER / f"{NAMES[5]}.ipynb", as_version=4)
    (cell,) = [c for c in code_cells(notebook) if c.source.startswith("%%writefile own_game.py")]
    example = (runs.ROOT / "experiments" / "own_game.py").read_text()
    written = cell.source.partition("\n")[2]
    assert written.strip() == example.replace("experiments.own_game:", "own_game:").strip()


@pytest.mark.notebooks
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    notebook = notebooks.execute(name, tmp_path, small=True)
    assert all(cell.execution_count for cell in code_cells(notebook))
    if name in notebooks.ACCELERATED:
        told = "\n".join(texts(notebook))
        assert "this runs on the CPU with the small settings" in told
        assert "stopped; the same command resumes it" in told
        assert re.search(r"resumed at \d+ (agent )?steps", told)
