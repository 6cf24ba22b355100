"""What a run ran on: package versions, Python, processor, GPUs, git commit. Never the process
environment, which holds secrets."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from llmembed.tracking.privacy import masked

PACKAGES = (
    "llmembed",
    "torch",
    "transformers",
    "tokenizers",
    "ray",
    "mlflow",
    "numpy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "safetensors",
    "datasets",
    "deepspeed",
    "peft",
    "accelerate",
)


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of those of ``names`` that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def environment() -> dict[str, Any]:
    """JSON-ready; takes some tens of milliseconds, imports neither torch nor ray."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpu_names(),
        "packages": package_versions(),
        "git": git_state(Path.cwd()),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Commit, branch, remote address (masked) and whether files differ from the commit, of the
    repository ``folder`` is in; empty outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "remote": masked(_git(folder, "config", "--get", "remote.origin.url")),
        "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no")),
    }


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _gpu_names() -> list[str]:
    """Names of the GPUs the driver shows; none where there is no driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
        return [name.decode() if isinstance(name, bytes) else name for name in names]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
