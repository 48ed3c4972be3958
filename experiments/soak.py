"""Random games, settings, folders and accidents, and whether ez_jax keeps its word.

    python -m experiments.soak seconds=3600 seed=0

Each case trains a tiny run to its end, trains the same in another folder where something happens to
it, and gives the same command again. Whatever happened, the contract is: exit code 0, 1, 2 or 130;
what was refused or filled is one sentence; no checkpoint that stood is lost; and the run that went
on has the same curve as the one that was left alone. Afterwards the run is evaluated where it lies,
in a folder of any name. The last line of stdout counts cases and failures.

Full disks are small file systems (`mount -t tmpfs`, for root alone) that are filled while the run
writes, or a limit on the size of files. `record=FILE` gets a line of JSON for each case.
"""

import ez_jax.system.allocator  # noqa: F401  # isort: skip, before others make threads

import collections
import contextlib
import dataclasses
import functools
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ez_jax import terminal
from ez_jax.system import exits
from ez_jax.terminal import arguments

ROOT = Path(__file__).parent.parent
OWN_KEYS = {"seconds": 3600, "seed": 0, "first": 0, "record": ""}
TROUBLES = {  # how often each is drawn
    "SIGKILL": 4, "SIGTERM": 2, "full disk": 3, "largest file": 1, "refused": 1, "faulty game": 2,
}  # fmt: skip
DISK = 80  # MB of a small disk, a little more than a run asks for
CODES = (exits.DONE, exits.FAILED, exits.BAD_INPUT, exits.INTERRUPTED)
PATIENCE = 900  # seconds for one command; one that hangs is ended by SIGABRT

TINY = {
    "total_agent_steps": 120, "updates_per_step": 0.1, "final_updates": 2, "learner.start": 20,
    "learner.batch_size": 4, "learner.unroll_steps": 1, "targets.td_steps": 1,
    "reanalyse.max_age": 10, "replay.capacity": 100, "actor.num_envs": 2, "env.frame_stack": 1,
    "search.num_simulations": 2, "env.eval_max_episode_steps": 30, "network.vector_width": 8,
    "network.vector_blocks": 1, "network.support": 5, "network.lstm_width": 8,
    "network.head_hidden": 8, "network.projection": 8, "network.predictor_hidden": 8,
    "eval.every": 60, "eval.episodes": 2, "eval.num_envs": 2, "log.every": 20,
    "log.tensorboard": "false", "log.progress": "false", "checkpoint.every": 30,
}  # fmt: skip
DRAWN: dict[str, Sequence[object]] = {
    "search.policy": ("puct_ez", "puct", "gumbel"),
    "search.num_simulations": (2, 3, 5),
    "learner.unroll_steps": (1, 2),
    "env.frame_stack": (1, 3),
    "checkpoint.every": (20, 30, 50),
    "checkpoint.keep": (1, 2),
    "reanalyse.updates_per_search": (1, 2),
    "replay.capacity": (60, 100),
    "actor.num_envs": (1, 2, 3),
}
CHARACTERS = "ab01 []*?\\{}%=,'\"\n~-#$&;:!@^|()\t✓é"
REFUSED = (
    "learner.batch_size=0", "search.policy=nonsense", "lerner.batch_size=4", "seed=x", "game=",
    "game=Nonsense-v9", "total_agent_steps=-1", "run_dir=/proc/nowhere", "game=soak_games:X-v0",
    "replay.capacity=1", "eval.episodes=0", "~seed", "checkpoint.keep=0", "name=..", "seeds=0",
)  # fmt: skip
GAMES = """
import gymnasium, numpy as np, os
from gymnasium import spaces

class Sound(gymnasium.Env):
    observation_space = spaces.Box(0, 8, (1,), np.float32)
    action_space = spaces.Discrete(2)
    calls = 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = int(self.np_random.integers(2, 7)), 0
        return self.see(), {}
    def step(self, action):
        type(self).calls += 1
        self.t += 1
        self.x += 1 if action else -1
        if self.calls == 90:
            self.fail()
        over = self.x <= 0 or self.x >= 8
        return self.see(), self.pay(over), over, self.t >= 20, {}
    def fail(self): pass
    def see(self): return np.array([self.x], np.float32)
    def pay(self, over): return float(over)

def quits(self): raise SystemExit
def breaks(self): raise ZeroDivisionError("mine")
def interrupts(self): raise KeyboardInterrupt

FAULTS = {
    "Sound": {}, "Quits": {"fail": quits}, "Breaks": {"fail": breaks},
    "Interrupts": {"fail": interrupts}, "Leaves": {"fail": lambda self: os._exit(0)},
    "NanReward": {"pay": lambda self, over: np.nan if self.calls == 70 else float(over)},
    "Huge": {"pay": lambda self, over: 1e38 if self.calls == 70 else float(over)},
    "NanSeen": {"see": lambda self: np.array([np.inf if self.calls == 70 else self.x], "f4")},
}
for name, methods in FAULTS.items():
    gymnasium.register(f"{name}-v0", entry_point=type(name, (Sound,), {"calls": 0, **methods}))
"""
SOUND = ("CartPole", "soak_games:Sound-v0", "Catch-bsuite")
FAULTY = ("Quits", "Breaks", "Interrupts", "Leaves", "NanReward", "Huge", "NanSeen")


