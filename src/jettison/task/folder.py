"""A folder laid out as a Hugging Face data set in, tables by split out; `datasets` is not needed.

Three layouts are read: `save_to_disk` (`dataset_dict.json` or `state.json` with Arrow files),
a `README.md` whose YAML names the files of each split, and file names that name the split.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from jettison.errors import InvalidInput
from jettison.files import read_json
from jettison.task.source import did_you_mean
from jettison.task.tables import SUFFIXES, Table, class_label_names, read_table

# What data sets call their splits, and what we call them.
KNOWN_SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "development": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
    "unsupervised": "unlabelled",
}
_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves."""
_OF_SOMETHING_ELSE = ("candidate.json", "release.json", "run.json", "decision.json", "config.json")


def known_split(name: str) -> str | None:
    """Our word for a split's name, blanks around it and its case aside; None where it is none of ours."""
    return KNOWN_SPLITS.get(name.strip().lower())


_SPLIT_WORD = re.compile(rf"(?:^|[._\-/ ])({'|'.join(KNOWN_SPLITS)})(?=[._\-/ 0-9]|$)")


@dataclass(frozen=True, kw_only=True)
class SplitTable:
    """One table and the split that the folder says it is of, in the folder's words."""

    split: str | None
    table: Table


def read_folder(folder: Path, *, config: str | None = None) -> list[SplitTable]:
    """Read every table of a data set folder.

    Raises:
        InvalidInput: No data file is found in a known layout, or the configuration is unknown.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = read_json(folder / "dataset_dict.json", dict[str, Any]).get("splits") or []
        return [SplitTable(split=name, table=t) for name in splits for t in _saved_tables(folder / name)]
    if (folder / "state.json").is_file():
        return [SplitTable(split=None, table=table) for table in _saved_tables(folder)]
    card = _read_card(folder / "README.md")
    files = _card_files(folder, card, config) or _named_files(folder)
    if not files:
        raise InvalidInput(
            f"{folder} must hold data files ({', '.join(SUFFIXES)}) in it or in `data/`, got none. "
            "Name the files by `train`, `dev` and `test` instead."
        )
    names = _card_label_names(card, config)
    found = [SplitTable(split=split, table=read_table(path)) for split, path in files]
    return [
        replace(one, table=replace(one.table, label_names={**names, **one.table.label_names}))
        for one in found
    ]


def is_data_folder(folder: Path) -> bool:
    """Whether a folder holds a data set, and is no model, candidate, release or run."""
    if not folder.is_dir() or any((folder / name).exists() for name in _OF_SOMETHING_ELSE):
        return False
    if any((folder / name).is_file() for name in _SAVED):
        return True
    # Models keep their settings in JSON, so a lone .json file says nothing.
    told = tuple(suffix for suffix in SUFFIXES if suffix != ".json")
    places = (folder, folder / "data")
    lie_there = any(p.suffix.lower() in told for place in places if place.is_dir() for p in place.iterdir())
    return lie_there or bool(_read_card(folder / "README.md").get("configs"))


def read_one_split(folder: Path) -> list[Table]:
    """The tables of a data set's only split, or of the one that is called test.

    Raises:
        InvalidInput: No data file is found, or of several splits none is the test split.
    """
    found = read_folder(folder)
    splits = {one.split for one in found}
    if len(splits) == 1:
        return [one.table for one in found]
    test = [one.table for one in found if one.split is not None and KNOWN_SPLITS.get(one.split) == "test"]
    if not test:
        raise InvalidInput(
            f"{folder} must hold one split, or one that is called test, got {sorted(map(str, splits))}. "
            "Name the file of the split that is meant."
        )
    return test


def _saved_tables(folder: Path) -> Iterator[Table]:
    """The Arrow files of one `Dataset.save_to_disk` folder, in their order."""
    state = read_json(folder / "state.json", dict[str, Any])
    info = folder / "dataset_info.json"
    names = class_label_names(info.read_bytes() if info.is_file() else None)
    for entry in state.get("_data_files") or []:
        table = read_table(folder / str(entry["filename"]))
        yield replace(table, label_names={**names, **table.label_names})


def _read_card(path: Path) -> dict[str, Any]:
    """The YAML block at the head of a data set card, empty where there is none."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    block = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    if block is None:
        return {}
    try:
        card = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        raise InvalidInput(
            f"{path} must have valid YAML at its head: {' '.join(str(error).split())}."
        ) from error
    return card if isinstance(card, dict) else {}


