import io
import json
import re

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.layout_pb2 import Layout

from ez_jax.config import BadInput
from ez_jax.config.presets import make_config
from ez_jax.evaluation.scores import Games, summary
from ez_jax.storage.metrics import MetricsWriter, Series, read_metrics
from ez_jax.structs import Clocks
from ez_jax.terminal.progress import Progress, duration, score_text
from ez_jax.training.planning.needs import cpu_warning

EVALUATED = {"eval/return_mean": 33.0, "eval/return_std": 6.0, "eval/episodes": 10}


def clocks(step, updates=0):
    return Clocks(agent_steps=step, env_frames=4 * step, updates=updates, seconds=step / 10)


def write_steps(run_dir, *readings):
    with MetricsWriter(run_dir, tensorboard=False) as writer:
        for step, updates in readings:
            writer.write(clocks(step, updates), {"loss/total": float(updates)})


def test_a_line_has_the_clocks_first_and_numbers_come_back_exactly(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(clocks(8, 2), {"a": 0.1, "b": np.float32(1 / 3)})
    (line,) = read_metrics(tmp_path)
    assert list(line) == ["agent_steps", "env_frames", "updates", "seconds", "a", "b"]
    assert line["a"] == 0.1
    assert np.float32(line["b"]) == np.float32(1 / 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_named_and_not_written(tmp_path, bad):
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        with pytest.raises(FloatingPointError, match=r"loss/policy is (nan|inf) at .*steps=7"):
            writer.write(clocks(7), {"fine": 1.0, "loss/policy": bad})
        writer.write(clocks(8), {"fine": 1.0})
    assert [line["agent_steps"] for line in read_metrics(tmp_path)] == [8]


def test_resume_drops_later_lines_and_a_torn_one(tmp_path):
    write_steps(tmp_path, (10, 1), (20, 2), (30, 3), (30, 9))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"agent_steps": 40, "env')
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        assert writer.truncate_after(clocks(30, 3)) == 1
        writer.write(clocks(30, 9), {"loss/total": 9.0})
    readings = [(line["agent_steps"], line["updates"]) for line in read_metrics(tmp_path)]
    assert readings == [(10, 1), (20, 2), (30, 3), (30, 9)]


def test_every_torn_prefix_of_the_last_line_is_left_out(tmp_path):
    write_steps(tmp_path, (10, 1), (20, 2))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert [line["agent_steps"] for line in read_metrics(path)] == [10]


def test_damage_in_the_middle_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("garbage\n{}\n")
    with pytest.raises(BadInput, match="line 1 of"):
        read_metrics(tmp_path)


def test_tensorboard_has_the_same_numbers_by_agent_step(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write_config("game: Catch")
        writer.write(clocks(8), {"loss/total": 0.25})
        writer.write(clocks(16), {"loss/total": 0.5})
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.truncate_after(clocks(8))
        writer.write(clocks(16), {"loss/total": 0.75})
    first, resumed = sorted(tmp_path.glob("events.*"), key=lambda path: path.suffix)
    assert scalars(first, "loss/total") == [(8, 0.25), (16, 0.5)]
    assert scalars(resumed, "loss/total") == [(16, 0.75)]
    assert [e.step for e in events(resumed) if e.HasField("session_log")] == [9]
    assert b"game: Catch" in first.read_bytes()


REFERENCES = [
    Series("ez_jax", [(0, 1.0), (10, 2.0), (20, 3.0)], "5 seeds"),
    Series("ez_jax/low", [(0, 0.5), (20, 2.5)], "5 seeds"),
    Series("ez_jax/high", [(0, 1.5), (20, 3.5)], "5 seeds"),
    Series("human", [(0, 7.0), (20, 7.0)], "source: arXiv:1"),
]


def test_references_are_drawn_once_and_again_only_where_tensorboard_forgets_them(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write_references(REFERENCES)
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.truncate_after(clocks(10))
        writer.write_references(REFERENCES, after=10)
    first, resumed = sorted(tmp_path.glob("events.*"), key=lambda path: path.suffix)
    purged = [e.step for e in events(resumed) if e.HasField("session_log")]
    assert purged == [11]
    for line in REFERENCES:
        tag = f"reference/{line.name}"
        assert scalars(first, tag) == line.points
        kept = [point for point in scalars(first, tag) if point[0] < purged[0]]
        assert kept + scalars(resumed, tag) == line.points
    assert b"source: arXiv:1" in first.read_bytes()
    assert b"source: arXiv:1" not in resumed.read_bytes()


def test_the_charts_of_references_name_tags_that_are_there(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write_references(REFERENCES)
    (path,) = tmp_path.glob("events.*")
    (layout,) = (
        Layout.FromString(v.tensor.string_val[0])
        for e in events(path)
        for v in e.summary.value
        if v.metadata.plugin_data.plugin_name == "custom_scalars"
    )
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    (band,) = charts["band of ez_jax"].margin.series
    assert (band.value, band.lower, band.upper) == tuple(
        f"reference/{line.name}" for line in REFERENCES[:3]
    )
    tags = ["eval/return_mean", *(f"reference/{line.name}" for line in REFERENCES)]
    patterns = charts["evaluation and references"].multiline.tag
    shown = [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]
    assert shown == ["eval/return_mean", "reference/ez_jax", "reference/human"]


def test_without_references_or_tensorboard_nothing_is_drawn(tmp_path):
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write_references([])
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write_references(REFERENCES)
    assert list(tmp_path.glob("events.*")) == []


def events(path):
    raw, at = path.read_bytes(), 0
    while at < len(raw):  # TFRecord: u64 length, u32 checksum, data, u32 checksum
        length = int.from_bytes(raw[at : at + 8], "little")
        yield Event.FromString(raw[at + 12 : at + 12 + length])
        at += 16 + length


def scalars(path, tag):
    values = [(e.step, v) for e in events(path) for v in e.summary.value if v.tag == tag]
    return [(step, value.simple_value) for step, value in values]


def shown(**kwargs):
    stream = io.StringIO()
    progress = Progress(stream=stream, **kwargs)
    progress.plan({"game": "CartPole [x]", "device": "cpu"}, ["this takes 5 weeks " * 10])
    with progress.compiling("the search"):
        pass
    with progress.running("CartPole", 100, 50):
        progress.update(Clocks())
        progress.update(Clocks(40, 40, 10, 2.0), {"rollout/return": 21.5, "loss/total": 2.25})
        progress.evaluation(Clocks(40, 40, 10, 2.0), EVALUATED)
    return stream.getvalue()


def test_a_file_gets_plain_lines_without_control_characters():
    text = shown()
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0] == "game    CartPole [x]"
    assert lines[2].startswith("warning: ")
    assert lines[3] == "compiling the search ..."
    assert lines[4].startswith("compiled the search in 0.0 s")
    assert lines[5:] == [
        "40/100 steps, 10/50 updates, training return 21.5, loss 2.25, 20 steps/s, 5 updates/s, "
        "8 s left",
        "evaluation at 40: 33.0 \N{PLUS-MINUS SIGN} 2.0 (10 episodes)",
    ]


def test_what_others_got_stands_beside_an_evaluation():
    stream = io.StringIO()
    Progress(stream=stream).evaluation(Clocks(1_500), EVALUATED, "published: human 7", "run")
    told = "evaluation at 1,500: 33.0 \N{PLUS-MINUS SIGN} 2.0 (10 runs); published: human 7\n"
    assert stream.getvalue() == told


@pytest.mark.parametrize(
    ("mean", "std", "episodes", "text"),
    [
        (0.25, 0.43, 20, "0.250 \N{PLUS-MINUS SIGN} 0.099 (20 episodes)"),
        (500.0, 0.0, 20, "500.0 \N{PLUS-MINUS SIGN} 0.0 (20 episodes)"),
        (25_310.4, 2_410.0, 32, "25,310 \N{PLUS-MINUS SIGN} 433 (32 episodes)"),
        (-20.7, 0.0, 1, "-20.7 (1 episode)"),
        (0.5, 0.0, 1, "0.5 (1 episode)"),
    ],
)
def test_a_score_has_its_standard_error_and_as_many_digits_as_that_tells(mean, std, episodes, text):
    measured = {"eval/return_mean": mean, "eval/return_std": std, "eval/episodes": episodes}
    assert score_text(measured) == text


def test_a_standard_error_is_that_of_the_mean():
    returns = np.array([3.0, 5.0, 10.0, 1.0])
    found = summary(make_config("CartPole"), Games(returns, np.ones(4, int)))
    expected = returns.std(ddof=1) / np.sqrt(4)
    assert score_text(found) == f"4.8 \N{PLUS-MINUS SIGN} {expected:.1f} (4 episodes, 4 distinct)"


def test_a_negative_loss_comes_with_its_parts_and_is_explained_once():
    stream = io.StringIO()
    progress = Progress(stream=stream)
    losses = {"loss/total": -0.5, "loss/value_prefix": 0.25, "loss/consistency": -0.75}
    for steps in (1, 2):
        progress.update(Clocks(steps), losses)
    told = stream.getvalue()
    assert told.count("loss -0.5 (value prefix 0.25, consistency -0.75)") == 2
    assert told.count("minus a similarity") == 1


def test_time_left_is_unknown_before_the_first_update():
    stream = io.StringIO()
    progress = Progress(stream=stream)
    with progress.running("CartPole", 100, 50):
        progress.update(Clocks())
        progress.update(Clocks(40, 40, 0, 2.0), {})
    assert stream.getvalue().endswith("? left\n")


def test_a_metric_line_is_json(tmp_path):
    write_steps(tmp_path, (10, 1))
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["updates"] == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4, "4 s"), (65, "1 min 05 s"), (3 * 3600 + 60, "3 h 01 min"), (5 * 604_800, "5 weeks")],
)
def test_durations_are_in_words(seconds, words):
    assert duration(seconds) == words


def test_the_published_preset_on_a_cpu_is_measured_in_weeks():
    warning = cpu_warning("efficientzero", 120_000, 3.0e12, cores=2)
    assert "preset=efficientzero would take about 12 weeks" in warning
    assert "preset=small" in warning