@dataclasses.dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str
    seconds: float


def start(folder: Path, words: Sequence[str], after: Callable[[], None] | None = None):
    """Start a command of ez_jax in the soak's folder."""
    variables = {
        "PYTHONPATH": f"{ROOT}:{folder}",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONFAULTHANDLER": "1",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", f"{folder}/xla"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=after,
    )


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let some time pass, or less if the process ends."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def ended(process: subprocess.Popen[bytes], began: float, patience: float = PATIENCE) -> Ended:
    """Wait for a command; it is not waited for in vain."""
    try:
        output, errors = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # shows where it hangs
        output, errors = process.communicate()
    texts = (text.decode(errors="replace") for text in (output, errors))
    return Ended(process.returncode, *texts, time.monotonic() - began)


class Case:
    """What is drawn from one number, and what has been seen of it."""

    def __init__(self, seed: int, number: int, folder: Path):
        """Draw everything."""
        rng = self.rng = random.Random(f"{seed}/{number}")
        self.folder, self.failures = folder, []
        self.trouble = rng.choices(list(TROUBLES), list(TROUBLES.values()))[0]
        faulty = f"soak_games:{rng.choice(FAULTY)}-v0"
        self.game = faulty if self.trouble == "faulty game" else rng.choice(SOUND)
        drawn = {key: rng.choice(values) for key, values in DRAWN.items() if rng.random() < 0.4}
        settings = TINY | drawn | {"game": self.game, "seed": rng.randrange(1000)}
        self.words = [f"{key}={value}" for key, value in settings.items()]
        length = rng.randrange(1, 24)
        name = "".join(rng.choice(CHARACTERS) for _ in range(length)).replace("${", "$")
        # Whatever quotes surround is taken without them.
        self.run_dir = folder / f"{number}" / f"x{name}x"
        self.alone = folder / f"{number}-alone"

    def train(self, run_dir: Path, *more: str, after: Callable[[], None] | None = None):
        """Start the training."""
        return start(self.folder, ["ez_jax.train", *self.words, f"run_dir={run_dir}", *more], after)

    def expect(self, holds: object, what: str, seen: Ended | None = None) -> None:
        """Note what is not as promised."""
        if not holds:
            tail = f": {seen.code}\n{seen.output[-300:]}\n{seen.errors[-1500:]}" if seen else ""
            self.failures.append(f"{what}{tail}")

    def run(self) -> None:
        """Try it."""
        if self.trouble == "refused":
            return self.refuse()
        if self.trouble == "faulty game":
            return self.fail()
        seen = ended(self.train(self.alone), time.monotonic())
        self.expect(seen.code == exits.DONE, "a run that nothing happens to does not end", seen)
        with self.disk():
            self.suffer(seen.seconds)
            again = ended(self.train(self.run_dir), time.monotonic())
            self.expect(again.code == exits.DONE, "it does not go on", again)
            lost = "is damaged; start in a new run_dir=" in again.errors
            self.expect(not lost, "all checkpoints are lost", again)
            same = curve(self.alone) == curve(self.run_dir)
            self.expect(same, "it has another curve than the run that was left alone", again)
            self.evaluate()
        return None

    @contextlib.contextmanager
    def disk(self) -> Iterator[None]:
        """A small file system for the run, where it is to be filled."""
        if self.trouble == "full disk" and os.geteuid():
            self.trouble = "largest file"  # only root may mount a disk
        if self.trouble != "full disk":
            yield
            return
        parent = self.run_dir.parent
        parent.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "soak", parent], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", parent], check=True)

    def suffer(self, usual: float) -> None:
        """Train while something happens, up to three times."""
        happen = {"full disk": self.fill, "largest file": self.limit}.get(self.trouble, self.signal)
        for _ in range(self.rng.randrange(1, 4)):
            before = checkpoints(self.run_dir)
            seen = happen(usual)
            after = checkpoints(self.run_dir)
            lost = before and max(after, default=-1) < max(before)
            self.expect(not lost, f"checkpoints {before} became {after}", seen)

    def signal(self, usual: float) -> Ended:
        """Send a signal after some time."""
        number = signal.Signals[self.trouble]
        process, began = self.train(self.run_dir), time.monotonic()
        wait(process, self.rng.uniform(0.2, 1.1) * usual)
        process.send_signal(number)
        seen = ended(process, began)
        # Before Python listens, or while it starts, a signal ends it in the system's own way.
        self.expect(seen.code in (*CODES, -number), "an unknown exit code", seen)
        if seen.code == exits.INTERRUPTED:
            self.expect("Traceback" not in seen.errors, "a traceback of a signal", seen)
        return seen

    def limit(self, usual: float) -> Ended:
        """Let no file grow beyond some bytes."""
        del usual
        after = functools.partial(limit, int(2 ** self.rng.uniform(8, 18)))
        seen = ended(self.train(self.run_dir, after=after), time.monotonic())
        self.expect_full(seen)
        return seen

    def fill(self, usual: float) -> Ended:
        """Fill the disk but for some bytes, at some time."""
        process, began = self.train(self.run_dir), time.monotonic()
        wait(process, self.rng.uniform(0.2, 1.1) * usual)
        filler = self.run_dir.parent / "filler"
        left = int(2 ** self.rng.uniform(0, 20))
        with contextlib.suppress(OSError), filler.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(filler.parent).free - left)))
        seen = ended(process, began)
        filler.unlink(missing_ok=True)
        self.expect_full(seen)
        return seen

    def expect_full(self, seen: Ended) -> None:
        """Whatever a full disk came in between of, it is told in a sentence."""
        self.expect(seen.code in CODES, "an unknown exit code", seen)
        if seen.code in (exits.FAILED, exits.BAD_INPUT):
            told = "Traceback" not in seen.errors and "error: " in seen.errors
            self.expect(told, "a full disk is told otherwise", seen)

    def evaluate(self) -> None:
        """The run can be used where it lies."""
        words = ["ez_jax.evaluate", f"run={self.run_dir}", "episodes=1"]
        seen = ended(start(self.folder, words), time.monotonic())
        self.expect(seen.code == exits.DONE, "it cannot be evaluated", seen)

    def refuse(self) -> None:
        """What cannot be, is told in one sentence."""
        word = self.rng.choice(REFUSED)
        words = [w for w in self.words if w.partition("=")[0] != word.partition("=")[0]]
        where = [] if word.startswith("run_dir") else [f"run_dir={self.run_dir}"]
        process = start(self.folder, ["ez_jax.train", *words, *where, word])
        seen = ended(process, time.monotonic())
        self.expect(seen.code == exits.BAD_INPUT, f"{word} is not refused", seen)
        lines = seen.errors.strip().splitlines()
        self.expect(len(lines) == 1 and lines[0].startswith("error: "), f"{word}: words", seen)
        self.expect(not self.run_dir.exists(), f"{word} leaves a folder", seen)

    def fail(self) -> None:
        """A game fails: exit code 1, and the same command gets further."""
        reached = []
        for _ in range(2):
            seen = ended(self.train(self.run_dir), time.monotonic())
            if reached and seen.code == exits.DONE:  # what was left is shorter than to the fault
                return
            if seen.code == exits.DONE and "no score at" in seen.output:
                return  # it failed in an evaluation, which costs a score and not the run
            self.expect(seen.code == exits.FAILED, f"{self.game} does not fail", seen)
            own = "ZeroDivisionError: mine" in seen.errors
            self.expect(own or "Traceback" not in seen.errors, f"{self.game}: a traceback", seen)
            reached.append(max(checkpoints(self.run_dir), default=-1))
            if "no last score" in seen.errors:  # trained to the end, and failed in evaluation
                return
        self.expect(0 <= reached[0] < reached[1], f"{self.game} goes {reached}", seen)


