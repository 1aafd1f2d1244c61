"""Data made into tokens once, before any training, on all cores: see sevenfold.data.sharded for what is written.

A shard is the work of one process: it reads its samples, makes tokens and writes them, with a record beside. So a preparation
that is interrupted goes on with the shards that have none, and the folder gets its name when all are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sevenfold.core import notation, part
from sevenfold.core.errors import CheckpointError, ConfigError, DataError
from sevenfold.core.files import MANIFEST, known_by, read_json, sha256, sync_folder, write_atomic
from sevenfold.core.locks import locked
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.loader import Items, look_through
from sevenfold.data.recognise import recognise, some
from sevenfold.data.remote import hidden
from sevenfold.data.sharded import FORMAT, LISTED, PARTS, read_index, write_array
from sevenfold.data.source import Source
from sevenfold.modality import Modality, Suggestion
from sevenfold.training.shards_made import LOOKED, Job, Work, each_made, jobs_of, whole
from sevenfold.training.tokenizers import raws_of
from sevenfold.training.wiring import merged

SETTINGS = ("kind", "tokenizer", "ends", "begin")
"""What of a stream's settings the tokens depend on."""
Say = Callable[[str], None]


def prepare_data(
    data: str | Path | dict[str, Any],
    out: str | Path,
    *,
    field: str | None = None,
    overrides: Sequence[str] = (),
    like: str | Path | None = None,
    workers: int | None = None,
    say: Say = print,
) -> Path:
    """Make tokens of a file or folder (or of what a recipe's `data` says), and write them into the folder `out`.

    field      what to make tokens of; by default the field with the most to learn from
    overrides  `data.…=value` and `stream.…=value`: how the data are read, and how they become tokens
    like       a folder that was prepared before: with its tokenizer and settings
    workers    processes; by default one for each core. The files do not depend on it

    Goes on where an earlier call with the same data and settings stopped. Raises ConfigError and DataError, one line each.
    """
    final = Path(out).expanduser().absolute()
    config, asked = _asked(data, overrides)
    source = config.build()
    if like is not None:
        before = read_index(Path(like).expanduser(), True)
        asked["stream"], field = {**before.stream, **asked["stream"]}, field or before.field
    field, modality = _stream(source, field, asked["stream"])
    if like is not None:
        modality.restore(Path(like).expanduser() / "tokenizer")
    stream = {name: value for name, value in part.encode(modality.config).items() if name in SETTINGS}
    stamp = _stamp(source, field, stream, like)
    with _alone(final, say):
        return _prepared(final, source, field, modality, stream, stamp, cores() if workers is None else workers, say)


def prepare_index(
    data: str | Path | dict[str, Any], out: str | Path, *, overrides: Sequence[str] = (), say: Say = print
) -> None:
    """Write into a folder where the samples of each file of some data lie, for them to be read at a URL: see docs/data.md. What is
    looked up of files at a URL is kept, so a second call goes on where the first one stopped. DataError for data that need no index."""
    config, _ = _asked(data, overrides)
    for path in config.part.write_index(config, Path(out).expanduser().absolute()):
        say(str(path))


