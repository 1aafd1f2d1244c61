"""The round trip of every family (new ones are found by themselves): a folder of `transformers`, its training continued on one's own
files, published, and loaded by `transformers` again, with the same numbers."""

from __future__ import annotations

import importlib
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sevenfold as sf
from exchanged import reloaded, tokenizer
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds
from sevenfold.exchange.origin import family_of
from sevenfold.exchange.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))


def twins_of(kind: str) -> dict[str, Any]:
    """Name → function that makes a tiny random twin, as the family's parity tests say."""
    module = importlib.import_module(f"test_{kind}")
    found = getattr(module, "TINY", None) or {kind: getattr(module, "tiny", None)}
    return {name: make or (lambda: module.made(module.SHAPES[0])) for name, make in found.items()}


CASES = [(kind, name) for kind in kinds("family") for name in twins_of(kind)]


def published(kind: str, name: str, folder: Path) -> Any:
    """A twin, written into a folder with a tokenizer if it reads words."""
    reference = twins_of(kind)[name]().eval().float()
    reference.save_pretrained(folder)
    family = family_of(json.loads((folder / "config.json").read_text()))
    streams = family.model().streams
    if any(stream.kind == "text" for stream in streams.values()):
        special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
        own = tokenizer(folder, around=not any(trunk == "lm" for trunk in find("family", kind).states), **special)
        if family.objective.get("kind") == "span_corruption":
            own.add_tokens([f"<extra_id_{number}>" for number in range(15, -1, -1)], special_tokens=True)
            own.save_pretrained(folder)
    return reference


def own_data(model: sf.Model, folder: Path) -> dict[str, Any]:
    """A source for the streams of a model, of files that are written into a folder."""
    draw = np.random.default_rng(0)
    streams = model.config.streams
    reads = {
        name: stream.kind
        for name, stream in streams.items()
        if any(name in t.inputs for t in model.config.trunks.values())
    }
    labels = list(getattr(streams["label"].tokenizer, "labels", ())) if "label" in streams else []
    labels = (labels or ["one", "two"])[:2]
    words = ["a cat sat", "the dog ran home", "ten owls count leaves", "the hill and the mat"]
    if set(reads.values()) == {"text"} and len(reads) == 1:
        path = folder / "words.txt"
        path.write_text("\n".join(words[i % 4] + "." for i in range(120)))
        return {"kind": "text", "path": str(path)}
    if set(reads.values()) == {"text"}:
        path = folder / "pairs.jsonl"
        lines = [{name: f"{words[(i + k) % 4]} {i}" for k, name in enumerate(reads)} for i in range(24)]
        path.write_text("\n".join(map(json.dumps, lines)))
        return {"kind": "jsonl", "path": str(path)}
    if "protein" in reads.values():
        path = folder / "proteins.fasta"
        letters = list("ACDEFGHIKLMNPQRSTVWY")
        path.write_text("".join(f">p{i}\nM{''.join(draw.choice(letters, 14))}\n" for i in range(24)))
        return {"kind": "fasta", "path": str(path)}
    if "audio" in reads.values():
        for i in range(16):
            (folder / "sounds" / labels[i % 2]).mkdir(parents=True, exist_ok=True)
            with wave.open(str(folder / "sounds" / labels[i % 2] / f"{i}.wav"), "wb") as file:
                file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
                file.writeframes((draw.normal(0, 3000, 4000)).astype(np.int16).tobytes())
        return {"kind": "audio", "path": str(folder / "sounds")}
    vision = model.published["config"].get("vision_config", model.published["config"])
    size, channels = vision["image_size"], vision.get("num_channels", 3)
    rows = ["file,caption"]
    for i in range(24):
        inside = folder / "pictures" / ("" if "text" in reads.values() else labels[i % 2])
        inside.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (size, size, 3 if channels == 3 else 1), np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(inside / f"{i}.png")
        rows.append(f"{i}.png,{words[i % 4]} {i}")
    if "text" in reads.values():
        (folder / "pictures" / "captions.csv").write_text("\n".join(rows))
    return {"kind": "image_folder", "path": str(folder / "pictures")}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_round_trip(kind, name, tmp_path):
    torch.manual_seed(0)
    source = tmp_path / "published"
    reference = published(kind, name, source)
    model = sf.load_published(source)
    family = family_of(model.published["config"])
    for trunk, away in verify(source, model, family).items():
        assert max(away) < 1e-4, (trunk, away)
    recipe: dict[str, Any] = {"start": str(source), "data": own_data(model, tmp_path)}
    recipe["objective"] = dict(family.objective) or {"kind": "supervised", "pool": "mean"}
    if recipe["objective"]["kind"] == "supervised" and "label" not in model.config.streams:
        recipe["streams"] = {"label": {"kind": "label"}}
    optimizer = {"kind": "adamw", "lr": 1e-3}
    recipe["train"] = {"steps": 2, "batch": 4, "precision": "fp32", "evaluate_batches": 1, "optimizer": optimizer}
    run = sf.train(recipe, out=tmp_path / "run", say=lambda _: None, bar=False)
    passport = sf.convert(tmp_path / "run", tmp_path / "back", say=lambda _: None)
    assert passport.family["kind"] == kind
    again = reloaded(type(reference), tmp_path / "back")
    before, after = reference.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    moved = [key for key in before if before[key].is_floating_point() and not torch.equal(before[key], after[key])]
    assert len(moved) > len(before) / 4, "training changed hardly anything"
    for trunk, away in verify(tmp_path / "back", run.model, family).items():
        assert max(away) < 1e-4, (trunk, away)
    third = sf.load_published(tmp_path / "back")
    assert all(torch.equal(value, run.model.state_dict()[key]) for key, value in third.state_dict().items())
