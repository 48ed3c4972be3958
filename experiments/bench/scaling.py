"""What many devices cost: counted from the compiled programs, timed here, predicted elsewhere.

Each number comes from a process of its own, which has so many CPU devices by force. They share the
cores of this machine: what is timed shows what splitting costs, never what it gains.
"""

import importlib.util
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.collectives import KINDS, count
from experiments.bench.machines import MACHINES, assumptions, law, predict
from experiments.bench.measure import take_turns
from experiments.bench.parts import Setting, make_setting
from experiments.bench.programs import ROWS, first_step, functions, place_of, programs
from ez_jax.agent.frames import init_frames
from ez_jax.agent.learner import no_metrics
from ez_jax.agent.networks import winograd
from ez_jax.config import BadInput, Config, from_dict, override, to_dict
from ez_jax.system import compilation, devices, exits

MEGA, GIGA = 1e-6, 1e-9
SAMPLES = {"acting": "actor.num_envs", "targets": "learner.batch_size"}  # what a program splits
# The compiler looks for a TPU to ask, and would wait for one.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is executed
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
Row = dict[str, Any]


def scaling(setting: Setting, up_to: int, timed: bool, repeats: int) -> Iterator[Row]:
    """Rows of three tables: counted, timed, predicted."""
    sizes = [2**i for i in range(up_to.bit_length()) if 2**i <= up_to]
    most, config = sizes[-1], setting.config
    envs = config.actor.num_envs + -config.actor.num_envs % most
    if config.learner.batch_size % most or most < 4:
        raise BadInput(f"up_to={up_to}: choose at least 4, and a batch_size that it divides")
    config = override(config, {"actor.num_envs": envs})
    found: list[Row] = []
    for number in sizes:
        for kind, share in (("strong", 1.0), ("weak", number / most)):
            if kind == "weak" and number == most:
                found += [{**row, "scaling": "weak"} for row in found if row["devices"] == most]
                continue
            changes = {key: round(share * _value(config, key)) for key in SAMPLES.values()}
            orders = {"devices": number, "timed": timed, "repeats": repeats}
            rows = _in_a_process({**orders, "config": to_dict(override(config, changes))})
            found += [{**row, "scaling": kind} for row in rows]
    yield from map(_counted, (row for row in found if row["devices"] < most or _is_strong(row)))
    if timed:
        yield from _ratios(found)
    yield from _predictions(config, [row for row in found if row["devices"] > 1])