def limit(most: int) -> None:
    """No file can grow beyond so many bytes: to a program that is a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def checkpoints(run_dir: Path) -> list[int]:
    """The agent steps of the checkpoints of a run."""
    folder = run_dir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def curve(run_dir: Path) -> list[dict[str, float]]:
    """The lines of metrics but for the seconds; empty where there are none."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        {k: v for k, v in json.loads(line).items() if "second" not in k and "speed" not in k}
        for line in lines
    ]


def cases(seconds: float, seed: int, first: int) -> Iterator[tuple[int, Case]]:
    """One case after another while there is time."""
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="ez_jax-soak-") as folder:
        (Path(folder) / "soak_games.py").write_text(GAMES)
        while time.monotonic() < until:
            case = Case(seed, first, Path(folder))
            case.run()
            yield first, case
            first += 1


def main(words: Sequence[str]) -> int:
    """Try cases for so many seconds; the exit code says whether all promises were kept."""
    values, _ = arguments.read(words, OWN_KEYS)
    tried: collections.Counter[str] = collections.Counter()
    failed = 0
    for number, case in cases(values["seconds"], values["seed"], values["first"]):
        tried[case.trouble] += 1
        failed += bool(case.failures)
        verdict = "failed" if case.failures else "kept"
        where = ascii(case.run_dir.name)
        sys.stdout.write(f"{number} {case.trouble}: {verdict}; {case.game} in {where}\n")
        if values["record"]:
            facts = {"case": number, "trouble": case.trouble, "game": case.game}
            facts |= {"folder": case.run_dir.name, "failures": case.failures}
            with Path(values["record"]).open("a") as file:
                file.write(json.dumps(facts) + "\n")
        for failure in case.failures:
            sys.stdout.write(f"  {failure}\n  {shlex.join(case.words)}\n")
        sys.stdout.flush()
    told = ", ".join(f"{count} {trouble}" for trouble, count in sorted(tried.items()))
    sys.stdout.write(f"{sum(tried.values())} cases ({told}), {failed} failed\n")
    return exits.FAILED if failed else exits.DONE


if __name__ == "__main__":
    terminal.start(main, __doc__)
