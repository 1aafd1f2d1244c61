"""One sample in a hundred cannot be read, in each format of data: exactly these are counted, each with its file and place, and the
others come in the order that they have without them."""

from __future__ import annotations

import io
import json
import random
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally
from sevenfold.core.errors import BadSample
from sevenfold.core.part import decode, find
from sevenfold.core.types import Tokens
from sevenfold.data.loader import Items, Order, load
from sevenfold.data.source import Source, content_key
from sevenfold.data.source._tarred import packed

TRIES = 200
"""Samples of each format; one in a hundred is bad."""
Made = tuple[dict[str, object], Callable[[int], str]]
"""(the source's settings, number of a sample → what its place must hold)"""
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def jsonl(folder: Path, size: int, bad: set[int]) -> Made:
    lines = [json.dumps({"text": f"line {n} of some"}) if n not in bad else '{"text": "cut' for n in range(size)]
    (folder / "x.jsonl").write_text("\n".join(lines) + "\n")
    return {"kind": "jsonl", "path": str(folder / "x.jsonl")}, lambda n: f"x.jsonl:{n + 1}"


def csv(folder: Path, size: int, bad: set[int]) -> Made:
    lines = [f"words {n},{n}" if n not in bad else f"words {n},much" for n in range(size)]
    (folder / "x.csv").write_text("text,count\n" + "\n".join(lines) + "\n")
    return {"kind": "csv", "path": str(folder / "x.csv"), "fields": {"count": "number"}}, lambda n: f"x.csv:{n + 2}"


def parquet(folder: Path, size: int, bad: set[int]) -> Made:
    import pyarrow
    import pyarrow.parquet

    rows = [{"text": f"line {n}" if n not in bad else None} for n in range(size)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "x.parquet", row_group_size=30)
    return {"kind": "parquet", "path": str(folder / "x.parquet")}, lambda n: f"x.parquet:row {n}"


def fasta(folder: Path, size: int, bad: set[int]) -> Made:
    draw = random.Random(0)
    letters = ["".join(draw.choices(LETTERS, k=30)) for _ in range(size)]
    lines = [f">p{n}\n{seq if n not in bad else seq[:9] + '!' + seq[9:]}\n" for n, seq in enumerate(letters)]
    (folder / "x.fasta").write_text("".join(lines))
    return {"kind": "fasta", "path": str(folder / "x.fasta"), "alphabet": "protein"}, lambda n: "x.fasta"


def image_folder(folder: Path, size: int, bad: set[int]) -> Made:
    draw = np.random.default_rng(0)
    for n in range(size):
        path = folder / f"{n:04d}.png"
        Image.fromarray(draw.integers(0, 255, (8, 8), np.uint8)).save(path)
        if n in bad:
            path.write_bytes(path.read_bytes()[:50])
    return {"kind": "image_folder", "path": str(folder)}, lambda n: f"{n:04d}.png"


def tar(folder: Path, size: int, bad: set[int]) -> Made:
    draw = np.random.default_rng(0)
    files = {}
    for n in range(size):
        content = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (8, 8), np.uint8)).save(content, "png")
        files[f"{n:04d}.png"] = content.getvalue()[: 50 if n in bad else None]
    (folder / "x.tar").write_bytes(packed(files))
    return {"kind": "tar", "path": str(folder / "x.tar")}, lambda n: f"x.tar:{n:04d}"


def audio(folder: Path, size: int, bad: set[int]) -> Made:
    draw = np.random.default_rng(0)
    for n in range(size):
        path = folder / f"{n:04d}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(draw.integers(-9000, 9000, 400).astype("<i2").tobytes())
        if n in bad:
            path.write_bytes(path.read_bytes()[:20])
    return {"kind": "audio", "path": str(folder)}, lambda n: f"{n:04d}.wav"


def points(folder: Path, size: int, bad: set[int]) -> Made:
    draw = np.random.default_rng(0)
    for n in range(size):
        cloud = draw.normal(size=(20, 3))
        cloud[3, 1] = np.nan if n in bad else 0
        np.save(folder / f"{n:04d}.npy", cloud)
    return {"kind": "points", "path": str(folder)}, lambda n: f"{n:04d}.npy"


