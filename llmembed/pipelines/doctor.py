"""``doctor``: what this machine has, and what is missing, with the command that mends it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llmembed.errors import LlmembedError
from llmembed.pipelines.console import console, write_json
from llmembed.pipelines.runtime import files_folder, make_runtime

PACKAGES = (
    "torch",
    "transformers",
    "ray",
    "mlflow",
    "datasets",
    "deepspeed",
    "peft",
    "nvidia-ml-py",
)

Finding = tuple[bool, str]


def doctor(
    *, files: str | None = None, address: str | None = None, json_path: str | None = None
) -> bool:
    """Check packages, plug-ins, devices, backbone, energy counters, Ray, MLflow and disk; True if
    nothing is missing or broken."""
    place = files_folder(files)
    checks: dict[str, Callable[[], Finding]] = {
        "packages": _packages,
        "plugins": _plugins,
        "device": _device,
        "energy": _energy,
        "minilm": _minilm,
        "benchmarks": _benchmarks,
        "disk": lambda: _disk(place),
        "mlflow": lambda: _mlflow(place),
        "ray": lambda: _ray(place, address),
    }
    out = console()
    findings: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            good, words = check()
        except LlmembedError as error:
            good, words = False, str(error)
        except Exception as error:  # whatever is wrong, the others are looked at too
            good, words = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        findings[name] = {"ok": good, "found": words}
        mark = "[green]ok[/]  " if good else "[red]no[/]  "
        out.print(f"{mark}{name:<11}", end="")
        out.print(words, markup=False)
    write_json(json_path, findings)
    return all(finding["ok"] for finding in findings.values())


def _packages() -> Finding:
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return False, f"missing: pip install {' '.join(missing)}"
    return True, ", ".join(found)


def _plugins() -> Finding:
    """What installed packages add to our tables."""
    from llmembed.backbones import PRESETS
    from llmembed.fusion import FUSIONS
    from llmembed.methods import METHODS
    from llmembed.texts import BENCHMARKS

    added: dict[str, list[str]] = {}
    broken: list[str] = []
    for table in (METHODS, FUSIONS, BENCHMARKS, PRESETS):
        what = table.group.rpartition(".")[2]
        by_package: dict[str, list[str]] = {}
        for name in table.added:
            by_package.setdefault(table.sources[name], []).append(name)
        for package, names in by_package.items():
            added.setdefault(package, []).append(f"{', '.join(names)} ({what})")
        broken += [f"{name}: {reason}" for name, reason in table.broken.items()]
    said = [f"{package} adds {', '.join(lines)}" for package, lines in added.items()]
    if broken:
        return False, "; ".join([*said, *(f"left out: {words}" for words in broken)])
    return True, "; ".join(said) or "none: no installed package adds methods or the like"


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return True, f"{len(names)} GPU: {', '.join(names)}"
    from llmembed.backbones.hardware import best_dtype

    return True, f"no GPU; {os.cpu_count()} CPU cores, embeddings in {best_dtype()}"


def _energy() -> Finding:
    from llmembed.metering import METERS

    measured = []
    for name, make in METERS.items():
        meter = make()
        start = meter.read()
        # NVML charges a GPU only once this process has used it; its counters say enough here.
        counted = name == "nvml" and any(card.millijoules is not None for card in start.values())
        if meter.measured and (counted or meter.joules(start, meter.read())):
            measured.append(name)
    if measured:
        return True, f"measured by {', '.join(measured)}"
    return True, "no counter to read: joules are estimated from declared power, and marked ~"


def _minilm() -> Finding:
    from llmembed.backbones import resolve

    spec = resolve("minilm")
    return (
        True,
        f"all-MiniLM-L6-v2 found, sha256 {(spec.weights_sha256 or '')[:12]}… as expected",
    )


def _benchmarks() -> Finding:
    folder = os.environ.get("LLMEMBED_DATA_DIR")
    if not folder:
        return True, "LLMEMBED_DATA_DIR is not set: benchmark data sets come from the hub"
    if not Path(folder).is_dir():
        return False, f"LLMEMBED_DATA_DIR={folder} is not a folder"
    names = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    return True, f"LLMEMBED_DATA_DIR holds {', '.join(names)}"


def _disk(place: str) -> Finding:
    if "://" in place:
        return True, f"files go to {place}"
    Path(place).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free / 2**30
    return free > 2, f"{free:.0f} GiB free under {place}"


def _mlflow(place: str) -> Finding:
    from llmembed.tracking import Tracking

    return True, f"see runs with: {Tracking(files=place).ui_command}"


def _ray(place: str, address: str | None) -> Finding:
    with make_runtime(files=place, address=address) as runtime:
        plan = runtime.plan()
        pool = plan.model
        place = f"{pool.gpus:g} GPU" if pool.gpus else f"{pool.threads} thread(s)"
        return True, f"answers; models would run on {pool.largest} actor(s) of {place} each"