def on_topology(setting: Setting, topology: str) -> Iterator[Row]:
    """Rows of one table, counted from what the compiler for TPUs makes of it; no TPU is needed.

    Args:
      setting: its batch, and as many environments at least as there are chips.
      topology: as `jax.experimental.topologies` names it, `v5e:4x4` for 16 chips.

    Raises:
      BadInput: the compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise BadInput("topology= needs the compiler for TPUs: pip install libtpu")
    number = math.prod(int(size) for size in re.findall(r"\d+", topology.partition(":")[2]))
    config = setting.config
    config = override(config, {"actor.num_envs": max(number, config.actor.num_envs)})
    orders = {"devices": number, "timed": False, "repeats": 0, "topology": topology}
    for row in _in_a_process({**orders, "config": to_dict(config)}):
        yield {**_counted({**row, "scaling": topology}), "table": f"counted for {topology}"}


def notes() -> list[str]:
    """What stands below the tables."""
    return [
        "counted per device: FLOPs of matrix products and plain convolutions; bytes sent as by "
        "rings; in_a_row: collectives that wait for each other; open_loops: loops of unknown "
        "length, of which one turn is counted",
        "timed: all devices share the cores of this machine, so a ratio of 1 (strong) or of the "
        "number of devices (weak) means that splitting costs nothing; it shows no speed-up. Plain "
        "convolutions, other than a run on a CPU uses: compare the ratios, not the milliseconds",
        *assumptions(),
    ]


def _value(config: Config, key: str) -> int:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _is_strong(row: Row) -> bool:
    return row["scaling"] == "strong"


def _in_a_process(orders: Row) -> list[Row]:
    """What `main` below prints in a process with so many devices."""
    flags = f"--xla_force_host_platform_device_count={orders['devices']}"
    others = re.sub(r"--xla_force_host_platform_device_count=\d+", "", _flags())
    environment = {**os.environ, "XLA_FLAGS": f"{others} {flags}", "JAX_PLATFORMS": "cpu"}
    if orders.get("topology"):
        environment |= NO_TPU
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench.scaling"],
        input=json.dumps(orders),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _flags() -> str:
    return os.environ.get("XLA_FLAGS", "")


def _counted(row: Row) -> Row:
    sent = {f"{kind}_mb".replace("-", "_"): MEGA * row["sent"][kind] for kind in KINDS}
    return {
        "table": "counted",
        "case": f"{row['program']}, {row['scaling']}",
        "on_devices": row["devices"],  # `devices` is the number in this process
        "samples": row["samples"],
        "gflop": GIGA * row["flops"],
        **sent,
        "collectives": row["number"],
        "in_a_row": row["chain"],
        "open_loops": row["open_loops"],
        "compile_s": row["compile_s"],
    }


def _ratios(found: list[Row]) -> Iterator[Row]:
    """Times beside those of one device."""
    one = {(row["program"], row["scaling"]): row for row in found if row["devices"] == 1}
    for row in found:
        alone = one[row["program"], row["scaling"]]
        yield {
            "table": "timed on this machine's cores, no speed-up to be seen",
            "case": f"{row['program']}, {row['scaling']}",
            "on_devices": row["devices"],
            "samples": row["samples"],
            "median_ms": row["median_ms"],
            "least_ms": row["least_ms"],
            "ratio": row["median_ms"] / alone["median_ms"],
            "least_ratio": row["least_ms"] / alone["least_ms"],
        }


def _predictions(config: Config, found: list[Row]) -> Iterator[Row]:
    """One update, with its share of the targets, on machines that others may have."""
    by_name = {
        name: law([row for row in found if row["program"] == name])
        for name in ("targets", "learning")
    }
    laws = [(by_name["targets"], 1 / config.reanalyse.updates_per_search)]
    laws.append((by_name["learning"], 1.0))
    batch = config.learner.batch_size
    for machine in MACHINES:
        for samples in dict.fromkeys(
            (batch, batch // 8 * machine.devices, batch * machine.devices)
        ):
            if samples % machine.devices == 0:
                yield {
                    "table": "predicted",
                    "case": machine.name,
                    "batch": samples,
                    **predict(machine, laws, samples),
                    "measured_ms": "",
                }


# In the process of a number.


def main() -> int:
    """Read orders from stdin and print a line of JSON for every program."""
    orders = json.load(sys.stdin)
    compilation.configure_jax()
    # As accelerators compute: what a CPU does instead is quicker there alone.
    winograd.MIN_OUTPUTS = sys.maxsize
    setting = make_setting(from_dict(orders["config"]), ())
    made = functions(setting)
    with jax.set_mesh(devices.make_mesh(_devices(orders.get("topology", "")))):
        compiled, rows = {}, {}
        for name, function, shapes in programs(setting, made):
            began = time.perf_counter()
            compiled[name] = function.lower(*shapes).compile()
            taken = time.perf_counter() - began
            samples = _value(setting.config, SAMPLES.get(name, SAMPLES["targets"]))
            about = {"program": name, "devices": orders["devices"], "samples": samples}
            rows[name] = about | _counts(compiled[name].as_text()) | {"compile_s": taken}
        times = _times(setting, compiled, orders["repeats"]) if orders["timed"] else {}
    for name, row in rows.items():
        sys.stdout.write(json.dumps(row | times.get(name, {})) + "\n")
    return exits.DONE


def _devices(topology: str) -> list[Any]:
    """Those of this process, or of a machine that is not there."""
    if not topology:
        return jax.devices()
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def _counts(text: str) -> Row:
    counts = count(text)
    return {
        "flops": counts.flops,
        "whole": {kind: counts.whole(kind) for kind in KINDS},
        "sent": {kind: counts.sent(kind) for kind in KINDS},
        "number": counts.number(),
        "chain": counts.chain,
        "open_loops": counts.open_loops,
    }


class _State:
    """Everything that the programs take and give, in its place."""

    def __init__(self, setting: Setting, compiled: Mapping[str, Any]):
        """As a run has it, but with noise in the replay."""
        self.compiled = compiled
        put = lambda value: jax.device_put(value, devices.shardings(place_of(value)))  # noqa: E731
        self.train, self.replay = put(setting.train()), put(setting.replay(ROWS))
        self.sums, self.step = put(no_metrics(setting.config)), put(first_step(setting))
        self.frames = put(init_frames(setting.spec, setting.config.actor.num_envs))
        others = jax.random.key(0), jnp.ones(()), jnp.zeros((), bool), jnp.int32(0)
        self.key, self.number, self.flag, self.zero = put(others)
        self.group = None

    def acting(self) -> Any:
        given = self.step, self.key, self.number, self.flag, self.train.updates
        action, self.replay, self.sums, self.frames = self.compiled["acting"](
            self.train.variables, self.replay, self.sums, self.frames, *given
        )
        return action

    def targets(self) -> Any:
        self.group, self.replay, self.sums = self.compiled["targets"](
            self.train.target, self.replay, self.sums, self.key, self.train.updates
        )
        return self.group

    def learning(self) -> Any:
        self.train, self.replay, self.sums = self.compiled["learning"](
            self.train, self.replay, self.sums, self.key, self.group, self.zero
        )
        return self.sums


def _times(setting: Setting, compiled: Mapping[str, Any], repeats: int) -> dict[str, Row]:
    """Milliseconds of each program, one after the other as in a run."""
    state = _State(setting, compiled)
    seconds = take_turns([getattr(state, name) for name in compiled], repeats)
    return {
        name: {"median_ms": 1e3 * statistics.median(taken), "least_ms": 1e3 * min(taken)}
        for name, taken in zip(compiled, seconds, strict=True)
    }


if __name__ == "__main__":
    sys.exit(exits.guarded(main))
