"""Sets that lie elsewhere: every sample once and in an order of the seed, while few files are here at a time; transfers that break."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sys
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
import torch

from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.locks import locked
from sevenfold.core.part import find
from sevenfold.data import remote
from sevenfold.data.arranged import AHEAD, Moving
from sevenfold.data.kept import Kept
from sevenfold.data.loader import Order, load
from sevenfold.data.mixed import BLOCK, Interleaved
from sevenfold.data.sharded import write_array
from sevenfold.training import shards_made
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.prepare_data import prepare_data
from sevenfold.training.recipe import read_recipe
from tiny import TIMES


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """120 texts in about 20 files of ids."""
    folder, draw = tmp_path_factory.mktemp("set"), random.Random(0)
    (folder / "texts").mkdir()
    for number in range(120):
        words = " ".join("".join(draw.choices("abcdefg", k=5)) for _ in range(draw.randint(20, 60)))
        (folder / "texts" / f"{number}.txt").write_text(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_made, "FEWEST", 1500)
        overrides = ["stream.tokenizer=bytes", "data.held_out=0.1"]
        made = prepare_data(
            str(folder / "texts"), folder / "tokens", overrides=overrides, workers=0, say=lambda _: None
        )
    assert len(json.loads((made / "manifest.json").read_text())["train"]["shards"]) >= 12
    return made


@pytest.fixture
def elsewhere(tokens, tmp_path, monkeypatch):
    """(its URL, file → bytes of it that were read)."""
    monkeypatch.setenv("SEVENFOLD_DATA", str(tmp_path / "kept"))
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(
        "sevenfold.data.kept.Kept.ahead", lambda self, names: None
    )  # what is fetched is told by what is read
    read: Counter[str] = Counter()

    class Counted:
        def __init__(self, name, file):
            self.name, self.file = name, file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def read(self, most):
            found = self.file.read(most)
            read[self.name] += len(found)
            return found

    opened = remote.opened
    monkeypatch.setattr(remote, "opened", lambda where: Counted(where.rpartition("/")[2], opened(where)))
    return f"file://{tokens}", read


def largest(tokens):
    return max(file.stat().st_size for file in tokens.glob("*-0*.npy"))


def recipe(path, pack=True, **data):
    return {
        "data": {"kind": "shards", "path": str(path), **data},
        "streams": {"text": {"length": 48, "pack": pack}},
        "trunks": {"lm": {"inputs": ["text"], "width": 16, "depth": 1, "mask": {"causal": True}}},
        "objective": "next_token",
        "train": {"steps": 12, "batch": 8, "precision": "fp32", "save_every": 4, "evaluate_every": 7},
    }


@pytest.mark.parametrize(("group", "sizes"), [(1, [3, 4]), (3, [5, 0, 7, 1, 9, 4, 6]), (9, [4, 4, 4])])
def test_each_item_once_and_few_parts_at_a_time(group, sizes):
    bounds = np.cumsum([0, *sizes])
    orders = []
    for epoch in range(3):
        order = Moving(bounds, group, 5, epoch)
        found = [order[place] for place in range(len(order))]
        assert sorted(found) == list(range(sum(sizes)))
        places = random.Random(epoch).sample(range(len(order)), len(order))
        again = Moving(bounds, group, 5, epoch)
        assert [again[place] for place in places] == [found[place] for place in places]
        parts = np.searchsorted(bounds, found, side="right") - 1
        spans = [(np.flatnonzero(parts == part).min(), np.flatnonzero(parts == part).max()) for part in set(parts)]
        open_at = [sum(first <= place <= last for first, last in spans) for place in range(len(found))]
        assert max(open_at) <= group
        orders.append(found)
    assert orders[0] != orders[1] != orders[2]


def test_a_mixture_in_stretches():
    counts = [BLOCK * 2 + 5, 3, BLOCK // 3]
    order = Interleaved(counts, 1, "mix", 0)
    found = np.array([order[place] for place in range(sum(counts))])
    assert sorted(found) == list(range(sum(counts)))
    for first, count in zip(np.cumsum([0, *counts]), counts):
        own = found[(found >= first) & (found < first + count)]
        assert (np.diff(own) == 1).all()
    half = (found[: len(found) // 2] < counts[0]).mean()
    assert half == pytest.approx(counts[0] / sum(counts), abs=0.01)
    assert [Interleaved(counts, 1, "mix", 0)[place] for place in (7, 20_000)] == [found[7], found[20_000]]


def batches(ready, start, steps, workers=0, part=(0, 1)):
    order = Order(len(ready.train), 8, 0, start, steps, part=part, arranged=ready.train.arranged)
    return [batch["text"].values for batch, _, _ in load(ready.train, order, workers)]


@pytest.mark.parametrize("pack", [True, "whole", False])
def test_larger_than_the_cache(pack, tokens, elsewhere, tmp_path):
    url, read = elsewhere
    cache = 6 * largest(tokens)
    ready = prepare(read_recipe(recipe(url, pack, cache=cache)))
    assert sum(size for name, size in read.items() if name.startswith("train-")) <= largest(tokens)
    steps = -(-len(ready.train) // 8)
    wanted = [batches(ready, 0, steps)]
    files = sorted(tokens.glob("train-*.npy"))
    fetched = sum(read[file.name] for file in files)
    assert fetched <= sum(file.stat().st_size for file in files) + 3 * largest(tokens)
    kept = [file.stat().st_size for file in (tmp_path / "kept").rglob("*-0*.npy")]
    assert 3 * largest(tokens) < sum(kept) <= cache
    epoch = [
        Order(len(ready.train), 1, 0, 0, 9**9, arranged=ready.train.arranged).key(n) for n in range(len(ready.train))
    ]
    assert sorted(epoch) == [(0, n) for n in range(len(ready.train))]
    wanted = batches(ready, 0, steps)
    for start, workers in ((steps // 2, 0), (1, 2)):
        found = batches(ready, start, steps, workers)
        assert len(found) == steps - start and all(map(torch.equal, found, wanted[start:]))
    shared = zip(*(batches(ready, 0, steps, part=(rank, 4)) for rank in range(4)))
    if pack is not False:
        assert all(torch.equal(torch.cat(parts), whole) for parts, whole in zip(shared, wanted))
    near = prepare(read_recipe(recipe(tokens, pack, group=3)))  # the same order without any copy
    assert all(map(torch.equal, batches(near, 0, steps), wanted))


def test_what_fits_is_read_as_if_it_were_here(tokens, elsewhere):
    url, read = elsewhere
    near, far = (prepare(read_recipe(recipe(path))) for path in (tokens, url))
    steps = len(near.train) // 4
    assert all(map(torch.equal, batches(near, 0, steps), batches(far, 0, steps)))
    assert {name: size for name, size in read.items() if name.startswith("train")} == {
        file.name: file.stat().st_size for file in tokens.glob("train*.npy")
    }


def test_a_run_goes_on_bit_for_bit(tokens, elsewhere, tmp_path):
    url, _ = elsewhere
    plain = recipe(url, cache=6 * largest(tokens))
    mixed = {
        **plain,
        "data": {
            "kind": "mix",
            "sources": {"far": {"source": plain["data"]}, "near": {"source": {"kind": "shards", "path": str(tokens)}}},
        },
    }

    def stop(step):
        raise KeyboardInterrupt

    for number, given in enumerate((plain, mixed)):
        logs = []
        for stops in ((None,), (stop, None)):
            folder = tmp_path / f"{number}-{len(stops)}"
            for on_look in stops:
                ready = prepare(read_recipe(given))
                told = {"folder": folder, "resume": True, "on_look": on_look, "bar": False}
                with suppress(KeyboardInterrupt):
                    done = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, **told)
            logs.append([{k: v for k, v in line.items() if k not in TIMES} for line in done.log])
        assert logs[0] == logs[1] and len(logs[0]) > 12


def test_files_ahead_come_while_others_are_read(tokens, tmp_path, monkeypatch):
    monkeypatch.setenv("SEVENFOLD_DATA", str(tmp_path / "kept"))
    ready = prepare(read_recipe(recipe(f"file://{tokens}", cache=7 * largest(tokens))))
    batches(ready, 0, 1)
    order = ready.train.order.epoch(0)
    ahead = [ready.train.line.pieces[part].name for part in order.parts[1 : 1 + AHEAD]]
    for _ in range(200):
        if all(list((tmp_path / "kept").rglob(f"[!.]*-{name}")) for name in ahead):
            return
        multiprocessing.Event().wait(0.02)
    raise AssertionError(f"not all of {ahead} came")


def _reading(url, cache, seed, log):
    source = find("source", "shards").Config(path=url, cache=cache).build()
    opened, line = remote.opened, source.line(source.split()[0])

    def counted(where):
        with open(log, "a") as file:
            file.write(where.rpartition("/")[2] + "\n")
        return opened(where)

    remote.opened = counted
    whole = 0
    for number in random.Random(seed).sample(range(len(line.pieces)), len(line.pieces)):
        whole += int(line.files.opened(line.pieces[number]).sum())
    with open(log, "a") as file:
        file.write(f"sum {whole}\n")


def test_processes_share_what_is_here(tokens, elsewhere, tmp_path):
    url, _ = elsewhere
    files = sorted(tokens.glob("train-*.npy"))
    wanted = sum(int(np.load(file).sum()) for file in files)
    for cache, most in ((1 << 30, 1), (4 * largest(tokens), 3)):
        log = tmp_path / f"{cache}.log"
        readers = [
            multiprocessing.get_context("fork").Process(target=_reading, args=(url, cache, seed, log))
            for seed in range(3)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        said = log.read_text().splitlines()
        assert [line for line in said if line.startswith("sum")] == [f"sum {wanted}"] * 3
        assert max(Counter(line for line in said if not line.startswith("sum")).values()) <= most
        (place,) = (tmp_path / "kept").iterdir()
        assert sum(file.stat().st_size for file in place.glob("*-0*.npy")) <= cache and not list(place.glob(".tmp*"))
        for file in place.glob("*-0*.npy"):
            file.unlink()


def test_transfers_that_break(tokens, elsewhere, monkeypatch, tmp_path):
    url, _ = elsewhere
    source = find("source", "shards").Config(path=url).build()
    opened, left, tries = remote.opened, [2], []

    class Breaking:
        def __init__(self, where):
            self.where, self.file = where, opened(where)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, most):
            tries.append(self.where)
            if left[0]:
                left[0] -= 1
                raise ConnectionError("reset by peer\nand more")
            return self.file.read(most)

    monkeypatch.setattr(remote, "opened", Breaking)
    source[0]
    assert tries[0].endswith("train-00000.npy") and len(tries) >= 3
    left[0] = 10
    with pytest.raises(DataError, match=r"train-0\d+\.npy: cannot be read in 3 tries: reset by peer$"):
        source[len(source.split()[0]) - 1]
    monkeypatch.setattr(remote, "opened", opened)
    (place,) = (tmp_path / "kept").iterdir()
    assert not list(place.glob(".tmp*"))
    with pytest.raises(ConfigError, match=r"data\.cache: .* at least"):
        find("source", "shards").Config(path=url, cache=3 * largest(tokens)).build()
    name = "train-00000.npy"
    (here,) = place.glob(f"*-{name}")
    here.write_bytes(here.read_bytes()[:-1] + b"?")  # damaged where it is kept: brought again
    find("source", "shards").Config(path=url).build()[0]
    assert here.read_bytes() == (tokens / name).read_bytes()
    here.unlink()
    other = dict(json.loads((tokens / "manifest.json").read_text())["files"])
    other[name]["sha256"] = "0" * 64
    with pytest.raises(DataError, match=r"train-00000\.npy: is not as its manifest or index says"):
        Kept({name: f"{url}/{name}"}, place, other, 1 << 30, True).used(name, np.load)
    for path in ("nowhere://x/y", "file:///nowhere/at/all", "zip://a::file:///b"):
        with pytest.raises(DataError, match=path):
            find("source", "shards").Config(path=path).build()


def test_a_manifest_that_leads_elsewhere(tokens, elsewhere, tmp_path):
    shutil.copytree(tokens, tmp_path / "copy")
    told = json.loads((tokens / "manifest.json").read_text())
    source = find("source", "shards").Config(path=f"file://{tmp_path}/copy")
    one = {"size": 1, "sha256": "0" * 64}
    bad = dict.fromkeys(("../x.npy", "/x.npy", "a/../../x", "", "a\0b", "a" * 300, ".locks/room", "a//b"), one)
    bad |= {"tokenizer": one, "train-00000.npy/x": one, "x.npy": {**one, "sha256": "../../x"}}
    for name, fact in bad.items():
        (tmp_path / "copy" / "manifest.json").write_text(json.dumps({**told, "files": {**told["files"], name: fact}}))
        with pytest.raises(DataError, match="is no file of this folder|is inside of a file|has no size and hash"):
            source.build()
    large = {"more": {"size": 9**9, "sha256": "0" * 64}}  # no part of the set: never brought
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps({**told, "files": {**told["files"], **large}}))
    assert len(source.build()) == 120


def test_a_set_that_changes_is_another_one(tokens, elsewhere, tmp_path):
    """A run goes on with what it began with, or says that it cannot; what is kept of both stays within the limit."""
    (tmp_path / "copy").mkdir()
    shutil.copytree(tokens, tmp_path / "copy", dirs_exist_ok=True)
    config = find("source", "shards").Config(path=f"file://{tmp_path}/copy", cache=6 * largest(tokens))
    first = config.build()
    line = first.line(first.split()[0])
    before = line.files.opened(line.pieces[0]).copy()
    told = json.loads((tokens / "manifest.json").read_text())
    for name in ("train-00000.npy", "train-00001.npy"):
        turned = np.load(tokens / name)[::-1]
        told["files"][name] = write_array(tmp_path / "copy" / name, turned)._asdict()
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(told))
    second = config.build()
    again = second.line(second.split()[0])
    assert np.array_equal(again.files.opened(again.pieces[0]), before[::-1])
    assert np.array_equal(line.files.opened(line.pieces[0]), before)
    with pytest.raises(DataError, match=r"train-00001\.npy: is not as its manifest or index says"):
        line.files.opened(line.pieces[1])
    for piece in again.pieces:
        again.files.opened(piece)
    kept = list((tmp_path / "kept").rglob("*-0*.npy"))
    assert 3 * largest(tokens) < sum(file.stat().st_size for file in kept) <= 6 * largest(tokens)


def test_a_cache_that_cannot_be_written_is_said_at_once(tokens, elsewhere, monkeypatch, tmp_path):
    url, read = elsewhere
    source = find("source", "shards").Config(path=url).build()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    before = sum(read.values())
    with pytest.raises(
        DataError, match=r"kept.*: cannot be used for what is brought: No space left on device: make room"
    ):
        source[0]
    assert sum(read.values()) - before <= largest(tokens)
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEVENFOLD_DATA", str(tmp_path / "file" / "x"))
    with pytest.raises(DataError, match="cannot be used for what is brought: Not a directory"):
        find("source", "shards").Config(path=url).build()


def test_memory(tokens, elsewhere, monkeypatch):
    """Another kind of place, by the same way."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.put(str(tokens), "/set", recursive=True)
    near, far = (find("source", "shards").Config(path=path).build() for path in (str(tokens), "memory://set/"))
    assert [near[n] for n in range(len(near))] == [far[n] for n in range(len(far))]
    system.rm("/set", recursive=True)


def test_a_lock_ends_with_its_holder(tmp_path):
    """Though a process was forked meanwhile, which has the same file open."""
    with locked(tmp_path / "x"):
        child = os.fork()
        if not child:
            multiprocessing.Event().wait(5)
            os._exit(0)
        with locked(tmp_path / "x", wait=False) as ours:
            assert not ours
    try:
        with locked(tmp_path / "x", wait=False) as ours:
            assert ours
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_without_locks_everybody_gets_one(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with locked(tmp_path / "x") as one, locked(tmp_path / "x", wait=False) as other:
        assert one and other


def test_each_source_of_a_mixture_has_its_group(tokens):
    sources = {f"of{n}": {"source": {"kind": "shards", "path": str(tokens), "group": n}} for n in (2, 5)}
    sources["all"] = {"source": {"kind": "shards", "path": str(tokens)}}
    given = {**recipe(tokens, pack=False), "data": {"kind": "mix", "sources": sources}}
    ready = prepare(read_recipe(given))
    assert [one.arranged(0).group for one in ready.train.sets] == [2, 5, 1]
