"""The shards of prepared data: which there are, and each made by a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sevenfold.core.errors import BadSample, CheckpointError, DataError, SevenfoldError
from sevenfold.core.files import read_json, sha256, write_atomic
from sevenfold.data.line import joined, narrowest
from sevenfold.data.loader import Items
from sevenfold.data.sharded import write_array
from sevenfold.modality import Modality

FEWEST, MOST, SHARDS = 1 << 20, 1 << 26, 64
"""Tokens of a shard: a part of all in so many shards, but never fewer or more than that."""
LOOKED = 64
"""Samples that are looked at to tell how many tokens there will be."""


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


def jobs_of(work: Work) -> list[Job]:
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


def each_made(work: Work, jobs: Sequence[Job], workers: int) -> Iterator[Job]:
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
    record: dict[str, Any] = {"tokens": start, "bad": bad, "samples": [job.first, job.stop]}
    if start:
        size, digest = write_array(work.tokens / job.name, np.concatenate(values))
        record["file"] = {"size": size, "sha256": digest}
    for name, places in (("samples", samples), ("documents", documents)):
        write_array(work.progress / f"{job.name}.{name}.npy", np.array(places, np.int64))
    write_atomic(work.progress / f"{job.name}.json", json.dumps(record))


def whole(work: Work, job: Job) -> bool:
    """Whether a shard is there, as it was written."""
    try:
        record = read_json(work.progress / f"{job.name}.json")
        path = work.tokens / job.name
        same = record["samples"] == [job.first, job.stop]
        return same and (not record["tokens"] or record["file"]["sha256"] == sha256(path))
    except (CheckpointError, OSError, KeyError, TypeError):
        return False