def _card_files(folder: Path, card: dict[str, Any], config: str | None) -> list[tuple[str | None, Path]]:
    """Split and file of each entry of `configs: - data_files`, globs resolved."""
    configs = [one for one in card.get("configs") or [] if isinstance(one, dict) and one.get("data_files")]
    if not configs:
        return []
    chosen = _chosen(folder, configs, config)
    entries = chosen["data_files"]
    if isinstance(entries, dict):
        entries = [{"split": split, "path": path} for split, path in entries.items()]
    files: list[tuple[str | None, Path]] = []
    for entry in [entries] if isinstance(entries, str | dict) else entries:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (None, entry)
        for pattern in [paths] if isinstance(paths, str) else paths or []:
            found = sorted(path for path in folder.glob(str(pattern)) if path.is_file())
            if not found:
                raise InvalidInput(f"data_files of {folder / 'README.md'} must exist, got {pattern!r}.")
            files += [(split or _split_word(path, folder), path) for path in found]
    return files


def _chosen(folder: Path, configs: Sequence[dict[str, Any]], config: str | None) -> dict[str, Any]:
    names = [str(one.get("config_name", "default")) for one in configs]
    if config is not None and config not in names:
        raise InvalidInput(
            f"data.config must be one of {names}, got {config!r} for {folder}.{did_you_mean(config, names)}"
        )
    default = [name for name, one in zip(names, configs, strict=True) if one.get("default")]
    name = config or (default or names)[0]
    if config is None and not default and len(names) > 1 and "default" not in names:
        raise InvalidInput(
            f"data.config must say which of {names} of {folder} is meant, got none. "
            f"Write `config = {names[0]!r}` under [data]."
        )
    return configs[names.index("default" if config is None and "default" in names else name)]


def _named_files(folder: Path) -> list[tuple[str | None, Path]]:
    """Data files in the folder or under `data/`, with the split that their name tells."""
    places = [folder, folder / "data", *(one for one in folder.iterdir() if one.name in KNOWN_SPLITS)]
    files = [
        path
        for place in places
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.is_file() and path.suffix.lower() in SUFFIXES and path.name != "dataset_infos.json"
    ]
    named = [(_split_word(path, folder), path) for path in files]
    # A folder with split files beside others (label lists, samples) means the split files.
    return [one for one in named if one[0]] or list(named)


def _split_word(path: Path, folder: Path) -> str | None:
    found = _SPLIT_WORD.findall(path.relative_to(folder).with_suffix("").as_posix().lower())
    return found[-1] if found else None


def _card_label_names(card: dict[str, Any], config: str | None) -> dict[str, tuple[str, ...]]:
    """ClassLabel names of `dataset_info: features`, in the YAML's own shape."""
    infos = card.get("dataset_info") or []
    names: dict[str, tuple[str, ...]] = {}
    for info in [infos] if isinstance(infos, dict) else infos:
        if not isinstance(info, dict) or (config and info.get("config_name", config) != config):
            continue
        for feature in info.get("features") or []:
            kind = feature.get("dtype") if isinstance(feature, dict) else None
            found = (kind.get("class_label") or {}).get("names") if isinstance(kind, dict) else None
            if isinstance(found, dict):
                found = [found[key] for key in sorted(found, key=int)]
            if found:
                names[str(feature["name"])] = tuple(map(str, found))
    return names


__all__ = ["KNOWN_SPLITS", "SplitTable", "is_data_folder", "read_folder", "read_one_split"]
