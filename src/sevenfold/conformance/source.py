"""What every source must do: see the contract in sevenfold.data.source."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sevenfold.conformance._kit import Skipped, empty_folder, expect, refusal
from sevenfold.core.errors import DataError
from sevenfold.core.rooms import kinds
from sevenfold.data.source import content_key


@contextmanager
def made(config: Any) -> Iterator[Any]:
    """The source of its own example."""
    with empty_folder() as folder:
        yield config.part.example(folder).build()


def check_samples(config: Any) -> None:
    """At least 8 samples with the fields that it names, each of a known modality; every one has a place."""
    with made(config) as source:
        expect(len(source) >= 8, f"the example has {len(source)} samples, not 8")
        unknown = set(source.fields.values()) - set(kinds("modality"))
        expect(source.fields and not unknown, f"fields {source.fields}: {unknown or 'none'} is no modality")
        for index in range(len(source)):
            expect(source[index].keys() <= source.fields.keys(), f"sample {index} has other fields than `fields` names")
        expect(len({source.where(index) for index in range(len(source))}) == len(source), "two samples have one place")


def check_repeatable(config: Any) -> None:
    """Reading again, in another order or process, gives the same samples and the same split."""
    with made(config) as source:
        again = pickle.loads(pickle.dumps(source.config.build()))
        keys = {index: content_key(again[index]) for index in reversed(range(len(again)))}
        expect([content_key(source[index]) for index in range(len(source))] == sorted_values(keys), "samples differ")
        expect(again.split() == source.split(), "splits differ")


def sorted_values(keys: dict[int, str]) -> list[str]:
    """The values in the order of their keys."""
    return [keys[index] for index in sorted(keys)]


def check_split(config: Any) -> None:
    """Two sides in order, disjoint and whole, neither empty, duplicates on one side."""
    with made(config) as source:
        train, held_out = map(list, source.split())
        expect(train and held_out, f"{len(train)} and {len(held_out)} samples")
        expect(train == sorted(train) and held_out == sorted(held_out), "a side is not in order")
        expect(sorted(train + held_out) == list(range(len(source))), "the sides are not disjoint and whole")
        common = {source.key(index) for index in train} & {source.key(index) for index in held_out}
        expect(not common, "the same content is on both sides")


def check_limit(config: Any) -> None:
    """`limit` takes the first samples."""
    with made(config) as source:
        few = source.config.replace(limit=5).build()
        expect(len(few) == 5 and sum(map(len, few.split())) == 5, f"limit 5 gives {len(few)} samples")


def check_files(config: Any) -> None:
    """It names the files that it reads; a file that is not there is one line."""
    with made(config) as source:
        expect(all(file.is_file() for file in source.files()), "names a file that is not there")
        if not source.config.path:
            raise Skipped("reads no files")
        expect(source.files(), "names no files")
        expect(0 <= source.recognises(source.path) <= 1, "recognises is not in 0 … 1")
        missing = source.config.replace(path=source.config.path + ".none")
        expect(".none" in refusal(missing.build, DataError), "the error does not name the file")
