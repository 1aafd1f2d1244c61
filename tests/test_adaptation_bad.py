"""Adapting to what cannot serve: one line each; several labels at once, and a label for every token."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

import sevenfold as sf
from exchanged import gpt2
from sevenfold.cli import main
from sevenfold.core.errors import SevenfoldError
from sevenfold.core.part import find
from sevenfold.data.recognise import recognise

FEW = {"kind": "digits", "limit": 60}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for objective in ("mae", "infonce", "supervised"):
        recipe = find("objective", objective).example()
        sf.train({**recipe, "train": {"steps": 2, "batch": 8}}, folder / objective, say=lambda _: None, bar=False)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (40, 8, 8)).astype(np.uint8)
    sorts = np.repeat(["cat", "dog"], 20)
    np.savez(folder / "one.npz", image=images, label=np.repeat(["cat"], 40))
    np.savez(folder / "lonely.npz", image=images, label=sorts)
    train, held_out = recognise(folder / "lonely.npz").build().split()
    sorts = sorts.copy()
    sorts[train[0]], sorts[held_out[0]] = "owl", "yak"
    np.savez(folder / "lonely.npz", image=images, label=sorts)
    np.savez(folder / "same.npz", image=np.zeros_like(images), label=sorts)
    gpt2(folder / "gpt2")
    (folder / "words.txt").write_text("the red wall falls\n" * 60)
    return folder


def told(home, run, data, method, *settings, target=None) -> tuple[str, list[str]]:
    """(the error, what was said before it)."""
    said: list[str] = []
    data = data if isinstance(data, dict) else home / data
    with pytest.raises(SevenfoldError) as error, tempfile.TemporaryDirectory() as place:
        sf.adapt(home / run, data, method, target=target, out=Path(place) / "out", settings=settings, say=said.append)
    assert "\n" not in str(error.value)
    return str(error.value), said


@pytest.mark.parametrize(
    ("run", "data", "method", "target", "settings", "wanted"),
    [
        ("mae", FEW, "probe", "lable", (), "target: the data has no field 'lable'; did you mean 'label'?"),
        ("mae", FEW, "probe", "image", (), "'image' is what the model reads"),
        ("mae", FEW, "porbe", "label", (), "no method is called 'porbe'; did you mean 'probe'?"),
        ("mae", FEW, "lora", "label", ("rnak=2",), "unknown field 'rnak'; did you mean 'rank'?"),
        ("mae", FEW, "lora", "label", ("targets=[qvk]",), "no projection is called 'qvk'; did you mean 'qkv'"),
        ("mae", FEW, "lora", "label", ("rank",), "'rank': a setting is written name=value"),
        ("mae", FEW, "probe", "label", ("trunk=encc",), "trunk: there is no 'encc'; did you mean 'enc'"),
        ("infonce", FEW, "probe", "label", (), "say which of ['v', 't']"),
        ("mae", "one.npz", "probe", None, (), "all training samples have the same 'label', 'cat'"),
        ("mae", "one.npz", "knn", None, (), "all training samples have the same 'label', 'cat'"),
        ("mae", "one.npz", "full", None, ("train.steps=1",), "all training samples have the same 'label', 'cat'"),
        ("mae", "same.npz", "probe", None, (), "the representations are all equal"),
        ("supervised", FEW, "test_time", "label", (), "it needs a run that learned without"),
        ("mae", FEW, "zero_shot", "label", (), "this needs a model of two towers"),
        ("infonce", FEW, "zero_shot", "label", ("templates=nowhere.txt",), "there is no file 'nowhere.txt'"),
        ("infonce", FEW, "zero_shot", "label", ("templates=[a digit]",), "'a digit' has no {}"),
        ("mae", FEW, "retrieval", None, (), "name the two fields whose items belong together"),
        ("infonce", FEW, "retrieval", None, ("fields=[image, captoin]",), "no field 'captoin'; did you mean 'caption'"),
        ("gpt2", "words.txt", "continue", None, (), "does not say what it learned from"),
        ("nowhere", FEW, "probe", None, (), "there is no such run folder"),
        ("mae", "nowhere.npz", "probe", None, (), "there is no such file or folder"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(home, run, data, method, target, settings, wanted):
    assert wanted in told(home, run, data, method, *settings, target=target)[0]


def test_a_class_with_one_sample_and_labels_that_were_never_seen_are_said(home, tmp_path, capsys):
    said: list[str] = []
    done = sf.adapt(home / "mae", home / "lonely.npz", "probe", out=tmp_path / "lonely", say=said.append)
    assert any("'owl'" in line and ("one training" in line or "alone" in line) for line in said)
    assert done.model.modalities["label"].tokenizer.size == 3
    unseen = json.loads((done.folder / "bad_samples.jsonl").read_text())  # in the held-out part
    assert "the label 'yak' was not in the training data" in unseen["why"]
    assert main(["predict", str(home / "mae"), "digits", "-o", str(tmp_path / "x.csv")]) == 2
    assert "predicts no label or number; give it a head first" in capsys.readouterr().err
    assert main(["predict", str(done.folder), "digits", "-o", str(tmp_path / "x.xls")]) == 2
    assert (
        main(["adapt", str(home / "mae"), "digits", "--method", "probe", "--target", "label", "--out", str(home)]) == 2
    )
    assert "is not empty" in capsys.readouterr().err


def test_several_labels_and_a_label_for_every_token(tmp_path):
    draw = np.random.default_rng(0)
    rows = []
    for _ in range(240):
        text = "".join(draw.choice(list("abcde "), draw.integers(6, 20)))
        tags = "".join("V" if letter in "ae" else "C" if letter in "bcd" else "S" for letter in text)
        has = [name for name, letter in (("has b", "b"), ("has d", "d")) if letter in text]
        rows.append({"text": text, "tags": tags, "has": ";".join(has)})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"kind": "jsonl", "path": str(tmp_path / "rows.jsonl"), "held_out": 0.2}
    streams = {"text": {"kind": "text", "tokenizer": "characters"}}
    trunks = {"enc": {"inputs": ["text"], "width": 32, "depth": 1}}
    recipe = {
        "data": data,
        "streams": streams,
        "trunks": trunks,
        "objective": "masked_token",
        "train": {"steps": 40, "batch": 16},
    }
    sf.train(recipe, tmp_path / "run", say=lambda _: None, bar=False)
    quiet = {"say": lambda _: None}
    tagged = sf.adapt(
        tmp_path / "run",
        data,
        "probe",
        target="tags",
        out=tmp_path / "tags",
        settings=["streams.tags.kind=token_labels"],
        **quiet,
    )
    assert tagged.figures["this model"]["accuracy"] > tagged.figures["majority class"]["accuracy"] + 0.2
    said = sf.predict(tagged.folder, data)
    assert said.scores[0].shape == (len(rows[0]["text"]), 3) and np.allclose(said.scores[0].sum(-1), 1)
    right = [a == b for row, tags in zip(rows, said.values) for a, b in zip(row["tags"], tags, strict=True)]
    assert np.mean(right) > tagged.figures["majority class"]["accuracy"] + 0.2
    several = sf.adapt(
        tmp_path / "run",
        data,
        "probe",
        target="has",
        out=tmp_path / "has",
        settings=["streams.has.kind=labels"],
        **quiet,
    )
    said = sf.predict(several.folder, data)
    hits = sum(len({*row["has"].split(";")} & {*value}) for row, value in zip(rows, said.values))
    f1 = 2 * hits / (sum(len(row["has"].split(";")) for row in rows if row["has"]) + sum(map(len, said.values)))
    assert f1 > 0.8 and said.classes == ["has b", "has d"] and "f1" in several.figures["this model"]
    with pytest.raises(SevenfoldError, match="has a label for every token"):
        sf.adapt(
            tmp_path / "run",
            data,
            "knn",
            target="tags",
            out=tmp_path / "near",
            settings=["streams.tags.kind=token_labels"],
            **quiet,
        )
