"""A stand-in for `ez_jax.studies.run_process`: leaves run folders as if trained, in no time.

What it does is written into `journal` in the folder of the ledger, a line each. A file `fail_<arm>`
there makes it fail so many times as it has bytes; while there is a file `hold`, it waits. As a
command it imports next to nothing; `handed_over` is the real command but for the training.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

SCORES = {"baseline": 10.0, "no_consistency": 7.0}


def say(ledger, what, config):
    line = f"{what} {config['name']} {config['seed']} {os.getppid()}\n"
    file = os.open(ledger / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def complete(config):
    """The run folder of a run that is over."""
    folder, steps = Path(config["run_dir"]), config["total_agent_steps"]
    updates = int((steps - config["learner"]["start"]) * config["updates_per_step"])
    clocks = {"agent_steps": steps, "env_frames": steps, "updates": updates, "seconds": 2.0}
    checkpoint = folder / "checkpoints" / str(steps)
    checkpoint.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    score = SCORES.get(config["name"], 5.0) + config["seed"]
    (folder / "metrics.jsonl").write_text(json.dumps({**clocks, "eval/return_mean": score}) + "\n")
    meta = {"format": 2, "step": steps, "items": {}, "meta": {"clocks": clocks}}
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    digest = hashlib.sha256((checkpoint / "meta.json").read_bytes()).hexdigest()
    (checkpoint / "SHA256SUMS").write_text(f"{digest}  meta.json\n")


def run(configs):
    ledger = Path(configs[0]["run_dir"]).parents[3]
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    for config in configs:
        say(ledger, "begin", config)
    failures = ledger / f"fail_{configs[0]['name']}"
    if failures.exists() and (left := failures.read_text()):
        failures.write_text(left[1:])
        sys.stderr.write("one line\nthe last line\n")
        return 2 if left[0] == "2" else 1
    while (ledger / "hold").exists():
        if asked:
            say(ledger, "stop", configs[0])
            return 130
        time.sleep(0.02)
    for config in configs:
        complete(config)
        say(ledger, "end", config)
    return 0


def handed_over():
    """What ends with its parent and shares its lock."""
    from ez_jax import config
    from ez_jax.studies import run_process
    from ez_jax.system import exits

    run_process.run = lambda job: run([config.to_dict(one) for one in job.configs])
    sys.exit(exits.guarded(run_process.main))


def without_locks():
    """As on a file system that has none."""
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = refuse


def crowd(folder, count):
    """So many workers at once, each a process."""
    if (Path(folder) / "no_locks").exists():
        without_locks()
    from ez_jax.studies.ledger import Ledger
    from ez_jax.studies.workers import Orders, Worker
    from ez_jax.terminal.progress import Progress

    command = (sys.executable, "-c", "import stand_in_run; stand_in_run.handed_over()")
    ledger = Ledger.open(Path(folder))
    children = []
    for number in range(int(count)):
        child = os.fork()
        if not child:
            orders = Orders(f"worker{number}", command=command)
            is_interrupted = Worker(ledger, orders, Progress()).work()
            os._exit(130 if is_interrupted else 0)
        children.append(child)
    sys.stdout.write(f"{' '.join(map(str, children))}\n")
    sys.stdout.flush()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(codes, key=abs))


if __name__ == "__main__":
    if sys.argv[1] == "crowd":
        crowd(*sys.argv[2:])
    sys.exit(run(json.loads(Path(sys.argv[1]).read_text())["configs"]))
