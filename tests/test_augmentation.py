"""What modalities declare as views of their items: whole looks and pieces, and learning from them."""

from __future__ import annotations

import numpy as np
import pytest

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.core.seeds import numpy_generator
from sevenfold.data.source import Source
from sevenfold.data.view import View
from sevenfold.modality import Augmentation, check_views
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe

SHORTER = {"text", "dna", "protein", "series", "audio", "actions", "structure", "points", "image"}
"""Modalities whose pieces have fewer tokens; those of others are whole items with more of them hidden, or enlarged."""
DECLARE = SHORTER | {"molecule", "cells", "table", "microscopy"}
"""Modalities that must have views. One that declares none learns by dropout alone."""


class Examples(Source):
    """The example items of a modality."""

    class Config(Source.Config):
        modality: str = "image"

    def __init__(self, config):
        super().__init__(config)
        self.raws = list(find("modality", config.modality).example(0))

    @property
    def fields(self):
        return {"item": self.config.modality}

    def __len__(self):
        return len(self.raws)

    def __getitem__(self, index):
        return {"item": self.raws[index]}

    def split(self):
        held_out = len(self) // 3
        return list(range(held_out, len(self))), list(range(held_out))


def made(kind: str):
    modality = decode(find("modality", kind).Config, {}).build()
    modality.fit(modality.example(0))
    return modality


def views(config: list) -> list[View]:
    return [decode(find("view", one["kind"]).Config, one).build() for one in config]


@pytest.mark.parametrize("kind", kinds("modality"))
def test_looks_of_an_item_are_its_own(kind):
    """Every declared view is one that the modality has, and changes most items; pieces have fewer tokens."""
    modality = made(kind)
    found = modality.augmentation()
    assert found != Augmentation() or kind not in DECLARE
    for part in found:
        check_views(views(part), modality, kind)
    if found == Augmentation():
        return
    raws = modality.example(3)
    tokens = {
        name: [modality.look(raw, None, numpy_generator(name, place), views(part)) for place, raw in enumerate(raws)]
        for name, part in (("1", found.whole), ("2", found.whole), ("piece", found.part), ("none", ()))
    }
    content = {
        name: [(one.values.tobytes(), np.asarray(one.coords).tobytes()) for one in every]
        for name, every in tokens.items()
    }
    other = sum(a != b for a, b in zip(content["1"], content["2"]))
    assert other > len(raws) / 2, f"{other} of {len(raws)} items look different"
    shorter, plain = (np.mean([len(one.values) for one in tokens[name]]) for name in ("piece", "none"))
    assert shorter < 0.6 * plain if kind in SHORTER else shorter <= plain


@pytest.mark.parametrize("kind", kinds("modality"))
def test_simclr_learns_from_every_modality(kind):
    """A few steps on the example items by what the modality declares; where it declares nothing, by dropout."""
    trunk = {"inputs": ["item"], "width": 16, "depth": 1, "position": "none", "block": {"nonlinearity": None}}
    recipe = {
        "data": Examples.Config(modality=kind),
        "streams": {"item": {"kind": kind}},
        "trunks": {"enc": {**trunk, "dropout": 0.2 if made(kind).augmentation() == Augmentation() else 0.0}},
        "objective": {"kind": "simclr", "hidden": 16, "width": 8},
        "train": {"steps": 3, "batch": 4, "precision": "fp32", "evaluate_batches": 1, "evaluate_every": 3},
    }
    ready = prepare(read_recipe(recipe))
    before = [parameter.detach().clone() for parameter in ready.model.parameters()]
    done = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bad=ready.bad)
    losses = [record["loss"] for record in done.log if "loss" in record]
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert any((a != b).any() for a, b in zip(before, ready.model.parameters()))
    assert not len(ready.bad), list(ready.bad.listed)


def test_a_modality_without_views_asks_for_dropout():
    recipe = {
        "data": Examples.Config(modality="number"),
        "streams": {"item": {"kind": "number"}},
        "trunks": {"enc": {"inputs": ["item"], "width": 16, "depth": 1, "position": "none"}},
        "objective": {"kind": "simclr"},
    }
    with pytest.raises(ConfigError, match="number items have no views of their own.*trunks.enc.dropout"):
        prepare(read_recipe(recipe))


@pytest.mark.parametrize("where", ["objective", "streams"])
def test_views_that_a_modality_does_not_have_are_refused_before_data_is_read(where):
    """The file does not even exist."""
    recipe = {
        "data": {"kind": "fasta", "path": "not/there.fasta"},
        "streams": {"protein": {"kind": "protein", "views": [{"kind": "flip"}] if where == "streams" else []}},
        "trunks": {"enc": {"inputs": ["protein"], "width": 16, "depth": 1}},
        "objective": {"kind": "simclr", "views": [{"kind": "flip"}] if where == "objective" else None},
    }
    with pytest.raises(
        ConfigError, match=f"{where}.*views: flip changes items of image and microscopy, not of protein"
    ):
        prepare(read_recipe(recipe))


def test_pieces_of_pictures_are_whole_patches():
    modality = decode(find("modality", "image").Config, {"tokenizer": {"kind": "patch", "patch": 4}}).build()
    raws = [np.random.default_rng(seed).random((28, 20, 1)).astype(np.float32) for seed in range(8)]
    modality.fit(raws)
    size = modality.augmentation().part[0]["size"]
    assert size == [12, 8]
    piece = modality.look(raws[0], None, numpy_generator(0), views(modality.augmentation().part))
    assert piece.coords.max(0).tolist() == [2, 1] and len(piece.values) == 6


def test_coloured_pictures_are_seen_in_other_light():
    modality = made("image")
    kinds_of = [one["kind"] for one in modality.augmentation().whole]
    assert ("colour" in kinds_of) == (modality.tokenizer.channels == 3)
    assert "flip" not in kinds_of
