"""Codes are learned, a decoder is trained over them, and pictures are drawn: from run folders alone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import sevenfold as sf


def draw(codes):
    """The recipe of docs/codes.md, smaller."""
    return {
        "data": {"kind": "digits", "limit": 300},
        "streams": {
            "caption": {"kind": "text", "tokenizer": {"kind": "bpe", "size": 300}, "ends": True},
            "image": {"kind": "image", "tokenizer": {"kind": "learned", "run": str(codes)}},
        },
        "trunks": {
            "mind": {
                "inputs": ["caption", "image"],
                "width": 48,
                "depth": 1,
                "class_token": True,
                "mask": {"causal": True},
                "position": {"kind": "learned", "size": 64},
            }
        },
        "objective": {"kind": "next_token", "orders": [["caption", "image"], ["image"]]},
        "train": {"steps": 30, "batch": 32, "optimizer": {"kind": "muon", "lr": 4e-3}},
    }


QUIET = {"say": lambda line: None, "bar": False}


@pytest.mark.parametrize(("name", "most"), [("tiny_codes", 0.08), ("tiny_codes_fsq", 0.08)])
def test_codes_are_learned_and_pictures_are_drawn_with_them(name, most, tmp_path):
    codes = sf.train(name, tmp_path / "codes", overrides=["train.steps=100"], **QUIET)
    held_out, baselines = codes.results["held_out"], codes.results["baselines"]
    assert held_out["mse"] < most < 0.3 * baselines["mean training item"]["mse"]
    assert held_out["perplexity"] > 15
    drawn = sf.train(draw(tmp_path / "codes"), tmp_path / "draw", **QUIET)
    shutil.rmtree(tmp_path / "codes")
    steps = [record["loss"] for record in drawn.log if "loss" in record]
    assert np.mean(steps[-5:]) < 0.9 * np.mean(steps[:3])
    model = sf.load(drawn.folder)
    tokenizer = model.modalities["image"].tokenizer
    assert tokenizer.layout().shape == (16, 2)
    (picture,) = model.generate(stream="image", given={"caption": "a five"})
    assert picture.shape == (8, 8, 1)
    assert np.isfinite(picture).all()
    assert "learned tokenizer" in (drawn.folder / "report.html").read_text()
    again = sf.evaluate(drawn.folder)
    assert again.values()["loss"] == pytest.approx(drawn.loss, abs=1e-6)
