"""The walls of the house, read from the code's own imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("llmembed", "jobs", "tune", "serve")

# Top to bottom: a room imports only from lines below its own.
LINES = [
    {"jobs"},  # a job is a command of the command line
    {"cli"},
    {"tune", "serve"},
    {"pipelines"},
    {"experiment"},
    {"methods", "evaluation", "tracking", "cluster"},
    {"embeddings", "generation", "finetuning"},
    {"texts", "backbones", "fusion", "heads", "metering", "prompts"},
    {"permissions", "metrics"},
    {"folds"},
    {"contract", "errors"},
    {"sharding", "usage", "plugins", "mistakes", "settings"},
]
# Library -> the rooms that may import it.
OWNERS = {
    "ray.data": {"cluster"},
    "ray.train": {"cluster"},
    "ray.tune": {"tune"},
    "ray.serve": {"serve"},
    "ray.job_submission": {"jobs", "cli"},
    "ray": {"cluster", "tune", "serve", "jobs", "cli"},
    "mlflow": {"tracking"},
    "deepspeed": {"cluster"},
}


def modules() -> Iterator[Path]:
    for top in CODE:
        yield from sorted((ROOT / top).rglob("*.py"))


def room_of(path: Path) -> str | None:
    """The room a file is in; None for the package's own ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "llmembed":
        return parts[0]
    return None if parts[1] in ("__init__", "__main__") else parts[1]


def imports(path: Path, *, type_checking: bool = True) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, as dotted names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def line_of(room: str) -> int:
    return next(number for number, line in enumerate(LINES) if room in line)


def imported_room(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] in ("jobs", "tune", "serve"):
        return parts[0]
    known = {room for line in LINES for room in line}
    return parts[1] if parts[0] == "llmembed" and len(parts) > 1 and parts[1] in known else None


def test_every_room_has_its_line():
    known = {room for line in LINES for room in line}
    assert {room for path in modules() if (room := room_of(path))} <= known


def test_imports_go_down_only():
    wrong = []
    for path in modules():
        room = room_of(path)
        if room is None:
            continue
        for name in imports(path):
            target = imported_room(name)
            if target is None or target == room:
                continue
            below = line_of(target) > line_of(room)
            if not below and {room, target} != {"contract", "errors"}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_in_their_rooms():
    wrong = []
    for path in modules():
        room = room_of(path)
        for name in imports(path):
            for library, owners in OWNERS.items():
                if (name == library or name.startswith(library + ".")) and room not in owners:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_drawer_for_odds_and_ends_and_no_endless_file():
    for path in modules():
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330, path


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_file_imports_what_imports_it():
    """Not even for type checkers, and not through others."""
    files = {name_of(path): path for path in modules()}
    below: dict[str, set[str]] = {}
    for name, path in files.items():
        below[name] = set()
        for imported in imports(path):
            while imported and imported not in files:
                imported = imported.rpartition(".")[0]
            if imported and imported != name:
                below[name].add(imported)
    # What depends on nothing that is left is taken away, again and again; what stays is a circle.
    left = dict(below)
    while free := [name for name, deps in left.items() if not deps & left.keys()]:
        for name in free:
            del left[name]
    needed = {each for deps in left.values() for each in deps}
    assert not left, sorted(set(left) & needed)


FAMILIES = tuple(p.parent.name for p in sorted((ROOT / "llmembed/methods").glob("*/settings.py")))


def test_families_do_not_import_each_other_and_nobody_imports_their_methods():
    """Outside, ``METHODS`` knows them; sweeps know the settings of what they search."""
    assert set(FAMILIES) >= {"frozen", "finetuned", "prompted"}
    wrong = []
    for path in modules():
        own = path.parent.name if path.parent.parent.name == "methods" else None
        for name in imports(path):
            for family in FAMILIES:
                inside = f"llmembed.methods.{family}"
                if not f"{name}.".startswith(f"{inside}.") or family == own:
                    continue
                if not (room_of(path) == "tune" and name.startswith(f"{inside}.settings")):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_a_replica_knows_no_http_and_no_ray():
    others = ("serve.http", "serve.routes", "ray", "fastapi", "starlette")
    for path in sorted((ROOT / "serve/model").glob("*.py")):
        wrong = [name for name in imports(path) if name.startswith(others)]
        assert not wrong, f"{path.name} imports {', '.join(wrong)}"


@pytest.mark.parametrize("family", FAMILIES)
def test_settings_of_a_family_are_light(family):
    """Under 50 ms beyond pydantic, and neither torch nor transformers."""
    code = (
        "import sys, time\n"
        "from pydantic import BaseModel, Field, TypeAdapter, field_validator\n"
        "class Plain(BaseModel): kind: str = Field('a', description='b')\n"
        "start = time.process_time()  # other processes may be at work\n"
        f"import llmembed.methods.{family}.settings\n"
        "print(time.process_time() - start, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    told = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.split())
    assert told[0][1:] == ["False", "False"]
    assert min(float(seconds) for seconds, *_ in told) < 0.05


def test_nothing_is_pickled():
    wrong = []
    for path in modules():
        for name in imports(path):
            if name.split(".")[0] in ("pickle", "joblib", "dill", "cloudpickle", "marshal"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "torch.load",
                "torch.save",
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


HEAVY = ("torch", "ray", "transformers", "mlflow", "sklearn", "pandas", "matplotlib")


@pytest.mark.parametrize(
    "code",
    ["import llmembed", "from llmembed.cli import main; main(['recipes', 'demo'])"],
    ids=["import", "recipes"],
)
def test_nothing_heavy_is_loaded_at_import(code):
    check = (
        f"{code}\nimport sys; print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("arguments", [["-c", "import llmembed"], ["-m", "llmembed", "--help"]])
def test_import_and_help_take_less_than_half_a_second(arguments):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
