"""Counting for a GPU without one: XLA's own compiler for GPUs, told which device to think of.

It comes as JAX's CUDA plugin and its libraries, in a folder of their own, because an environment
that has them looks for a GPU:

    pip install --target DIR --no-deps jax-cuda13-plugin==VERSION jax-cuda13-pjrt==VERSION \
        nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cudnn-cu13 \
        nvidia-cufft nvidia-cusolver nvidia-cusparse nvidia-nccl-cu13 nvidia-nvjitlink \
        nvidia-cuda-nvrtc nvidia-nvshmem-cu13 nvidia-nvvm nvidia-cuda-crt
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.bench.kernels import kernels
from experiments.bench.parts import Setting, make_setting
from experiments.bench.programs import functions, programs
from ez_jax.agent.networks import winograd
from ez_jax.config import BadInput, Config, from_dict, override, to_dict
from ez_jax.system import devices, exits

H100 = Path(__file__).with_name("h100.txtpb")
# What an H100 reached (experiments/results/gpu/h100):
BANDWIDTH = 2.95e12  # byte/s of a large copy
PEAK = {"bfloat16": 774e12, "float32": 380e12}  # FLOP/s of a large product; float32 is TF32
LAUNCH = (1.8e-6, 3.3e-6)  # seconds of a small kernel: in a search, in a loop of nothing else
Row = dict[str, Any]


def for_gpu(setting: Setting, compiler: str) -> Iterator[Row]:
    """Rows of two tables: counted for each program, and what follows for an update and a run.

    Raises:
      BadInput: the compiler is not in the folder.
    """
    libraries = sorted(Path(compiler).glob("nvidia/*/lib")) if compiler else []
    if not libraries:
        raise BadInput("compiler= has to name a folder with JAX's CUDA plugin and its libraries: "
                       "how to make one stands in experiments/bench/for_gpu.py")  # fmt: skip
    config = setting.config
    if config.precision == "auto":  # as it is there
        config = override(config, {"precision": "bfloat16"})
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": "",
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), compiler]),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench.for_gpu"],
        input=json.dumps(to_dict(config)),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    yield from ({"table": "counted for an H100", **row} for row in rows)
    yield from _predicted(config, {row["case"]: row for row in rows})


def notes() -> list[str]:
    """What stands below the tables."""
    bandwidth, (best, other) = f"{BANDWIDTH / 1e12} TB/s", (x / 1e12 for x in PEAK.values())
    quick, slow = (1e6 * x for x in LAUNCH)
    return [
        "counted: kernels, bytes that they read and write, FLOPs of products and convolutions, in "
        "what XLA's compiler makes for an H100 (no autotuning); open_loops: loops of unknown "
        "length, of which one turn is counted",
        f"least: the largest of bytes / {bandwidth}, FLOPs / {best:.0f} TFLOP/s ({other:.0f} in "
        f"float32) and {quick:.1f} us for each kernel; most: their sum, with {slow:.1f} us. What "
        "an H100 reached in large copies and products, and in small kernels, stands for all",
    ]


def limits(row: Row, precision: str) -> tuple[float, float]:
    """Least and most seconds of a program, as `notes` says."""
    moved, computed = 1e9 * row["gbyte"] / BANDWIDTH, 1e9 * row["gflop"] / PEAK[precision]
    quick, slow = (row["kernels"] * each for each in LAUNCH)
    return max(moved, computed, quick), moved + computed + slow


def _predicted(config: Config, rows: dict[str, Row]) -> Iterator[Row]:
    found = {name: limits(row, config.precision) for name, row in rows.items()}
    group, envs = config.reanalyse.updates_per_search, config.actor.num_envs
    for i, bound in enumerate(("least", "most")):
        update = found["targets"][i] / group + found["learning"][i]
        acting = found["acting"][i] / envs
        whole = config.total_updates * update + config.total_agent_steps * acting
        yield {
            "table": "predicted for an H100, games and evaluation left out",
            "case": bound,
            "acting_ms_per_step": 1e3 * acting,
            "targets_ms": 1e3 * found["targets"][i] / group,
            "learning_ms": 1e3 * found["learning"][i],
            "update_ms": 1e3 * update,
            "minutes_of_the_run": whole / 60,
            "updates": config.total_updates,
            "measured": "",
        }


# In a process of its own.


def main() -> int:
    """Read a configuration from stdin and print a line of JSON for every program."""
    from jax.experimental import topologies

    setting = make_setting(from_dict(json.load(sys.stdin)), ())
    winograd.MIN_OUTPUTS = sys.maxsize  # that way is for CPUs
    made = functions(setting)
    described = topologies.get_topology_desc(
        "", "cuda", target_config=H100.read_text(), topology="1x1x1"
    )
    with jax.set_mesh(devices.make_mesh(np.array(described.devices))):
        for name, function, shapes in programs(setting, made):
            began = time.perf_counter()
            compiled = function.lower(*shapes).compile()
            row = {"case": name, **_counted(compiled), "compile_s": time.perf_counter() - began}
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    return exits.DONE


def _counted(compiled: Any) -> Row:
    work, counts = kernels(compiled.as_text())
    return {
        "kernels": work.launches,
        "gbyte": work.bytes / 1e9,
        "gflop": counts.flops / 1e9,
        "open_loops": work.open_loops,
        "kernels_in_them": work.in_loops,
        "temporary_gb": compiled.memory_analysis().temp_size_in_bytes / 1e9,
    }


if __name__ == "__main__":
    sys.exit(exits.guarded(main))
