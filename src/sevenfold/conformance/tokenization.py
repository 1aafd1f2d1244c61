"""What every tokenizer must do: see the contract in sevenfold.blocks.tokenization."""

from __future__ import annotations

import pickle
import re
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sevenfold.conformance._kit import Skipped, empty_folder, expect, refusal
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.part import encode

SPECIALS = {"pad", "unk", "bos", "eos", "mask", "place"}
REAL = re.compile(rb"(?<=[\[ ,:])\d+\.\d+(?=[\], }\n])")
"""A number in JSON with a point, in no string."""


def made(config: Any) -> Any:
    """One that can encode."""
    tokenizer = usable(config).build()
    if not tokenizer.ready:
        tokenizer.fit(config.part.example(0))
    expect(tokenizer.ready, "is not ready after fit")
    return tokenizer


def usable(config: Any) -> Any:
    """The config with what it needs, made once."""
    key = str(encode(config))
    if key not in _USABLE:
        folder = TemporaryDirectory()
        _USABLE[key] = (config.part.example_config(config, Path(folder.name)), folder)
    return _USABLE[key][0]


_USABLE: dict[str, tuple[Any, TemporaryDirectory]] = {}


def same(a: Any, b: Any) -> bool:
    """Whether two raw items, arrays or Nones are equal; what is not known (NaN) is equal to itself."""
    a, b = np.asarray(a), np.asarray(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def check_example(config: Any) -> None:
    """At least 8 raw items, the same for the same seed, others for another."""
    first, again, other = (list(map(str, config.part.example(seed))) for seed in (1, 1, 2))
    expect(len(first) >= 8, f"example gives {len(first)} items, not 8")
    expect(first == again, "example gives other items for the same seed")
    expect(first != other, "example gives the same items for every seed")


def check_tokens(config: Any) -> None:
    """Ids in 0 … size-1 or vectors of `features` numbers, with coordinates."""
    tokenizer = made(config)
    expect((tokenizer.size is None) != (tokenizer.features is None), "needs either a size or features")
    for raw in config.part.example(0):
        values, coords = tokenizer.encode(raw)[:2]
        expect(coords.shape == (len(values), tokenizer.axes), f"coords {list(coords.shape)} for {len(values)} tokens")
        expect(coords.dtype.kind in "if", f"coords are {coords.dtype}")
        expect(tokenizer.layout() is None or same(tokenizer.layout(), coords), "coords differ from layout()")
        if tokenizer.size is not None:
            expect(values.ndim == 1 and values.dtype == np.int64, f"ids are {values.dtype} {list(values.shape)}")
            expect(((values >= 0) & (values < tokenizer.size)).all(), f"an id is not in 0 … {tokenizer.size - 1}")
        else:
            expect(values.dtype == np.float32, f"vectors are {values.dtype}")
            expect(values.shape == (len(values), tokenizer.features), f"vectors of {list(values.shape)}")


def check_back(config: Any) -> None:
    """A decoded item can be encoded again, to the same tokens if it says so; a lossless tokenizer gives the item itself."""
    tokenizer = made(config)
    for raw in config.part.example(0):
        tokens = tokenizer.encode(raw)
        back = tokenizer.decode(tokens.values, tokens.coords)
        expect(
            not tokenizer.lossless or same(back, raw),
            f"is lossless, and gives {str(back)[:40]!r} for {str(raw)[:40]!r}",
        )
        again = tokenizer.encode(_within(back, raw))
        if not tokenizer.idempotent:
            expect(again.values.shape == tokens.values.shape, "a decoded item has another number of tokens")
            continue
        if not np.allclose(again.values, tokens.values, atol=1e-5):
            again = tokenizer.encode(back)
        close = np.allclose(again.values, tokens.values, atol=1e-5)
        expect(close, f"the tokens of the decoded {str(raw)[:40]!r} differ")


def _within(back: Any, raw: Any) -> Any:
    """A decoded array cut to the range of the item that it came from, which a lossy one may overshoot."""
    if not isinstance(back, np.ndarray) or not isinstance(raw, np.ndarray):
        return back
    scale = 255 if raw.dtype == np.uint8 and back.dtype != np.uint8 else 1
    return back.clip(min(np.nanmin(raw) / scale, 0), max(np.nanmax(raw) / scale, 1))


def check_spans(config: Any) -> None:
    """Where each token is a piece of a line, it says which: one span for each, within the item, in rising order."""
    tokenizer = made(config)
    raws = config.part.example(0)
    if tokenizer.spans(raws[0]) is None:
        raise Skipped("its tokens are no pieces of a line")
    for raw in raws:
        spans = tokenizer.spans(raw)
        count = len(tokenizer.encode(raw).values)
        expect(spans.shape == (count, 2), f"spans {list(spans.shape)} for {count} tokens")
        expect((spans >= 0).all() and (spans <= len(raw)).all(), f"a span is outside of 0 … {len(raw)}")
        rising = (spans[:, 0] <= spans[:, 1]).all() and (np.diff(spans, axis=0) >= 0).all()
        expect(bool(rising), "spans do not rise")


def check_specials(config: Any) -> None:
    """Special tokens have names that are known and ids of their own, and decoding drops them (but for the placeholder, which is part of a text)."""
    tokenizer = made(config)
    if not tokenizer.specials:
        raise Skipped("has no special tokens")
    ids = list(tokenizer.specials.values())
    expect(set(tokenizer.specials) <= SPECIALS, f"specials are {sorted(tokenizer.specials)}, not of {sorted(SPECIALS)}")
    expect(len(set(ids)) == len(ids) and all(0 <= id < tokenizer.size for id in ids), f"special ids are {ids}")
    tokens = tokenizer.encode(config.part.example(0)[0])
    around = [id for name, id in tokenizer.specials.items() if name not in ("unk", "place")]
    values = np.concatenate([tokens.values, around])
    coords = np.concatenate([tokens.coords, np.zeros((len(around), tokenizer.axes), tokens.coords.dtype)])
    plain = tokenizer.decode(tokens.values, tokens.coords)
    expect(same(tokenizer.decode(values, coords), plain), "decoding keeps special tokens")


def check_pieces(config: Any) -> None:
    """Every id can be shown, on one line."""
    tokenizer = made(config)
    for id in range(min(tokenizer.size or 0, 300)):
        piece = tokenizer.piece(id)
        expect(isinstance(piece, str) and piece and "\n" not in piece, f"id {id} is shown as {piece!r}")


def check_saves(config: Any) -> None:
    """Saved and restored it is the same, file by file and token by token."""
    tokenizer = made(config)
    with empty_folder() as folder:
        names = tokenizer.save(folder / "a")
        found = sorted(file.name for file in (folder / "a").iterdir())
        expect(sorted(names) == found, f"save names {sorted(names)} and writes {found}")
        other = usable(config).build()
        other.restore(folder / "a")
        expect(other.save(folder / "b") == names, "saves other files after being restored")
        for name in names:
            unchanged = (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()
            expect(unchanged, f"{name} differs after being restored")
    for name in ("size", "features", "specials"):
        expect(getattr(other, name) == getattr(tokenizer, name), f"{name} differs after being restored")
    for raw in config.part.example(0):
        expect(same(other.encode(raw).values, tokenizer.encode(raw).values), "encodes differently after being restored")


def check_broken_files(config: Any) -> None:
    """A file of what it learned that is missing, empty, cut, or not what it should be is an error that names the file."""
    tokenizer = made(config)
    with empty_folder() as folder:
        names = [name for name in tokenizer.save(folder) if name != "tokenizer_config.json"]
        if not names:
            raise Skipped("has learned nothing")
        for name in names:
            path, whole = folder / name, (folder / name).read_bytes()
            wrong = [b"", b"{}", b"[]", b"\xff\xfe\x00", b'{"model": {"vocab": 3}}', whole[: len(whole) // 2]]
            if name.endswith(".json") and REAL.search(whole):
                wrong += [REAL.sub(b"1" + b"0" * 400, whole, count=1), REAL.sub(b"NaN", whole, count=1)]
            for broken in (None, *wrong, whole[:1] + b"\xff" + whole[2:]):
                path.unlink() if broken is None else path.write_bytes(broken)
                message = refusal(lambda: usable(config).build().restore(folder), CheckpointError)
                expect(name in message, f"the error for a broken {name} does not name it: {message}")
                path.write_bytes(whole)


def check_fit_repeatable(config: Any) -> None:
    """The same items give the same tokenizer."""
    first, second = made(config), made(config)
    for raw in config.part.example(0):
        expect(same(first.encode(raw).values, second.encode(raw).values), "two fits on the same items differ")


def check_travels(config: Any) -> None:
    """It can be sent to a loader process."""
    tokenizer = made(config)
    other, raw = pickle.loads(pickle.dumps(tokenizer)), config.part.example(0)[0]
    expect(same(other.encode(raw).values, tokenizer.encode(raw).values), "encodes differently in another process")


def check_refuses(config: Any) -> None:
    """An item that it does not take is a ValueError of one line, the item is left alone, and so is one before fit."""
    tokenizer, raw = made(config), config.part.example(0)[0]
    before = raw.copy() if isinstance(raw, np.ndarray) else raw
    tokenizer.encode(raw)
    expect(same(raw, before), "encode changes the item")
    for wrong in (None, {"not": "this"}):
        refusal(partial(tokenizer.encode, wrong), ValueError)
    fresh = config.build()
    if not fresh.ready:
        refusal(lambda: fresh.encode(raw), ConfigError)