def cells(folder: Path, size: int, bad: set[int]) -> Made:
    import anndata

    counts = np.random.default_rng(0).poisson(2.0, (size, 12)).astype(np.float32)
    counts[sorted(bad)] = 0
    made = anndata.AnnData(counts)
    made.var_names = [f"G{place}" for place in range(12)]
    made.write_h5ad(folder / "x.h5ad")
    return {"kind": "h5ad", "path": str(folder / "x.h5ad")}, lambda n: f"x.h5ad: cell {n}"


def stains(folder: Path, size: int, bad: set[int]) -> Made:
    pictures = np.random.default_rng(0).random((size, 16, 16, 5)).astype(np.float32) * 900
    pictures[sorted(bad), 2, 2, 2] = np.nan
    np.savez(folder / "x.npz", stains=pictures)
    return {"kind": "arrays", "path": str(folder / "x.npz")}, lambda n: f"x.npz: sample {n}"


def series(folder: Path, size: int, bad: set[int]) -> Made:
    values = np.random.default_rng(0).normal(size=(size, 32, 2))
    values[sorted(bad), 5, 1] = np.inf
    np.savez(folder / "x.npz", series=values)
    return {
        "kind": "arrays",
        "path": str(folder / "x.npz"),
        "fields": {"series": "series"},
    }, lambda n: f"x.npz: sample {n}"


FORMATS = {
    made.__name__: made
    for made in (jsonl, csv, parquet, fasta, image_folder, tar, audio, points, cells, stains, series)
}


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """Each format with 0 and 2 loader processes."""
    for name, make in FORMATS.items():
        tally, size = Tally(), max(tries, 100)
        bad = set(random.Random(name).sample(range(size), max(1, size // 100)))
        for way in ("whole", "bad"):
            (folder / name / way).mkdir(parents=True)
        settings, _ = make(folder / name / "whole", size, set())
        wanted = [n for n, _ in read(decode(Source.Config, settings).build(), size, 0)]
        settings, place = make(folder / name / "bad", size, bad)
        for workers in (0, 2):
            found = read(decode(Source.Config, settings).build(), size, workers)
            tally.note(_wrong(found, wanted, bad, place))
        yield tally.outcome(
            f"{len(bad)} of {size} samples bad: {name}", "exact count, place; order kept", "with 0 and 2 workers"
        )


def read(source: Source, size: int, workers: int) -> list[tuple[int, BadSample | None]]:
    """Every sample in the loader's order: (its number, or -1 and why it cannot be read)."""

    def number(raw: object, generator: object) -> Tokens:
        modality.check(raw)
        return Tokens(np.array([keys[content_key({"": raw})]]), np.zeros((1, 1)))

    field = next(name for name, kind in source.fields.items() if kind not in ("number", "label"))
    modality = find("modality", source.fields[field]).Config().build()
    keys: dict[str, int] = {}
    for index in range(len(source)):
        try:
            keys[content_key({"": source[index][field]})] = index
        except BadSample:
            continue
    items = Items(source, range(size), {"x": (field, number)}, 0, False)
    found: list[tuple[int, BadSample | None]] = []
    for batch, broken, _ in load(items, Order(size, 1, 0, 0, size), workers):
        found += [(int(batch["x"].values[0, 0]), None)] if batch else [(-1, broken[0])]
    return found


def _wrong(
    found: list[tuple[int, BadSample | None]], wanted: list[int], bad: set[int], place: Callable[[int], str]
) -> str:
    if [n for n, _ in found if n >= 0] != [n for n in wanted if n not in bad]:
        return "the good ones come in another order, or others are missing"
    told = {error.where for _, error in found if error is not None}
    if len(told) != len(bad):
        return f"{len(told)} are counted, and {len(bad)} are bad"
    missing = [n for n in bad if not any(re.search(re.escape(place(n)) + r"(\D|$)", where) for where in told)]
    return f"{place(missing[0])} is not named in {sorted(told)}" if missing else ""
