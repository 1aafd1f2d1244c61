"""Files with random faults in them: recipes, run folders, checkpoints, tokenizers, data of every format. Each is read, or refused in
one line that names the file or the field, within 10 s and 2 GB."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from sevenfold.conformance.fault import Outcome
from sevenfold.conformance.fault._kit import Tally, fitted, ready_of, small
from sevenfold.conformance.fault._watched import Attempt, watched
from sevenfold.core.errors import BadSample
from sevenfold.core.files import MANIFEST, read_json, write_manifest
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.training import checkpoint
from sevenfold.training.load import load
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from sevenfold.training.run import train

TRIES = 5000
EXTREME = [
    b"-1",
    b"0",
    b"1e9",
    b"1000000000",
    b"1180591620717411303424",
    b"NaN",
    b"-1e400",
    b"0.5",
    b"null",
    b"[]",
    b"''",
    b"\xff",
]
NUMBER, WORD = re.compile(rb"-?\d+(\.\d+)?"), re.compile(rb"[A-Za-z_]{2,}")
FIELDS = ("data", "streams", "trunks", "heads", "objective", "train", "seed", "init", "adapter", "start", "family")


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A file's content after one to four faults: bits, cuts, copies, other numbers and words."""
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        size = max(1, len(content))
        place, length = draw.randrange(size), draw.randint(1, max(1, min(size, draw.choice([1, 8, 64, size]))))
        way = draw.randrange(8)
        found = list((NUMBER if way in (5, 6) else WORD).finditer(content[: 1 << 16])) if way >= 5 else []
        if way == 0:
            content = content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
        elif way == 1:
            content = content[:place]
        elif way == 2:
            content = content[:place] + content[place + length :]
        elif way == 3:
            content = content[: place + length] + content[place : place + length] + content[place + length :]
        elif way == 4:
            content = content[:place] + draw.randbytes(length) + content[place:]
        elif found:
            chosen = draw.choice(found)
            other = draw.choice(EXTREME) if way in (5, 6) else draw.choice(found).group()
            content = content[: chosen.start()] + other + content[chosen.end() :]
    return content


def tried(folder: Path, tries: int) -> Iterator[Outcome]:
    """Each kind of file so many times."""
    yield _row("recipe", recipes, folder, tries)
    yield _row("checkpoint", checkpoints, folder, tries)
    yield _row("run folder", runs, folder, tries)
    tokenizers = [kind for kind in kinds("tokenization") if not kind.startswith("_")]
    yield _row("tokenizer", all_tokenizers, folder, tries, tokenizers)
    for kind in kinds("source"):
        (folder / "examples" / kind).mkdir(parents=True)
        if find("source", kind).example(folder / "examples" / kind).path:
            yield _row(f"data: {kind}", data, folder / kind, tries, kind)


def _row(what: str, maker: Any, folder: Path, tries: int, *more: Any) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    tally, refused, slowest, memory = Tally(), 0, 0.0, 0
    for met in watched(maker, (folder / what.replace(" ", "_"), *more), tries):
        tally.note(f"try {met.number}: {met.wrong}" if met.wrong else "")
        refused += bool(met.said)
        slowest, memory = max(slowest, met.seconds), max(memory, met.memory)
    told = f"{refused} refused, slowest {slowest:.1f} s, +{memory / 1e6:.0f} MB"
    return tally.outcome(f"{what} with faults", "read or one line, 10 s, 2 GB", told)


class Unnamed(Exception):
    """An error that names neither the file nor a field."""


def named(attempt: Callable[[], Any], *names: str) -> None:
    """Our error must hold one of the names."""
    try:
        attempt()
    except Exception as error:
        if type(error).__module__.startswith("sevenfold.") and not any(name in str(error) for name in names):
            raise Unnamed(f"names nothing: {error}") from None
        raise


def recipes(folder: Path) -> Attempt:
    """Recipes of several objectives, completed: every field is written out."""
    folder.mkdir(exist_ok=True)
    text = folder / "words.txt"
    text.write_text("the cat sat on the mat, and the dog on the log\n" * 40)
    gpt = {
        "data": {"kind": "text", "path": str(text)},
        "streams": {"text": {"kind": "text", "tokenizer": {"kind": "bpe", "size": 280}, "length": 32}},
        "trunks": {"lm": {"inputs": ["text"], "width": 16, "depth": 1, "mask": {"causal": True}}},
        "objective": {"kind": "next_token"},
        "train": {"steps": 2, "batch": 4},
    }
    whole = yaml.safe_dump(small(), sort_keys=False).encode(), yaml.safe_dump(gpt, sort_keys=False).encode()

    def attempt(number: int) -> None:
        draw = random.Random(number)
        path = folder / "recipe.yaml"
        path.write_bytes(mutated(whole[number % 2], draw))
        named(lambda: prepare(read_recipe(path), note=lambda line: None), str(folder), "no such file", *FIELDS)

    return attempt


