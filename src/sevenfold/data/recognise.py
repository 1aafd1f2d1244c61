"""Which source reads a file or folder, and what is in it: before anything is trained."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.bad import BadSamples
from sevenfold.data.source import PARTS, Source, suffix
from sevenfold.data.source._raw import is_pattern

ARCHIVES = (".zip", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
SHOWN = 5
SPLIT, LOOKED = "split", 200
"""The field that is taken to name parts where nobody says, and about how many samples are asked for it."""


def recognise(path: str | Path) -> Any:
    """The Config of the source that is surest that it can read `path`; where samples have a field `split` that says train,
    valid or test, with that as the field of the parts.

    DataError if it is missing or empty, or if no source can: it names the endings that are read.
    """
    if is_pattern(str(path)):
        found = _far(str(path))
        return found.replace(split=SPLIT) if _parted(found.replace(limit=LOOKED)) else found
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path}: is an empty folder")
    best = _surest(path)
    if best is None:
        raise DataError(f"{path}: {_why_not(path)}; read are {', '.join(endings())}, and folders of text or images")
    found = best.Config(path=str(path))
    return found.replace(split=SPLIT) if _parted(found) else found


def _far(path: str) -> Any:
    """The Config of the source that reads a URL, or several files by a pattern: told by the ending."""
    sources = [source for kind in kinds("source") if (source := find("source", kind)).patterns]
    ending = suffix(Path(path.rstrip("*")))
    best = next((source for source in sources if ending in source.suffixes), None)
    if best is None and "://" in path and not ending:
        best = find("source", "shards")
    if best is None:
        read = sorted(ending for source in sources for ending in source.suffixes)
        raise DataError(
            f"{path}: at a URL or by a pattern are read {', '.join(read)}, and folders that `sevenfold prepare` wrote"
        )
    return best.Config(path=path)


def _parted(config: Source.Config) -> bool:
    """Whether the samples have a field `split` that names parts, and something to train on among them."""
    try:
        source = config.build()
        if SPLIT not in source.fields:
            return False
        every = max(1, len(source) // LOOKED)
        said = {str(source[index].get(SPLIT)).strip().lower() for index in range(0, len(source), every)}
    except (DataError, ConfigError, ImportError):
        return False
    return said <= PARTS.keys() and any(PARTS[part] == 0 for part in said)


def endings() -> list[str]:
    """The file endings that the sources read."""
    return sorted({ending for kind in kinds("source") for ending in find("source", kind).suffixes})


def _surest(path: Path) -> type[Source] | None:
    sources = [find("source", kind) for kind in kinds("source")]
    sure = max(((source.recognises(path), source) for source in sources), key=lambda pair: pair[0], default=(0.0, None))
    return sure[1] if sure[0] > 0 else None


def _why_not(path: Path) -> str:
    if path.is_dir():
        known = [file for file in path.iterdir() if file.is_file() and suffix(file) in endings()]
        largest = max(known, key=lambda file: (file.stat().st_size, file.name), default=None)
        hint = f": give one of its files, such as {largest.name}" if largest else ""
        return f"no source reads this folder as a whole{hint}"
    if path.suffix.lower() in ARCHIVES:
        return "is an archive: unpack it and give the folder"
    if suffix(path) in endings():
        return "is one file of a kind that is read by the folder: give the folder"
    return f"no source reads {suffix(path) or 'such files'!r}"


def some(source: Source, field: str, most: int) -> list[Any]:
    """Raw items of about so many samples from all over, for their shapes and lengths."""
    found, here = [], source.at_hand(range(len(source)))
    for index in range(0, here, max(1, here // most)):
        try:
            raw = source[index].get(field)
        except BadSample:
            continue
        if raw is not None:
            found.append(raw)
    return found


def survey(source: Source) -> dict[str, Any]:
    """What a source holds: every sample is read once.

    samples, train, held_out  counts
    fields                    field → kind
    duplicates                training samples that repeat another one, and held-out ones that are also trained on
    bad                       how many samples cannot be read, and the first few: [(where, why)]
    notes                     how the files were read, where that is not plain
    """
    train, held_out = source.split()
    bad = BadSamples(source.config.bad_share, len(source))
    keys: dict[int, str] = {}
    for index in [*train, *held_out]:
        try:
            source[index]
            keys[index] = source.key(index)
        except BadSample as error:
            bad.note(error)
    trained = Counter(keys[index] for index in train if index in keys)
    return {
        "kind": source.kind,
        "path": source.config.path,
        "samples": len(source),
        "train": len(train),
        "held_out": len(held_out),
        "fields": dict(source.fields),
        "duplicates": {
            "train": sum(count - 1 for count in trained.values()),
            "held_out_in_train": sum(keys.get(index) in trained for index in held_out),
        },
        "bad": {"count": len(bad), "first": bad.first(SHOWN)},
        "notes": list(source.notes),
    }
