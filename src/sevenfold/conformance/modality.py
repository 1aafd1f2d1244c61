"""What every modality must do: see the contract in sevenfold.modality."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np

from sevenfold.conformance._kit import empty_folder, expect, refusal
from sevenfold.conformance.tokenization import check_example as check_example  # the same holds here
from sevenfold.conformance.tokenization import same
from sevenfold.core.part import decode, encode
from sevenfold.core.seeds import numpy_generator


def made(config: Any) -> Any:
    """One that can make tokens."""
    modality = config.build()
    modality.fit(config.part.example(0))
    return modality


def check_tokens(config: Any) -> None:
    """Every raw item becomes tokens with one coordinate per named axis, and comes back if the tokenizer is lossless."""
    modality = made(config)
    axes = modality.axis_names
    expect(len(set(axes)) == len(axes) == modality.tokenizer.axes, f"axes {axes} for {modality.tokenizer.axes} columns")
    for raw in config.part.example(0):
        values, coords = modality.tokens(raw)[:2]
        expect(len(values) and coords.shape == (len(values), len(axes)), f"coords {list(coords.shape)}")
        back = modality.raw(values, coords)
        expect(not modality.tokenizer.lossless or same(back, modality.check(raw)), f"gives {str(back)[:40]!r} back")


def check_length(config: Any) -> None:
    """Items are cut to `length` tokens, and the same generator gives the same tokens."""
    modality = made(config)
    short = config.replace(length=2).build()
    short.tokenizer = modality.tokenizer
    for raw in config.part.example(0):
        expect(len(short.tokens(raw).values) <= 2, "an item is longer than `length`")
        first, second = (modality.tokens(raw, numpy_generator(1)) for _ in range(2))
        expect(same(first.values, second.values), "the same generator gives other tokens")


def check_check(config: Any) -> None:
    """`check` leaves a checked item as it is, and refuses what is none in one line."""
    modality = made(config)
    for raw in config.part.example(1):
        once = modality.check(raw)
        expect(same(modality.check(once), once), "check changes an item that is checked already")
    wrong: Any
    for wrong in (None, {"a": 1}, [[]]):
        refusal(partial(modality.check, wrong), ValueError)


def check_shown(config: Any) -> None:
    """Facts, and one item as HTML that runs nothing."""
    modality = made(config)
    raws = config.part.example(2)
    for facts in (modality.summary(raws), modality.summary([])):
        expect(all(isinstance(name, str) and "\n" not in str(value) for name, value in facts.items()), f"facts {facts}")
    for raw in (raws[0], modality.raw(*modality.tokens(raws[0])[:2])):
        html = modality.html(raw)
        expect(html.startswith("<"), f"html gives {html[:40]!r}")
        expect(not re.search(r"<script|\son\w+=", html, re.I), "html would run a script")
        expect(isinstance(modality.plain(raw), str), "plain gives no text")
        ending, content = modality.file(raw)
        expect(ending.startswith(".") and isinstance(content, bytes), f"file gives {ending!r}")


def check_measured(config: Any) -> None:
    """What its tokenizers are measured by: edits that are items, content, units within the item, no error against
    itself."""
    modality = made(config)
    for index, raw in enumerate(config.part.example(3)):
        raw = modality.check(modality.excerpts(modality.check(raw))[0])
        first, again = (modality.edits(raw, numpy_generator("edits", index)) for _ in range(2))
        expect(list(first) == list(again), "edits gives other kinds of edits for the same item")
        for name, edited in first.items():
            expect(same(edited, again[name]), f"{name}: another edit for the same generator")
            expect(len(modality.tokens(edited).values) > 0, f"{name}: the edited item has no tokens")
        expect(isinstance(modality.content(raw), bytes), "content gives no bytes")
        units = modality.units(raw)
        if units is not None:
            expect(units.ndim == 2 and units.shape[1] == 2, f"units are {list(units.shape)}, not [k 2]")
            expect(bool((units[:, 0] < units[:, 1]).all() and (np.diff(units.ravel()) >= 0).all()), "units overlap")
        expect(modality.error(raw, raw) == 0, f"the error of an item against itself is {modality.error(raw, raw)}")


def check_features(config: Any) -> None:
    """Raw features are finite numbers, as many for each item, of which the training items alone decide; an item has the shingles
    that its copy has."""
    modality = made(config)
    train, test = ([modality.check(raw) for raw in config.part.example(seed)] for seed in (0, 1))
    for features in modality.features(train):
        alone, all_of_it = features.of(test[:1]), features.of(test)
        expect(all_of_it.ndim == 2 and len(all_of_it) == len(test), f"{features.name}: gives {all_of_it.shape}")
        expect(bool(np.isfinite(all_of_it).all()), f"{features.name}: not finite")
        expect(np.allclose(alone[0], all_of_it[0]), f"{features.name}: an item's depend on the others")
        expect(features.of(train).shape[1] == all_of_it.shape[1], f"{features.name}: test items have other columns")
    for raw in train[:3]:
        one, again = modality.shingles(raw), modality.shingles(raw)
        expect(one is None or same(one.hashes, again.hashes), "another time it has other shingles")
        expect(
            one is None or bool((np.diff(one.hashes.astype(object)) > 0).all()), "shingles are not each once, in order"
        )


def check_saves(config: Any) -> None:
    """Saved and restored it makes the same tokens."""
    modality = made(config)
    other = decode(type(config), encode(config)).build()
    with empty_folder() as folder:
        names = modality.save(folder)
        expect(sorted(names) == sorted(file.name for file in folder.iterdir()), f"save names {names}")
        other.restore(folder)
    for raw in config.part.example(0):
        expect(same(other.tokens(raw).values, modality.tokens(raw).values), "makes other tokens after being restored")