def _asked(data: str | Path | dict[str, Any], overrides: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """(the Config of the source, the settings of `data` and `stream` as they were changed)."""
    settings = part.encode(recognise(data)) if not isinstance(data, dict) else data
    asked: dict[str, Any] = {"data": settings, "stream": {}}
    for change in overrides:
        name, equals, value = change.partition("=")
        if not equals or name.partition(".")[0] not in asked or "." not in name:
            raise ConfigError(f"{change!r}: an override is written data.FIELD=value or stream.FIELD=value")
        asked = part.override(asked, name, notation.parse(value, change))
    return part.decode(Source.Config, asked["data"], "data"), asked


@contextmanager
def _alone(final: Path, say: Say) -> Iterator[None]:
    """Only one process at a time prepares a folder; what one that died left is gone on with."""
    lock = final.with_name(f".{final.name}.lock")
    with ExitStack() as held:
        if not held.enter_context(locked(lock, wait=False, remove=True)):
            say(f"{final}: another process prepares it: waiting for it")
            held.enter_context(locked(lock, remove=True))
        yield


def _prepared(
    final: Path,
    source: Source,
    field: str,
    modality: Modality,
    stream: dict[str, Any],
    stamp: str,
    workers: int,
    say: Say,
) -> Path:
    folder = final.with_name(f".{final.name}.preparing")
    if final.exists():
        _whole_already(final, stamp, say)
        shutil.rmtree(folder, ignore_errors=True)  # left by one that was killed at its very end
        return final
    work = _begun(folder, stamp, source, field, modality, say)
    jobs = jobs_of(work)
    left = [job for job in jobs if not whole(work, job)]
    if len(left) < len(jobs):
        say(f"{len(jobs) - len(left)} of {len(jobs)} shards are there already")
    for done, _ in enumerate(each_made(work, left, workers), 1):
        say(f"{len(jobs) - len(left) + done} of {len(jobs)} shards")
    facts = _finished(work, jobs, source, stream, stamp)
    os.rename(work.tokens, final)
    sync_folder(final.parent)
    shutil.rmtree(folder, ignore_errors=True)
    say(
        f"{final}: {facts['train']['tokens']:,} tokens of {facts['train']['samples']:,} samples to train on, "
        f"{facts['held_out']['tokens']:,} of {facts['held_out']['samples']:,} held out, {facts['bad']:,} could not be read"
    )
    return final


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# What is made into tokens, and how
def _stream(source: Source, field: str | None, given: Any) -> tuple[str, Modality]:
    """(the field, the modality of its stream, its tokenizer not yet fitted)."""
    offers: dict[str, Suggestion] = {}
    for name, kind in source.fields.items():
        if kind in kinds("modality") and field in (None, name):
            offer = find("modality", kind).suggest(name, some(source, name, LOOKED), len(source))
            if offer is not None:
                offers[name] = offer
    if field is not None and field not in source.fields:
        raise ConfigError(f"field: {source.no_field(field)}")
    for name in sorted(offers, key=lambda name: -offers[name].tokens):
        made = _changed(offers[name].stream, given)
        usual = {key: value for key, value in made.items() if key not in ("length", "pack")}
        modality = part.decode(Modality.Config, usual, "stream").build()
        if modality.tokenizer.axes == 1 and modality.tokenizer.features is None:
            return name, modality
    raise DataError(
        f"{source.config.path}: holds nothing that becomes ids in a line: its fields are {dict(source.fields)}"
    )


def _changed(usual: dict[str, Any], given: Any) -> Any:
    """A stream's usual settings changed as is asked: a tokenizer that is named takes nothing over from the usual one."""
    named = isinstance(given, dict) and isinstance(given.get("tokenizer"), dict) and "kind" in given["tokenizer"]
    return merged({name: value for name, value in usual.items() if not (named and name == "tokenizer")}, given)


def _stamp(source: Source, field: str, stream: dict[str, Any], like: str | Path | None) -> str:
    """What tells a preparation from another one: settings, and names, sizes and times of the files that are read."""
    files: list[Any] = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source.files()]
    files += (
        [] if like is None else [sorted(sha256(file) for file in (Path(like).expanduser() / "tokenizer").iterdir())]
    )
    said = json.dumps([part.encode(source.config), field, stream, files], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _whole_already(final: Path, stamp: str, say: Say) -> None:
    facts = read_json(final / MANIFEST) if (final / MANIFEST).is_file() else None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ConfigError(f"{final}: is there already, and holds no prepared data: choose another --out")
    if facts.get("made_of") != stamp:
        raise ConfigError(f"{final}: was prepared from other data or settings: choose another --out, or remove it")
    read_index(final, True)
    say(f"{final}: is prepared already, and whole")


def _begun(folder: Path, stamp: str, source: Source, field: str, modality: Modality, say: Say) -> Work:
    """The work to do, with the tokenizer fitted: that of an interrupted preparation, if it was the same."""
    tokens, progress = folder / "tokens", folder / "progress"
    begun = progress / "begun.json"
    try:
        same = read_json(begun) == {"stamp": stamp}
    except CheckpointError:
        same = False
    if folder.exists() and not same:
        shutil.rmtree(folder)
    tokens.mkdir(parents=True, exist_ok=True)
    progress.mkdir(exist_ok=True)
    train, held_out = source.split()
    encoders = {field: (field, partial(modality.tokens, cut=False))}
    if same:
        say(f"going on with {folder}")
        for orphan in tokens.glob(".tmp-*"):  # of a process that was killed
            orphan.unlink(missing_ok=True)
        modality.restore(tokens / "tokenizer")
    elif not modality.tokenizer.ready:
        say(f"fitting the {modality.tokenizer.kind} tokenizer of {field}")
        modality.fit(raws_of(source, train, field, modality, field, say))
    if modality.tokenizer.size is None:
        raise ConfigError(f"stream.tokenizer: {modality.tokenizer.kind} makes no ids")
    items = {side: Items(source, indices, encoders, 0, False) for side, indices in zip(PARTS, (train, held_out))}
    look_through(items["train"], source.config.bad_share)
    if not same:
        (tokens / "tokenizer").mkdir(exist_ok=True)
        modality.save(tokens / "tokenizer")
        write_atomic(begun, json.dumps({"stamp": stamp}))
    return Work(items, field, modality, tokens, progress)


def _finished(work: Work, jobs: Sequence[Job], source: Source, stream: dict[str, Any], stamp: str) -> dict[str, Any]:
    """Write what tells of all shards, and the manifest at last; its facts."""
    sides: dict[str, Any] = {}
    files: dict[str, dict[str, Any]] = {}
    bad: list[tuple[str, str]] = []
    for side in PARTS:
        start, shards = 0, []
        places: dict[str, list[np.ndarray]] = {"samples": [], "documents": []}
        for job in (job for job in jobs if job.side == side):
            record = read_json(work.progress / f"{job.name}.json")
            bad += [(str(where), str(why)) for where, why in record["bad"]]
            for name, found in places.items():
                found.append(np.load(work.progress / f"{job.name}.{name}.npy", allow_pickle=False) + start)
            if record["tokens"]:
                shards.append({"name": job.name, "tokens": record["tokens"]})
                files[job.name] = record["file"]
            start += record["tokens"]
        if source.continuous:
            places["documents"] = [np.zeros(min(1, start), np.int64)]
        counts = {}
        for name, found in places.items():
            whole = np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64)
            files[f"{side}.{name}.npy"] = write_array(work.tokens / f"{side}.{name}.npy", whole)._asdict()
            counts[name] = len(whole)
        sides[side] = {**counts, "tokens": start, "shards": shards}
    seen = sum(map(len, work.items.values()))
    if len(bad) > source.config.bad_share * seen:
        raise DataError(
            f"{len(bad):,} of {seen:,} samples cannot be read, more than data.bad_share ({source.config.bad_share:g}) allows; "
            f"the first is {bad[0][0]}: {bad[0][1]}"
        )
    if not sides["train"]["tokens"]:
        raise DataError(f"{source.config.path}: no sample to train on has a {work.field!r}")
    if bad:
        content = "".join(json.dumps({"where": where, "why": why}) + "\n" for where, why in bad[:10_000])
        write_atomic(work.tokens / LISTED, content)
    named = [LISTED] if bad else []
    named += [f"tokenizer/{file.name}" for file in sorted((work.tokens / "tokenizer").iterdir())]
    files |= {name: known_by(work.tokens / name) for name in named}
    facts = {
        "format": FORMAT,
        "version": 1,
        "field": work.field,
        "stream": stream,
        "ids": work.modality.tokenizer.size,
        "source": hidden(part.encode(source.config)),
        "made_of": stamp,
        **sides,
        "bad": len(bad),
        "files": files,
    }
    write_atomic(work.tokens / MANIFEST, json.dumps(facts, indent=1) + "\n")
    return facts
