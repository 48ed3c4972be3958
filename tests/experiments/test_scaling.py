"""What many devices cost: counts of known programs, and predictions from counts."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest
import runs

from experiments.bench import machines, scaling
from experiments.bench.collectives import KINDS, Collective, count
from experiments.bench.machines import Law, Machine, law, predict
from experiments.bench.parts import make_setting
from ez_jax.config import BadInput, from_dict, to_dict

KIB = 1024


@pytest.fixture(scope="module")
def counts():
    """Counts of every program of `known_programs.py`, on four devices."""
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, str(runs.ROOT / "tests" / "known_programs.py")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: count(text) for name, text in json.loads(done.stdout).items()}


@pytest.mark.parametrize(
    ("name", "kind", "number", "sent"),
    [
        ("psum", "all-reduce", 1, 2 * 3 / 4 * 4 * KIB),
        ("all_gather", "all-gather", 1, 3 / 4 * 16 * KIB),
        ("reduce_scatter_in_a_loop", "reduce-scatter", 7, 7 * 3 / 4 * 4 * KIB),
        ("loops_in_loops", "all-reduce", 15, 15 * 2 * 3 / 4 * 4 * KIB),
        ("all_to_all", "all-to-all", 1, 3 / 4 * 4 * KIB),
        ("permute", "collective-permute", 1, 4 * KIB),
        ("branches", "all-reduce", 1, 2 * 3 / 4 * 4 * KIB),  # the one that sends more
        ("in_a_row", "all-reduce", 3, 3 * 2 * 3 / 4 * 4 * KIB),
    ],
)
def test_known_programs_send_what_is_known(counts, name, kind, number, sent):
    found = counts[name]
    assert found.number() == number
    assert {each.kind for each in found.collectives} == {kind}
    assert found.sent() == found.sent(kind) == sent
    assert found.chain == number
    assert found.open_loops == 0


def test_groups_of_devices_exchange_among_themselves(counts):
    (each,) = counts["halves"].collectives
    assert each.devices == 2
    assert each.sent == each.whole  # 2 x 1/2 of it


def test_a_loop_of_unknown_length_counts_as_one_turn_and_is_told(counts):
    found = counts["open_loop"]
    assert found.number() == 1
    assert found.open_loops == 1
    assert [each.is_open for each in found.collectives] == [True]


def test_what_does_not_wait_for_each_other_is_no_chain(counts):
    assert counts["side_by_side"].number() == 2
    assert counts["side_by_side"].chain == 1


def test_the_compiler_adds_up_gradients_once_and_products_are_counted(counts):
    found = counts["gradient"]
    assert found.sent("all-reduce") == found.sent()
    assert found.whole("all-reduce") in (4 * 64 * 128, 2 * 4 * 64 * 128)  # by two ways to w
    assert found.flops == 4 * 2 * 64 * 64 * 128  # two forward, two backward, on 64 samples


def test_products_and_convolutions_are_counted_as_by_hand(counts):
    assert counts["product"].flops == 2 * 16 * 16 * 64
    assert counts["convolution"].flops == 2 * 4 * (4 * 4 * 16) * (3 * 3 * 8)


def test_a_program_of_one_device_sends_nothing():
    assert Collective("all-reduce", 100.0, 1).sent == 0


def rows(flops, whole, number=5):
    """Counts of a program with a line in the samples, at 2, 4 and 8 devices."""
    for devices, samples in ((2, 64), (2, 16), (4, 64), (4, 32), (8, 64)):
        yield {
            "devices": devices,
            "samples": samples,
            "flops": flops(samples / devices),
            "whole": dict.fromkeys(KINDS, 0.0) | {"all-reduce": whole(samples)},
            "number": number,
        }


def test_the_law_of_counts_finds_constants_and_slopes():
    found = law(list(rows(lambda own: 7 + 3 * own, lambda all_: 100 + 2 * all_)))
    assert found.flops == pytest.approx((7, 3))
    assert found.whole["all-reduce"] == pytest.approx((100, 2))
    assert found.whole["all-gather"] == (0, 0)
    assert found.number == 5


def test_a_prediction_is_the_sum_of_its_parts():
    machine = Machine("four", 4, peak=1e12, share=0.5, link=1e9, latency=1e-5, sources="")
    whole = dict.fromkeys(KINDS, (0.0, 0.0)) | {"all-reduce": (1e6, 0.0)}
    one = Law((0.0, 1e9), whole, 10)
    found = predict(machine, [(one, 1.0), (one, 0.5)], samples=64)
    assert found["computing_ms"] == pytest.approx(1.5e3 * 16e9 / (0.5 * 1e12))
    assert found["sending_ms"] == pytest.approx(1.5e3 * 1.5e6 / (machines.BUSY * 1e9))
    assert found["waiting_ms"] == pytest.approx(1.5 * 10 * 1e-2)
    parts = ("computing_ms", "sending_ms", "waiting_ms")
    assert found["predicted_ms"] == pytest.approx(sum(found[part] for part in parts))
    alone = 4 * found["computing_ms"]
    assert found["speed_up"] == pytest.approx(alone / found["predicted_ms"])


def test_every_assumption_is_told():
    told = "\n".join(machines.assumptions())
    for machine in machines.MACHINES:
        assert f"{machine.name}: " in told
    assert told.count("assumed") >= 1 + len(machines.MACHINES)


def test_a_number_of_devices_that_does_not_divide_the_batch_is_refused(tmp_path):
    setting = type("Setting", (), {"config": runs.config(tmp_path)})
    with pytest.raises(BadInput, match="batch_size that it divides"):
        next(scaling.scaling(setting, 8, timed=False, repeats=1))


def made_up(orders):
    """What a process would print, of a program that takes as long on any number of devices."""
    config, number = orders["config"], orders["devices"]
    for name, samples in (
        ("acting", config["actor"]["num_envs"]),
        *((name, config["learner"]["batch_size"]) for name in ("targets", "learning")),
    ):
        sizes = dict.fromkeys(KINDS, 0.0 if number == 1 else 10.0 * samples)
        counts = {"flops": 1e9 * samples / number, "whole": sizes, "sent": sizes, "number": 3.0}
        about = {"program": name, "devices": number, "samples": samples, "compile_s": 1.0}
        times = {"median_ms": 5.0 * samples, "least_ms": 4.0 * samples}
        yield {**about, **counts, "chain": 2.0, "open_loops": 0, **times}


def test_scaling_asks_every_number_once_and_tells_three_tables(tmp_path, monkeypatch):
    asked = []

    def in_a_process(orders):
        asked.append((orders["devices"], orders["config"]["learner"]["batch_size"]))
        return list(made_up(orders))

    monkeypatch.setattr(scaling, "_in_a_process", in_a_process)
    config = runs.config(tmp_path, {"learner.batch_size": 8, "actor.num_envs": 3})
    setting = type("Setting", (), {"config": config})
    found = list(scaling.scaling(setting, 4, timed=True, repeats=1))
    assert asked == [(1, 8), (1, 2), (2, 8), (2, 4), (4, 8)]
    counted, timed, predicted = (
        [row for row in found if row["table"].startswith(name)]
        for name in ("counted", "timed", "predicted")
    )
    assert len(counted) == 3 * len(asked)
    assert {(row["case"], row["on_devices"]): row["samples"] for row in counted}[
        "acting, strong", 2
    ] == 4  # a multiple of the devices
    ratios = {(row["case"], row["on_devices"]): row["ratio"] for row in timed}
    assert [ratios["learning, strong", number] for number in (1, 2, 4)] == [1, 1, 1]
    assert [ratios["learning, weak", number] for number in (1, 2, 4)] == [1, 2, 4]
    assert {row["case"] for row in predicted} == {each.name for each in machines.MACHINES}
    assert all(row["measured_ms"] == "" for row in predicted)


def test_a_machine_that_is_not_there_is_counted_by_its_own_compiler(tmp_path, monkeypatch):
    asked = []

    def in_a_process(orders):
        asked.append(orders)
        return list(made_up(orders))

    monkeypatch.setattr(scaling, "_in_a_process", in_a_process)
    setting = type("Setting", (), {"config": runs.config(tmp_path)})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install libtpu"):
        next(scaling.on_topology(setting, "v5e:4x4"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    found = list(scaling.on_topology(setting, "v5e:4x4"))
    assert [row["case"] for row in found] == [
        f"{name}, v5e:4x4" for name in ("acting", "targets", "learning")
    ]
    (orders,) = asked
    assert (orders["devices"], orders["topology"], orders["timed"]) == (16, "v5e:4x4", False)
    assert orders["config"]["actor"]["num_envs"] == 16  # one for each chip


@pytest.mark.long
def test_the_programs_of_a_run_are_counted_and_timed_on_two_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles in half the time
    changes = {"learner.batch_size": 4, "actor.num_envs": 2, "run_dir": ""}
    values = to_dict(runs.config(tmp_path, changes))
    one, two = (
        {
            row["program"]: row
            for row in scaling._in_a_process(
                {"devices": number, "timed": number == 2, "repeats": 1, "config": values}
            )
        }
        for number in (1, 2)
    )
    assert list(one) == list(two) == ["acting", "targets", "learning"]
    for name in one:
        assert one[name]["number"] == 0
        assert two[name]["number"] >= two[name]["chain"] > 0
        assert one[name]["flops"] == pytest.approx(2 * two[name]["flops"], rel=0.1)
        assert two[name]["median_ms"] > 0
    learnt, setting = two["learning"], make_setting(from_dict(values), ())
    variables = jax.eval_shape(setting.model.init, jax.random.key(0))
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert learnt["whole"]["all-reduce"] > 4 * parameters  # gradients, and sums of BatchNorm
