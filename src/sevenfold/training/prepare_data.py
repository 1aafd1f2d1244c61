"""Data made into tokens once, before any training, on all cores: see sevenfold.data.sharded for what is written.

A shard is the work of one process: it reads its samples, makes tokens and writes them, with a record beside. So a preparation
that is interrupted goes on with the shards that have none, and the folder gets its name when all are there.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sevenfold.core import notation, part
from sevenfold.core.errors import BadSample, CheckpointError, ConfigError, DataError, SevenfoldError
from sevenfold.core.files import MANIFEST, read_json, sha256, sync_folder, write_atomic
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.data.line import joined, narrowest
from sevenfold.data.loader import Items, look_through
from sevenfold.data.recognise import recognise
from sevenfold.data.sharded import FORMAT, LISTED, PARTS, facts_of, read_index, write_array
from sevenfold.data.source import Source
from sevenfold.modality import Modality, Suggestion
from sevenfold.training.prepare import raws_of
from sevenfold.training.wiring import merged

FEWEST, MOST, SHARDS = 1 << 20, 1 << 26, 64
"""Tokens of a shard: a part of all in so many shards, but never fewer or more than that."""
LOOKED = 64
"""Samples that are looked at to tell how many tokens there will be."""
SETTINGS = ("kind", "tokenizer", "ends", "begin")
"""What of a stream's settings the tokens depend on."""
Say = Callable[[str], None]


class Job(NamedTuple):
    """One shard: samples first…stop of a side, into the file called `name`."""

    side: str
    first: int
    stop: int
    name: str


class Work(NamedTuple):
    """All that a process needs for its shards."""

    items: dict[str, Items]
    field: str
    modality: Modality
    tokens: Path
    progress: Path


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
    final = Path(out).expanduser()
    settings = part.encode(recognise(data)) if not isinstance(data, dict) else data
    asked: dict[str, Any] = {"data": settings, "stream": {}}
    for change in overrides:
        name, equals, value = change.partition("=")
        if not equals or name.partition(".")[0] not in asked or "." not in name:
            raise ConfigError(f"{change!r}: an override is written data.FIELD=value or stream.FIELD=value")
        asked = part.override(asked, name, notation.parse(value, change))
    config = part.decode(Source.Config, asked["data"], "data")
    source = config.build()
    if like is not None:
        before = read_index(Path(like).expanduser(), True)
        asked["stream"], field = {**before.stream, **asked["stream"]}, field or before.field
    field, modality = _stream(source, field, asked["stream"])
    if like is not None:
        modality.restore(Path(like).expanduser() / "tokenizer")
    stream = {name: value for name, value in part.encode(modality.config).items() if name in SETTINGS}
    stamp = _stamp(source, field, stream, like)
    folder = final.with_name(f".{final.name}.preparing")
    if final.exists():
        _whole_already(final, stamp, say)
        shutil.rmtree(folder, ignore_errors=True)  # left by one that was killed at its very end
        return final
    work = _begun(folder, stamp, source, field, modality, say)
    jobs = _jobs(work)
    left = [job for job in jobs if not _done(work, job)]
    if len(left) < len(jobs):
        say(f"{len(jobs) - len(left)} of {len(jobs)} shards are there already")
    for done, _ in enumerate(_run(work, left, len(os.sched_getaffinity(0)) if workers is None else workers), 1):
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


# What is made into tokens, and how
def _stream(source: Source, field: str | None, given: Any) -> tuple[str, Modality]:
    """(the field, the modality of its stream, its tokenizer not yet fitted)."""
    offers: dict[str, Suggestion] = {}
    for name, kind in source.fields.items():
        if kind in kinds("modality") and field in (None, name):
            offer = find("modality", kind).suggest(name, list(_some(source, name)), len(source))
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