def _with_manifest(folder: Path, name: str, content: bytes) -> None:
    """Put other content into a file, and say so in the manifest: so it comes to those who read it."""
    (folder / name).write_bytes(content)
    manifest = read_json(folder / MANIFEST)
    write_manifest(folder, list(manifest["files"]), **{key: value for key, value in manifest.items() if key != "files"})


def checkpoints(folder: Path) -> Attempt:
    """Every file of a checkpoint, with a manifest that fits."""
    data = small(steps=2, save_every=1, keep=1)
    fitted(data, folder)
    place = checkpoint.listed(folder)[0]
    whole = {file.name: file.read_bytes() for file in sorted(place.iterdir())}

    def attempt(number: int) -> None:
        draw = random.Random(number)
        ready = ready_of(data) if number % 200 == 0 or not kept else kept[0]
        kept[:] = [ready]
        name = sorted(whole)[number % len(whole)]
        for other, content in whole.items():
            place.mkdir(parents=True, exist_ok=True)
            (place / other).write_bytes(content)
        if name == MANIFEST:
            (place / name).write_bytes(mutated(whole[name], draw))
        else:
            _with_manifest(place, name, mutated(whole[name], draw))
        optimizer = ready.recipe.train.optimizer.build(dict(ready.objective.named_parameters()))
        named(lambda: checkpoint.restore(folder, ready.objective, optimizer, lambda line: None), str(folder))

    kept: list[Any] = []
    return attempt


def runs(folder: Path) -> Attempt:
    """Every file that `load` reads, with a manifest that fits."""
    train(small(steps=1), folder, say=lambda line: None, bar=False)
    shutil.rmtree(folder / "checkpoints")
    names = sorted(read_json(folder / MANIFEST)["files"])
    whole = {name: (folder / name).read_bytes() for name in [*names, MANIFEST]}

    def attempt(number: int) -> None:
        draw, name = random.Random(number), [*names, MANIFEST][number % (len(names) + 1)]
        for other, content in whole.items():
            (folder / other).write_bytes(content)
        if name == MANIFEST:
            (folder / name).write_bytes(mutated(whole[name], draw))
        else:
            _with_manifest(folder, name, mutated(whole[name], draw))
        named(lambda: load(folder), str(folder))

    return attempt


def all_tokenizers(folder: Path, kinds: list[str]) -> Attempt:
    """The files of each tokenizer that has some, one after the other."""
    made = []
    for kind in kinds:
        cls = find("tokenization", kind)
        place = folder / kind
        for part in ("needs", "saved"):
            (place / part).mkdir(parents=True)
        config = cls.example_config(cls.Config(), place / "needs")
        tokenizer = config.build()
        if not tokenizer.ready:
            tokenizer.fit(cls.example(0))
        tokenizer.save(place / "saved")
        files = {file: file.read_bytes() for file in sorted((place / "saved").rglob("*")) if file.is_file()}
        if files:
            made.append((config, place / "saved", files, cls.example(1)[:3]))

    def attempt(number: int) -> None:
        draw = random.Random(number)
        config, place, files, raws = made[number % len(made)]
        for other, content in files.items():
            other.write_bytes(content)
        file = draw.choice(sorted(files))
        file.write_bytes(mutated(files[file], draw))
        tokenizer = config.build()
        named(lambda: tokenizer.restore(place), str(place))
        for raw in raws:
            with suppress(ValueError):
                tokenizer.encode(raw)

    return attempt


def data(folder: Path, kind: str) -> Attempt:
    """A file of the source's own example: built, split, every sample read. Where a manifest tells of files, they are harmed too, with
    one that fits."""
    folder.mkdir(exist_ok=True)
    config = find("source", kind).example(folder)
    files = config.build().files()
    manifest = folder / MANIFEST
    files += [folder / name for name in read_json(manifest)["files"]] if manifest in files else []
    whole = {file: file.read_bytes() for file in files}
    _read(config)

    def attempt(number: int) -> None:
        draw = random.Random(number)
        file = files[number % len(files)]
        if manifest in whole and file != manifest:
            _with_manifest(folder, str(file.relative_to(folder)), mutated(whole[file], draw))
        else:
            file.write_bytes(mutated(whole[file], draw))
        try:
            named(lambda: _read(config), str(folder))
        finally:
            for one in {file, manifest} & whole.keys():
                one.write_bytes(whole[one])

    return attempt


def _read(config: Any) -> None:
    source = config.build()
    source.split()
    for index in range(len(source)):
        with suppress(BadSample):
            source[index]
