"""What files' names and folders say: which part of a data set they are, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from llmembed.errors import DataError
from llmembed.texts.columns import listed, printable
from llmembed.texts.files import DataFile, is_pattern, is_remote, suffix_of

SPLITS = {
    "train": "train",
    "training": "train",
    "trainset": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "development": "valid",
    "devset": "valid",
    "test": "test",
    "testing": "test",
    "testset": "test",
    "eval": "test",
    "evaluation": "test",
}
GENERIC = {
    *SPLITS,
    *("all", "corpus", "csv", "data", "dataset", "datasets", "file", "files", "final", "full"),
    *("input", "json", "jsonl", "label", "labeled", "labelled", "labels", "of", "part", "parquet"),
    *("raw", "set", "sheet", "shard", "split", "splits", "tsv", "v"),
}
"""Words of a file's role, which say nothing of what it is about."""
WAY_OUT = "data.split_by_name=false takes every file as training rows"


def part_named(name: str) -> str | None:
    """``train``, ``valid`` or ``test`` where the first or the last word of a name, words of no
    meaning aside, is that of a part: ``test-00000``, ``reviews_val``, ``Test Data``. ``latest``
    and ``photo of test tubes`` are none. ``both`` where both ends name a part, not the same."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # testData
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", spaced)]
    words = [word for word in words if word in SPLITS or word not in GENERIC]
    found = {SPLITS[word] for word in (*words[:1], *words[-1:]) if word in SPLITS}
    return "both" if len(found) > 1 else next(iter(found), None)


def part_of(address: str, root: str = "") -> str | None:
    """What a file's name and its folders below ``root`` say together; see ``part_named``."""
    below = address[len(root) :] if address.startswith(root) else PurePosixPath(address).name
    *folders, _ = below.split("/")
    names = [*folders, suffix_of(address)[1]]
    found = {part for name in names if (part := part_named(name)) is not None}
    return "both" if len(found) > 1 else next(iter(found), None)


def by_name(files: Sequence[DataFile], sources: Sequence[str]) -> dict[str, list[DataFile]]:
    """Files by the parts that their names or folders say; all of them are train where none says
    one, and where it is one file that was named itself. Raises ``DataError`` in doubt."""
    roots = [_root(source) for source in sources]
    splits: dict[str, list[DataFile]] = {}
    for file in files:
        root = max((r for r in roots if file.address.startswith(r)), key=len, default="")
        splits.setdefault(part_of(file.address, root) or "", []).append(file)
    if "both" in splits:
        raise DataError(
            f"{splits['both'][0].address} is named as two parts at once; say --data and "
            f"--test-data, or {WAY_OUT}"
        )
    if set(splits) <= {"", "train"} and len(splits) == 1:
        return {"train": list(files)}
    if len(files) == 1 and not sources[0].endswith("/") and roots[0] != _folder(sources[0]):
        return {"train": list(files)}
    if "train" in splits and "" in splits and len(splits) > 1:
        raise DataError(
            f"some files are named as splits, but {listed(f.address for f in splits[''])} is not; "
            f"say which files are --data and which are --test-data; {WAY_OUT}"
        )
    if "train" not in splits:
        part, first = next((p, group[0]) for p, group in splits.items() if p)
        rows = "test" if part == "test" else "validation"
        option = "--test-data" if part == "test" else "data.valid"
        raise DataError(
            f"{first.address} looks like {rows} rows, and no file is named train: say {option} for "
            f"it and --data for the training rows; {WAY_OUT}"
        )
    return splits


def beside_others(
    files: Sequence[DataFile], others: Mapping[str, Sequence[DataFile]], sources: Sequence[str]
) -> dict[str, list[DataFile]]:
    """All parts, where ``others`` were named apart from the training files: these are without the
    files of the other parts, and those called validation are that part if none was named. Raises
    ``DataError`` where another file is called as a part that was named."""
    taken = {file.address for group in others.values() for file in group}
    parts: dict[str, list[DataFile]] = {"train": []}
    parts |= {name: list(group) for name, group in others.items()}
    roots = [_root(source) for source in sources]
    for file in files:
        if file.address in taken:
            continue
        root = max((r for r in roots if file.address.startswith(r)), key=len, default="")
        part = part_of(file.address, root)
        if len(files) > 1 and part == "valid" and "valid" not in others:
            parts.setdefault("valid", []).append(file)
            continue
        if len(files) > 1 and part in ("valid", "test", "both"):
            raise DataError(
                f"{file.address} looks like {'validation' if part == 'valid' else 'test'} rows, "
                f"but is named as training rows: name the files of --data one by one; {WAY_OUT}"
            )
        parts["train"].append(file)
    if not parts["train"]:
        raise DataError(f"no training file is left of {listed(sources)} beside the other parts")
    return parts


def said_of_files(splits: Mapping[str, Sequence[DataFile]]) -> str:
    """Which files became which part, for a note; empty where it is one file."""
    if sum(map(len, splits.values())) < 2:
        return ""
    addresses = [file.address for group in splits.values() for file in group]
    start = len(_common_folder(addresses))
    return "; ".join(
        f"{split}: {listed((file.address[start:] for file in group), 4)}"
        for split in ("train", "valid", "test")
        if (group := splits.get(split))
    )


def _common_folder(addresses: Sequence[str]) -> str:
    folders = [address.rpartition("/")[0].split("/") for address in addresses]
    same = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        same.append(parts[0])
    return "/".join([*same, ""])


def _root(source: str) -> str:
    """What all files of a source begin with and was said by the user: the folder that was named,
    the folder of a file, a pattern's part without wildcards."""
    folder = _folder(source)
    if is_pattern(source):
        plain = re.split(r"[*?\[]", folder)[0]
        return plain.rpartition("/")[0] + "/"
    if not is_remote(source) and Path(source).expanduser().is_dir():
        return folder
    if is_remote(source) and not suffix_of(source)[0]:
        return folder
    return folder.rstrip("/").rpartition("/")[0] + "/"


def _folder(source: str) -> str:
    whole = source if is_remote(source) else str(Path(source).expanduser().absolute())
    return whole.rstrip("/") + "/"


def name_of(source: str) -> str:
    """What a data set is called: the file or folder that was named, or the nearest folder above
    whose name is one: ``reviews/train.csv``, ``reviews/data/part-0.csv`` are ``reviews``."""
    whole = source if is_remote(source) else str(Path(source).expanduser().absolute())
    parts = [part for part in whole.partition("://")[2 * is_remote(source)].split("/") if part]
    if is_pattern(source):
        wild = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
        parts = parts[:wild]
    names = [_plain(suffix_of(part)[1]) for part in parts]
    chosen = [name for name in names if name and not _is_generic(name)]
    usual = next((name for name in reversed(names) if name), "data")
    return chosen[-1] if chosen else usual


def _plain(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name).strip("-")


def _is_generic(name: str) -> bool:
    return all(word.lower() in GENERIC for word in re.findall(r"[^\W\d_]+", name))


def described_note(address: str) -> str | None:
    """For one file that was named itself and is called as another part is."""
    parent, name = PurePosixPath(address).parent.name, suffix_of(address)[1]
    if part_named(name) in ("valid", "test") or part_named(parent) in ("valid", "test"):
        return f"{printable(address)} is named as held-out rows are, and is read as all the data"
    return None