def _some(source: Source, field: str) -> Iterator[Any]:
    for index in range(0, len(source), max(1, len(source) // LOOKED)):
        try:
            raw = source[index].get(field)
        except BadSample:
            continue
        if raw is not None:
            yield raw


def _stamp(source: Source, field: str, stream: dict[str, Any], like: str | Path | None) -> str:
    """What tells a preparation from another one: settings, and names, sizes and times of the files that are read."""
    files: list[Any] = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source.files()]
    files += (
        [] if like is None else [sorted(sha256(file) for file in (Path(like).expanduser() / "tokenizer").iterdir())]
    )
    return json.dumps([part.encode(source.config), field, stream, files], sort_keys=True)


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
        modality.restore(tokens / "tokenizer")
    elif not modality.tokenizer.ready:
        say(f"fitting the {modality.tokenizer.kind} tokenizer of {field}")
        modality.fit(raws_of(source, train, field, modality, field, say))
    if modality.tokenizer.size is None:
        raise ConfigError(f"stream.tokenizer: {modality.tokenizer.kind} makes no ids")
    items = {side: Items(source, some, encoders, 0, False) for side, some in zip(PARTS, (train, held_out))}
    look_through(items["train"], source.config.bad_share)
    if not same:
        (tokens / "tokenizer").mkdir(exist_ok=True)
        modality.save(tokens / "tokenizer")
        write_atomic(begun, json.dumps({"stamp": stamp}))
    return Work(items, field, modality, tokens, progress)


def _jobs(work: Work) -> list[Job]:
    """The shards to make: they depend on the data alone."""
    train = work.items["train"]
    lengths = []
    for place in range(0, len(train), max(1, len(train) // LOOKED)):
        found = train[0, place]
        if not isinstance(found, BadSample):
            lengths.append(max(1, len(found[work.field].values)))
    mean = float(np.mean(lengths)) if lengths else 1.0
    size = max(1, round(min(max(mean * len(train) / SHARDS, FEWEST), MOST) / mean))
    return [
        Job(side, first, min(first + size, len(items)), f"{side}-{number:05d}.npy")
        for side, items in work.items.items()
        for number, first in enumerate(range(0, len(items), size))
    ]


# Making it
def _run(work: Work, jobs: Sequence[Job], workers: int) -> Iterator[Job]:
    """Do the jobs, each in a process of its own, `workers` at a time; each as it is done."""
    if workers < 2 or len(jobs) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        for job in jobs:
            _make(work, job)
            yield job
        return
    context = multiprocessing.get_context("fork")  # what was read is shared
    waiting = list(reversed(jobs))
    running: dict[Any, tuple[Any, Job]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                process = context.Process(target=_apart, args=(work, job), daemon=True)
                process.start()
                running[process.sentinel] = (process, job)
            for sentinel in wait(list(running)):
                process, job = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    raise DataError(_why(work, job, process.exitcode))
                yield job
    finally:
        for process, _ in running.values():
            process.terminate()
            process.join()


def _apart(work: Work, job: Job) -> None:
    """A job in a process of its own: what goes wrong is left in a file."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        _make(work, job)
    except (SevenfoldError, OSError) as error:
        write_atomic(work.progress / f"{job.name}.error", str(error))
        raise SystemExit(2) from None


def _why(work: Work, job: Job, code: int) -> str:
    path = work.progress / f"{job.name}.error"
    if path.is_file():
        why = path.read_text(encoding="utf-8")
        path.unlink()
        return why
    return f"{work.tokens / job.name}: its process ended with {code} (memory?): go on with fewer workers"


def _make(work: Work, job: Job) -> None:
    """Write one shard and its record. The samples before and behind it are looked at too: they may be of its documents."""
    items, bad = work.items[job.side], []
    indices = items.indices

    def found() -> Iterator[tuple[int, np.ndarray]]:
        for place in range(max(job.first - 1, 0), min(job.stop + 1, len(items))):
            item = items[0, place]
            if not isinstance(item, BadSample):
                yield indices[place], item[work.field].values
            elif job.first <= place < job.stop:
                bad.append((item.where, item.why))

    around = work.modality.around()
    values, samples, documents, start = [], [], [], 0
    for index, ids, new in joined(found(), items.source.follows, around if any(around) else None):
        if indices[job.first] <= index <= indices[job.stop - 1]:
            values.append(ids.astype(narrowest(work.modality.tokenizer.size)))
            samples.append(start)
            if new:
                documents.append(start)
            start += len(ids)
    record: dict[str, Any] = {"tokens": start, "bad": bad}
    if start:
        size, digest = write_array(work.tokens / job.name, np.concatenate(values))
        record["file"] = {"size": size, "sha256": digest}
    for name, places in (("samples", samples), ("documents", documents)):
        write_array(work.progress / f"{job.name}.{name}.npy", np.array(places, np.int64))
    write_atomic(work.progress / f"{job.name}.json", json.dumps(record))


def _done(work: Work, job: Job) -> bool:
    """Whether a shard is there, as it was written."""
    try:
        record = read_json(work.progress / f"{job.name}.json")
        path = work.tokens / job.name
        return not record["tokens"] or record["file"]["sha256"] == sha256(path)
    except (CheckpointError, OSError, KeyError, TypeError):
        return False


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
            for name, some in places.items():
                some.append(np.load(work.progress / f"{job.name}.{name}.npy", allow_pickle=False) + start)
            if record["tokens"]:
                shards.append({"name": job.name, "tokens": record["tokens"]})
                files[job.name] = record["file"]
            start += record["tokens"]
        if source.continuous:
            places["documents"] = [np.zeros(min(1, start), np.int64)]
        counts = {}
        for name, some in places.items():
            whole = np.concatenate([*some, np.zeros(0, np.int64)]).astype(np.int64)
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
    files |= {name: facts_of(work.tokens / name) for name in named}
    facts = {
        "format": FORMAT,
        "version": 1,
        "field": work.field,
        "stream": stream,
        "ids": work.modality.tokenizer.size,
        "source": part.encode(source.config),
        "made_of": stamp,
        **sides,
        "bad": len(bad),
        "files": files,
    }
    write_atomic(work.tokens / MANIFEST, json.dumps(facts, indent=1) + "\n")
    return facts
