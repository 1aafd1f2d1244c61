"""Prepared tokens: the same windows as from the raw files, whatever happened on the way; damage is noticed and named."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil

import numpy as np
import pytest
import torch

import sevenfold as sf
from sevenfold.cli import main
from sevenfold.core.errors import BadSample, ConfigError, DataError, SevenfoldError
from sevenfold.core.locks import locked
from sevenfold.core.part import decode, find
from sevenfold.data.line import Line
from sevenfold.data.source import Source
from sevenfold.training import shards_made as module
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.prepare_data import prepare_data
from sevenfold.training.recipe import read_recipe
from tiny import TIMES

LETTERS = random.Random(0)


def words(count):
    return " ".join("".join(LETTERS.choices("abcdeé", k=LETTERS.randint(1, 7))) for _ in range(count))


def text(folder):
    (folder / "long.txt").write_text("".join(words(9) + "\n" for _ in range(300)), encoding="utf-8")
    return {"kind": "text", "path": str(folder / "long.txt"), "piece_bytes": 256}, "text"


def texts(folder):
    (folder / "texts").mkdir()
    for number in range(60):
        (folder / "texts" / f"{number}.txt").write_text("".join(words(9) + "\n" for _ in range(8)), encoding="utf-8")
    return {"kind": "text", "path": str(folder / "texts"), "piece_bytes": 200}, "text"


def jsonl(folder):
    lines = [json.dumps({"text": words(LETTERS.randint(1, 30)), "n": k}) + "\n" for k in range(200)]
    lines[77] = "{}\n"
    (folder / "a.jsonl").write_text("".join(lines), encoding="utf-8")
    return {"kind": "jsonl", "path": str(folder / "a.jsonl")}, "text"


def parquet(folder):
    return {"kind": "parquet", "path": find("source", "parquet").example(folder).path}, "text"


def dna(folder):
    lines = [f">{n}\n{''.join(LETTERS.choices('ACGT', k=LETTERS.choice((40, 700))))}\n" for n in range(60)]
    (folder / "some.fa").write_text("".join(lines))
    return {"kind": "fasta", "path": str(folder / "some.fa"), "piece_letters": 128}, "dna"


def protein(folder):
    lines = [f">{n}\n{''.join(LETTERS.choices('ACDEFGHIKLMNPQRSTVWY', k=60))}\n" for n in range(60)]
    (folder / "some.fa").write_text("".join(lines))
    return {"kind": "fasta", "path": str(folder / "some.fa"), "alphabet": "protein"}, "protein"


STREAMS = {
    "text": {"kind": "text", "tokenizer": {"kind": "bpe", "size": 300}, "ends": True},
    "dna": {"kind": "dna", "tokenizer": {"kind": "kmer", "k": 3}, "ends": False},
    "protein": {"kind": "protein", "ends": True},
}


def recipe(data, field, **stream):
    return {
        "data": data,
        "streams": {field: {"length": 24, "pack": True, **stream}},
        "trunks": {"lm": {"inputs": [field], "width": 16, "depth": 1, "mask": {"causal": True}}},
        "objective": "next_token",
        "train": {"steps": 6, "batch": 4, "precision": "fp32"},
    }


def overrides(stream):
    return [f"stream.{name}={json.dumps(value)}" for name, value in stream.items() if name != "kind"]


@pytest.fixture
def small(monkeypatch):
    """Shards of few tokens."""
    monkeypatch.setattr(module, "FEWEST", 600)


def made(data, field, out, workers=0, said=None):
    say = (lambda _: None) if said is None else said.append
    return prepare_data(data, out, field=field, overrides=overrides(STREAMS[field]), workers=workers, say=say)


@pytest.mark.parametrize("some", [text, texts, jsonl, parquet, dna, protein], ids=lambda some: some.__name__)
def test_the_windows_of_the_raw_data_bit_for_bit(some, tmp_path, small):
    data, field = some(tmp_path)
    folder = made(data, field, tmp_path / "tokens")
    raw = prepare(read_recipe(recipe(data, field, **STREAMS[field])))
    told = prepare(read_recipe(recipe({"kind": "shards", "path": str(folder)}, field)))
    assert some in (parquet, protein) or len(told.source.index.train.shards) > 3
    for one, other in ((raw.train, told.train), (raw.held_out, told.held_out)):
        assert len(one) == len(other) > 0
        for epoch in range(3):
            keys = [(epoch, place) for place in range(len(one))]
            wanted, found = (side.batch(keys)[0][field] for side in (one, other))
            for a, b in zip(wanted, found):
                assert (a is None and b is None) or torch.equal(a, b)
            alone = other[epoch, len(one) - 1][field]
            assert np.array_equal(alone.values, found.values[-1]) and np.array_equal(alone.coords, found.coords[-1])
    for one, other in ((raw.train_items, told.train_items), (raw.held_out_items, told.held_out_items)):
        readable = [index for index in one.indices if some is not jsonl or raw.source.where(index)[-3:] != ":78"]
        assert [raw.source[index][field] for index in readable] == [
            told.source[index][field] for index in other.indices
        ]
    assert bool(told.source.notes) == (some is jsonl)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_the_same_from_either(workers, tmp_path, small):
    data, field = texts(tmp_path)
    folder = made(data, field, tmp_path / "tokens", workers=2)
    logs = []
    for given in (recipe(data, field, **STREAMS[field]), recipe({"kind": "shards", "path": str(folder)}, field)):
        ready = prepare(read_recipe(given))
        settings = ready.recipe.train.replace(workers=workers if given["data"]["kind"] == "shards" else 0)
        logs.append(fit(ready.objective, ready.train, ready.held_out, settings, bar=False).log)
    wanted, found = ([{k: v for k, v in record.items() if k not in TIMES} for record in log] for log in logs)
    assert wanted == found


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_files_do_not_depend_on_workers_or_interruptions(tmp_path, small, monkeypatch):
    data, field = texts(tmp_path)
    wanted = files(made(data, field, tmp_path / "whole"))
    assert files(made(data, field, tmp_path / "four", workers=4)) == wanted
    make = module._make

    def stopping(work, job):
        if job.name == "train-00002.npy":
            raise KeyboardInterrupt
        make(work, job)

    monkeypatch.setattr(module, "_make", stopping)
    with pytest.raises(KeyboardInterrupt):
        made(data, field, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    left = tmp_path / ".again.preparing" / "tokens"
    (left / "train-00001.npy").write_bytes((left / "train-00001.npy").read_bytes()[:-2])
    times = {name: (left / name).stat().st_mtime_ns for name in ("train-00000.npy", "train-00001.npy")}
    monkeypatch.setattr(module, "_make", make)
    said = []
    assert files(made(data, field, tmp_path / "again", said=said)) == wanted
    assert any(line.startswith("1 of") and "are there already" in line for line in said)
    kept = {name: (tmp_path / "again" / name).stat().st_mtime_ns == time for name, time in times.items()}
    assert kept == {"train-00000.npy": True, "train-00001.npy": False}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_other_settings_begin_anew(tmp_path, small, monkeypatch):
    data, field = jsonl(tmp_path)
    make = module._make
    monkeypatch.setattr(module, "_make", lambda work, job: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made({**data, "held_out": 0.3}, field, tmp_path / "tokens")
    monkeypatch.setattr(module, "_make", make)
    folder = made(data, field, tmp_path / "tokens")
    assert json.loads((folder / "manifest.json").read_text())["bad"] == 1
    assert json.loads((folder / "bad_samples.jsonl").read_text())["where"].endswith("a.jsonl:78")
    said = []
    (tmp_path / ".tokens.preparing" / "progress").mkdir(parents=True)
    made(data, field, folder, said=said)
    assert not (tmp_path / ".tokens.preparing").exists()
    assert said == [f"{folder}: is prepared already, and whole"]
    with pytest.raises(ConfigError, match="other data or settings"):
        made({**data, "held_out": 0.3}, field, folder)


def test_every_damage_is_noticed_and_named(tmp_path, small):
    folder = made(*texts(tmp_path), tmp_path / "tokens")
    names = [name for name in files(folder) if name != "manifest.json"]
    assert len(names) > 8
    draw = random.Random(1)
    for name in names:
        for harm in ("cut", "flip", "gone"):
            content = (folder / name).read_bytes()
            if harm == "cut":
                (folder / name).write_bytes(content[: draw.randrange(len(content))])
            elif harm == "flip":
                place = draw.randrange(len(content))
                (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            else:
                (folder / name).unlink()
            with pytest.raises(DataError, match=name.replace(".", r"\.")):
                find("source", "shards").Config(path=str(folder)).build()
            (folder / name).write_bytes(content)
    find("source", "shards").Config(path=str(folder)).build()


def test_a_manifest_that_says_other_things(tmp_path, small):
    """Any field changed to anything: our error, in one line, or what is read is as before."""
    folder = made(*texts(tmp_path), tmp_path / "tokens")
    told = json.loads((folder / "manifest.json").read_text())
    draw = random.Random(2)
    values = [None, -1, 1 << 60, 1.5, "", "../x", [], {}, True, "train-00000.npy", {"kind": "learned", "run": "/"}]

    def changed(data):
        if isinstance(data, dict) and data and draw.random() < 0.8:
            name = draw.choice(sorted(data))
            return {**data, name: changed(data[name])}
        if isinstance(data, list) and data and draw.random() < 0.8:
            return [*data[:-1], changed(data[-1])]
        return draw.choice(values)

    refused = []
    for _ in range(100):
        (folder / "manifest.json").write_text(json.dumps(changed(told)))
        try:
            source = find("source", "shards").Config(path=str(folder)).build()
            assert len(source.line(source.split()[0])) == told["train"]["tokens"]
            source[0]
        except SevenfoldError as error:
            refused.append(str(error))
    assert len(refused) > 50 and not any("\n" in line for line in refused)


def test_what_cannot_be_prepared_or_read(tmp_path, small):
    data, field = texts(tmp_path)
    folder = made(data, field, tmp_path / "tokens")
    shards = {"kind": "shards", "path": str(folder)}
    with pytest.raises(ConfigError, match=r"streams\.text\.ends: .*made with True, not False.*prepare"):
        prepare(read_recipe(recipe(shards, field, ends=False)))
    with pytest.raises(ConfigError, match=r"streams\.text\.tokenizer: .*prepare the data again"):
        prepare(read_recipe(recipe(shards, field, tokenizer="bytes")))
    with pytest.raises(ConfigError, match=r"views change raw items"):
        prepare(read_recipe(recipe(shards, field, views=["crop"])))
    with pytest.raises(DataError, match="nowhere"):
        prepare(read_recipe(recipe({"kind": "shards", "path": str(tmp_path / "nowhere")}, field)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="sevenfold prepare"):
        find("source", "shards").Config(path=str(tmp_path / "other")).build()
    with pytest.raises(ConfigError, match="holds no prepared data"):
        made(data, field, tmp_path / "texts")
    with pytest.raises(ConfigError, match=r"data\.FIELD=value or stream\.FIELD=value"):
        prepare_data(data, tmp_path / "x", overrides=["tokenizer=bpe"])
    with pytest.raises(ConfigError, match="no field 'words'; known: text"):
        prepare_data(data, tmp_path / "x", field="words", say=lambda _: None)
    with pytest.raises(ConfigError, match="series_patch makes no ids"):
        prepare_data({"kind": "waves"}, tmp_path / "x", say=lambda _: None)


def test_the_verb(tmp_path, capsys):
    data, _ = texts(tmp_path)
    assert (
        main(["prepare", data["path"], "--out", str(tmp_path / "t"), "stream.tokenizer=bytes", "--workers", "1"]) == 0
    )
    assert "tokens of" in capsys.readouterr().err
    assert sf.recognise(tmp_path / "t").kind == "shards"
    assert main(["prepare", data["path"], "--out", data["path"]]) == 2
    shutil.rmtree(tmp_path / "t")


def test_a_process_that_dies_is_said(tmp_path, small, monkeypatch):
    data, field = texts(tmp_path)
    monkeypatch.setattr(module, "_make", lambda work, job: module.os._exit(9))
    with pytest.raises(DataError, match=r"train-0000\d\.npy: its process ended with 9.*fewer workers"):
        made(data, field, tmp_path / "tokens", workers=2)

    def full(work, job):
        raise OSError(28, "No space left on device", str(work.tokens / job.name))

    monkeypatch.setattr(module, "_make", full)
    with pytest.raises(DataError, match=r"No space left on device.*train-0000\d"):
        made(data, field, tmp_path / "tokens", workers=2)


@pytest.mark.parametrize("seed", range(3))
def test_reading_across_pieces(seed, tmp_path):
    """Windows and stretches of a line in several files are those of one array."""
    draw = np.random.default_rng(seed)
    sizes = [1, 5, 40, 2, 3, 90, 17]
    whole = draw.integers(0, 9, sum(sizes)).astype(np.uint16)
    pieces = np.split(whole, np.cumsum(sizes)[:-1])
    paths = []
    for number, piece in enumerate(pieces):
        np.save(tmp_path / f"{number}.npy", piece)
        paths.append(tmp_path / f"{number}.npy")
    line = Line([paths[0], pieces[1], *paths[2:]], sizes, np.zeros(1, np.int64))
    assert len(line) == len(whole)
    for length in (1, 2, 7, 60, len(whole)):
        starts = draw.integers(0, len(whole) - length + 1, 20)
        assert np.array_equal(line.windows(starts, length), [whole[start : start + length] for start in starts])
        assert np.array_equal(line.read(int(starts[0]), int(starts[0]) + length), whole[starts[0] : starts[0] + length])
    with pytest.raises(DataError, match=r"2\.npy: holds 40 ids instead of 41"):
        Line(paths[:3], [1, 5, 41], np.zeros(1, np.int64)).read(6, 47)


def _prepares(data, out, told):
    prepare_data(data, out, field="text", overrides=overrides(STREAMS["text"]), workers=0, say=told.write_text)


def test_one_process_at_a_time(tmp_path, small):
    """The second waits for the first and finds the folder there; one that died does not hold it up."""
    data, field = texts(tmp_path)
    context = multiprocessing.get_context("fork")
    lock = tmp_path / ".tokens.lock"
    with locked(lock, remove=True):
        told = tmp_path / "told"
        second = context.Process(target=_prepares, args=(data, tmp_path / "tokens", told))
        second.start()
        while not told.exists() or not told.read_text():
            second.join(0.05)
        assert told.read_text().endswith("another process prepares it: waiting for it") and second.is_alive()
    second.join(60)
    assert second.exitcode == 0 and (tmp_path / "tokens" / "manifest.json").is_file() and not lock.exists()

    dying = context.Process(target=_dies_with, args=(lock,))
    dying.start()
    dying.join()
    assert lock.exists()
    told = []
    made(data, field, tmp_path / "tokens", said=told)
    assert told == [f"{tmp_path / 'tokens'}: is prepared already, and whole"] and not lock.exists()


def _dies_with(lock):
    with locked(lock, remove=True):
        os._exit(9)


@pytest.mark.parametrize("some", [text, texts, jsonl], ids=lambda some: some.__name__)
def test_what_is_too_much_for_memory_is_read_from_the_disk(some, tmp_path, small, monkeypatch):
    """The same samples, places and tokens, without the whole in memory."""
    data, field = some(tmp_path)
    held = decode(Source.Config, data, "data").build()
    monkeypatch.setattr("sevenfold.data.source.text.read_bytes", None)
    monkeypatch.setattr("sevenfold.data.source.text.read_any", None)
    monkeypatch.setattr("sevenfold.data.source.jsonl.read_bytes", None)
    read = decode(Source.Config, {**data, "largest_bytes": 1000}, "data").build()
    assert len(read) == len(held) > 50 and read.notes == held.notes and read.fields == held.fields
    for index in range(len(held)):
        assert read.where(index) == held.where(index) and read.follows(index) == held.follows(index)
        try:
            wanted = held[index]
        except BadSample as error:
            with pytest.raises(BadSample, match=str(error)[-20:]):
                read[index]
        else:
            assert read[index] == wanted
    if some is not texts:  # whole documents are told by other hashes
        assert read.split() == held.split()
    train, held_out = read.split()
    assert sorted([*train, *held_out]) == list(range(len(read)))
    if some is text:
        folder = made({**data, "largest_bytes": 1000}, field, tmp_path / "tokens")
        assert "".join(
            find("source", "shards").Config(path=str(folder)).build()[n]["text"] for n in range(len(read))
        ) == (tmp_path / "long.txt").read_text(encoding="utf-8")


def test_a_line_of_any_length(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '\ufeff{"text": "one two"}\n\n{"text": "' + "x" * 5000 + '"}\n{"text": "three"}', encoding="utf-8"
    )
    for most in (1 << 20, 64):
        found = (
            find("source", "jsonl").Config(path=str(tmp_path / "a.jsonl"), largest_bytes=most, longest_line=100).build()
        )
        assert len(found) == 3 and found[0] == {"text": "one two"} and found[2] == {"text": "three"}
        assert found.where(2).endswith(":4")
        with pytest.raises(BadSample, match=r"a\.jsonl:3: is 5,013 bytes long"):
            found[1]
