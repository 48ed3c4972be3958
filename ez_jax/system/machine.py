"""Facts about this installation and machine, for `python -m ez_jax.doctor`.

Nothing here may fail: a fact that cannot be found is reported as unknown.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import ez_jax

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "mctx", "envpool", "orbax-checkpoint", "gymnasium", "numpy",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Version by package; None for packages that are not installed."""
    found = {"python": platform.python_version(), "ez_jax": ez_jax.__version__}
    return found | {package: installed(package) for package in PACKAGES}


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device_name() -> str:
    """The kind of accelerator; for a CPU, which JAX does not name, the model and cores."""
    import jax

    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return f"{device.platform}: {device.device_kind}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"cpu: {model}, {os.cpu_count()} cores"


def facts() -> dict[str, str]:
    """The resources of a run, by name."""
    rows = {
        "platform": platform.platform,
        "processors": _processors,
        "memory": _memory,
        "devices": _devices,
        "compiled programs": _cache,
    }
    return {name: _told(row) for name, row in rows.items()}


def nvidia_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver finds, whether or not JAX uses them."""
    lines = _nvidia_smi("-L")
    names = re.findall(r"^GPU \d+: (.*?)(?: \(UUID|$)", lines, re.MULTILINE)
    if not names and Path("/dev/nvidia0").exists():
        return ["an NVIDIA GPU (/dev/nvidia0)"]
    return names


def cuda_extra() -> str:
    """The extra of ez_jax for the installed NVIDIA driver; newer drivers also accept the older."""
    version = re.search(r"CUDA(?: \w+)? Version: (\d+)", _nvidia_smi())
    return "cuda13" if version is not None and int(version[1]) >= 13 else "cuda12"


def _nvidia_smi(*words: str) -> str:
    """The output of nvidia-smi; empty without it, or if it finds no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs counts as none
        return ""
    return done.stdout if done.returncode == 0 else ""


def _told(row: Callable[[], str]) -> str:
    try:
        return row()
    except Exception as error:  # noqa: BLE001 reported, and the checks that follow show what is wrong
        return f"unknown ({error!r})"


def _jax() -> ModuleType:
    """JAX as a run uses it."""
    from ez_jax.system import compilation

    compilation.configure_jax()
    return importlib.import_module("jax")


def _processors() -> str:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return f"{total}" + (f", of which this process may use {usable}" if usable < total else "")


def _memory() -> str:
    from ez_jax.system import free_memory

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = free_memory.available_memory().host
    return f"{free_memory.gigabytes(free)} available of {free_memory.gigabytes(total)}"


def _devices() -> str:
    jax = _jax()
    from ez_jax.system import free_memory

    name, count = device_name(), jax.device_count()
    available = free_memory.available_memory()
    free = "memory as above" if available.is_shared else free_memory.gigabytes(available.device)
    return f"{count} x {name}, {free}" + ("" if available.is_shared else " available on each")


def _cache() -> str:
    jax = _jax()
    from ez_jax.system import compilation

    folder = jax.config.jax_compilation_cache_dir
    if not folder or not jax.config.jax_enable_compilation_cache:
        is_asked = "JAX_COMPILATION_CACHE_DIR" in os.environ
        return "not cached: every start compiles again" if is_asked else compilation.NO_CACHE
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return f"cached in {folder}, which can be written"
    except OSError as error:
        return (
            f"{folder} cannot be written ({error.strerror}), so every start compiles again: "
            "set JAX_COMPILATION_CACHE_DIR to another folder"
        )
