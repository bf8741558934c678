"""The files behind the name of a task source: a file, a pattern, a folder of files, a data set that `datasets` saved to
disk, or a data set of the Hugging Face hub, with its splits and configurations.

A folder has splits where its files or their folders are named after them (`train.jsonl`, `test-00000-of-00003.parquet`,
`validation/part-0.csv`); what is named after none is all there is.
"""

from __future__ import annotations

import glob
import json
import re
from dataclasses import dataclass
from pathlib import Path

from etude.errors import UserError, nearest

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
READ = (
    "a file of tasks ends in .jsonl or .ndjson (a JSON object a line), .json (an array of objects), .csv, .tsv, "
    ".parquet or .arrow, each also with .gz"
)
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SIDE = ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json", "config.json")


@dataclass(frozen=True)
class Found:
    """The files of one split, and what there is to choose from."""

    files: tuple[Path, ...]
    split: str = ""
    splits: tuple[str, ...] = ()


def ending(path: Path) -> str:
    """The ending that says how a file is read, without .gz."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem(path: str | Path) -> str:
    """The name of a file or folder without its ending; of a pattern, of the folder or of what its names begin with."""
    *above, last = str(path).replace("\\", "/").rstrip("/").split("/")
    if set(last) & set("*?[") and not place(path).exists():
        fixed = [re.split(r"[*?[]", part)[0].strip("-_. ") for part in (*above, last)]
        return next((part for part in reversed(fixed) if part), "tasks")
    last = last[:-3] if last.lower().endswith(".gz") else last
    return next((last[: -len(e)] for e in ENDINGS if last.lower().endswith(e) and len(last) > len(e)), last)


def readable(name: str) -> bool:
    """Whether a name ends like a file of tasks."""
    return name.lower().removesuffix(".gz").endswith(ENDINGS)


def place(path: str | Path) -> Path:
    """The path with `~` as the home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def on_hub(name: str) -> bool:
    """Whether a name can only be a data set of the hub: OWNER/NAME, and nothing of that name is here."""
    return bool(_HUB.fullmatch(name)) and not readable(name) and not place(name).exists()


def find(name: str | Path, split: str = "", config: str = "") -> Found:
    """The files that `name` stands for. Raises UserError where there are none, or where one of several splits or
    configurations must be chosen."""
    path = place(name)
    try:
        if path.is_dir():
            return _folder(path, name, split, config)
        if not path.exists() and (matches := sorted(glob.glob(str(path), recursive=True))):
            return _choose({Path(m): Path(Path(m).name) for m in matches}, name, split, config)
    except (OSError, ValueError) as error:
        raise UserError(
            f"task file '{name}' cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if on_hub(str(name)):
        return _folder(_download(str(name)), name, split, config)
    if split or config:
        raise UserError(f"'{name}' is a single file: it has no split or config to choose")
    return Found((path,))


def _folder(folder: Path, name: str | Path, split: str, config: str) -> Found:
    if (folder / "dataset_dict.json").is_file():  # several splits, saved by `datasets`
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return _split({one: _saved(folder / one) for one in splits}, name, split)
    if (folder / "state.json").is_file():
        return _split({"": _saved(folder)}, name, split)
    files = sorted(p for p in folder.rglob("*") if readable(p.name) and p.name not in _SIDE and p.is_file())
    at = {p: p.relative_to(folder) for p in files}
    at = {p: below for p, below in at.items() if not any(part.startswith(".") for part in below.parts)}
    if not at:
        raise UserError(f"the folder '{name}' holds no file of tasks; {READ}")
    return _choose(at, name, split, config)


def _saved(folder: Path) -> list[Path]:
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return [folder / part["filename"] for part in state["_data_files"]]


def _choose(at: dict[Path, Path], name: str | Path, split: str, config: str) -> Found:
    """One configuration (a folder at the top), then one split of it. `at`: each file's path below the folder."""
    configs: dict[str, list[Path]] = {}
    for file, below in at.items():
        top = below.parts[0] if len(below.parts) > 1 else ""
        configs.setdefault("" if top == "data" or _split_of(top) else top, []).append(file)
    if config and config not in configs:
        raise UserError(f"'{name}' has no config '{config}'{nearest(config, configs)}")
    if len(configs) > 1 and not config:
        first = min(c for c in configs if c)
        raise UserError(
            f"'{name}' holds several configurations ({_listed(configs)}); choose: '{name}:config={first}'"
        )
    splits: dict[str, list[Path]] = {}
    for file in configs[config] if config else next(iter(configs.values())):
        splits.setdefault(_split_of(str(at[file])), []).append(file)
    return _split(splits, name, split)


def _split_of(path: str) -> str:
    """The split that a file or folder is named after, or ""."""
    for part in reversed(Path(path).parts):
        words = re.split(r"[-_.]", part.lower())
        if found := next((_SPLITS[w] for w in words if w in _SPLITS), ""):
            return found
    return ""


def _split(splits: dict[str, list[Path]], name: str | Path, split: str) -> Found:
    names = tuple(splits)
    if split and split not in splits:
        raise UserError(f"'{name}' has no split '{split}'{nearest(split, splits)}; it has {_listed(splits)}")
    if len(splits) > 1 and not split:
        more = ",eval=test" if "test" in splits and "train" in splits else ""
        first = "train" if "train" in splits else sorted(n for n in names if n)[0]
        raise UserError(
            f"'{name}' holds several splits ({_listed(splits)}); choose: '{name}:split={first}{more}'"
        )
    chosen = split or names[0]
    return Found(tuple(splits[chosen]), chosen, names)


def _listed(names: dict[str, list[Path]]) -> str:
    return ", ".join(sorted(n or "files named after none" for n in names))


def _download(name: str) -> Path:
    """The data files of a hub data set, in the hub's cache. Nothing is fetched that the user did not name."""
    from huggingface_hub import snapshot_download

    patterns = [f"*{e}" for e in ENDINGS] + [f"*{e}.gz" for e in ENDINGS]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"there is no file or folder '{name}', and the hub gave no data set of that name: {said:.160}"
        ) from None
