"""How fast everything is: a table, and a line of JSON for each of its rows.

    python -m experiments.bench search
    python -m experiments.bench update batches=32 preset=small learner.unroll_steps=3

search     searches with the network: simulations per second
tree       searches in a model that costs nothing: the tree itself
update     the unrolled update, no reanalysis: samples per second
reanalyse  making targets, searches included: roots per second
replay     writing to and drawing from a full replay
env        the games alone
peer       our search beside the same network in PyTorch without any tree (needs torch)
peer_update  our update beside the same in PyTorch
convolution  3x3 convolutions, XLA's own and by Winograd (what a CPU uses, and from which size)
train      the whole loop, and the share of its parts (steps=N agent steps with updates)
together   runs in one program: agent steps and updates of all of them per second (gymnax)
memories   the whole loop with the frames of the replay on the device and on the host
checkpoint saving the run and going on from it, with a replay of 10 x steps=N agent steps
compile    seconds to compile, with an empty cache and a warm one
memory     what the compiled programs want, and what the plan says
scaling    FLOPs and bytes sent by 1, 2, 4 ... up_to=8 devices, and what that predicts for others
           (CPU devices by force; timed=false leaves out what is run and not only compiled;
           topology=v5e:4x4 counts what the compiler for TPUs makes, if libtpu is installed)
gpu        kernels, bytes and FLOPs of acting, targets and learning on an H100, counted without one,
           and what they predict (compiler=DIR: a folder with JAX's CUDA plugin, see for_gpu.py)

Any key of the configuration may be set; game=Breakout with its published preset otherwise.
repeats=N after a first call that is not timed; batches=1,16 instead of the workload's own.
The rows of a table took turns and shared whatever else the machine did: compare them with each
other, and with other tables only through the ceilings of matrix product and copy measured beside
them. FLOPs and bytes are counted by XLA.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.bench import for_gpu
from experiments.bench.measure import Case, rows_of
from experiments.bench.parts import PARTS, Setting, make_setting
from experiments.bench.scaling import notes, on_topology, scaling
from experiments.bench.side_by_side import memories, together
from experiments.bench.whole import WHOLE
from ez_jax.config import BadInput, presets
from ez_jax.storage.run_folder import provenance
from ez_jax.system import compilation, exits
from ez_jax.terminal import arguments, start

CEILINGS = ("matrix_gflop_per_s", "copy_gbyte_per_s")  # the same in all rows
OWN_KEYS = {"repeats": 5, "batches": "", "steps": 400, "up_to": 8, "timed": True, "topology": ""}
OWN_KEYS |= {"compiler": ""}


def _in_torch(workload: str) -> Callable[[Setting], Iterator[Case]]:
    """One of `torch_peer`, which is imported late: PyTorch is not there for everybody."""
    peers = "experiments.bench.torch_peer"
    return lambda setting: getattr(importlib.import_module(peers), workload)(setting)


WHOLES = {**WHOLE, "together": together, "memories": memories}
TIMED = {**PARTS, **{name: _in_torch(name) for name in ("peer", "peer_update")}}


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table, and below it what its shares are of."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in CEILINGS))
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for name in names:
        is_text = isinstance(rows[0].get(name, ""), str)
        table.add_column(name.replace("_", " "), justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*(_text(row.get(name, "")) for name in names))
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    if all(name in rows[0] for name in CEILINGS):
        matrix, copy = (rows[0][name] for name in CEILINGS)
        console.print(
            f"shares are of what this machine reached meanwhile: {matrix:,.0f} GFLOP/s in a large "
            f"float32 matrix product, {copy:,.1f} GB/s in a large copy"
        )


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _without_table(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "table"}


def main(words: list[str]) -> int:
    """Measure one workload."""
    workloads = (*TIMED, *WHOLES, "scaling", "gpu")
    if not words or words[0] not in workloads:
        raise BadInput(f"which workload? choose {' or '.join(workloads)}")
    workload, *settings = words
    values, changes = arguments.read(settings, OWN_KEYS)
    compilation.configure_jax()
    game, preset = changes.pop("game", "Breakout"), changes.pop("preset", "")
    config = presets.make_config(game, preset, changes=changes)
    setting = make_setting(config, _numbers(values["batches"]))
    if workload in TIMED:
        rows = rows_of(list(TIMED[workload](setting)), values["repeats"])
    elif workload == "scaling":
        shape = values["topology"]
        given = values["up_to"], values["timed"], values["repeats"]
        rows = list(on_topology(setting, shape) if shape else scaling(setting, *given))
    elif workload == "gpu":
        rows = list(for_gpu.for_gpu(setting, values["compiler"]))
    else:
        rows = list(WHOLES[workload](setting, values["steps"]))
    title = f"{workload}: {config.game}, preset={config.preset}, {jax.devices()[0].device_kind}"
    for name, part in itertools.groupby(rows, lambda row: row.get("table", "")):
        show(f"{title}, {name}" if name else title, [_without_table(row) for row in part])
    below = {"scaling": notes, "gpu": for_gpu.notes}
    if workload in below:
        sys.stdout.write("\n".join([*below[workload](), ""]))
    command = " ".join(["python -m experiments.bench", *words])
    for row in rows:
        found = {"workload": workload, "command": command, **row, **provenance()}
        sys.stdout.write(json.dumps(found) + "\n")
    return exits.DONE


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise BadInput(f"batches={text} are no numbers: write batches=1,16,64") from None


if __name__ == "__main__":
    start(main, f"{__doc__}\n")
