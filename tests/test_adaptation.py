"""Adapting on real digits: what each method finds, against scikit-learn, loops in float64, and what it must leave alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

import sevenfold as sf
from sevenfold.adaptation._features import batches, features
from sevenfold.adaptation._towers import towered, towers_of
from sevenfold.adaptation.method.retrieval import by_chance, recall
from sevenfold.adaptation.method.test_time import PLAIN, TestTime, TestTimeWay, items_for, verdict
from sevenfold.adaptation.readout import knn, probe
from sevenfold.cli import main
from sevenfold.core.part import decode, find
from sevenfold.training.load import load_objective
from sevenfold.training.look import evaluate
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from tiny import text_file

AXIAL = {"position": {"kind": "axial_rotary"}}
MAE = {
    "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}},
    "trunks": {
        "enc": {"inputs": ["image"], "width": 32, "depth": 2, **AXIAL},
        "dec": {"inputs": ["enc"], "width": 32, "depth": 1, **AXIAL},
    },
    "objective": {"kind": "mae", "ratio": 0.5},
    "train": {"steps": 80, "batch": 48, "precision": "fp32", "optimizer": {"kind": "adamw", "lr": 4e-3}, "evaluate_every": 80},
}  # fmt: skip


def quiet(*args, **more) -> sf.Run:
    return sf.train(*args, say=lambda _: None, bar=False, **more)


def adapted(run, data, method, out, *settings, **more):
    return sf.adapt(run, data, method, out=out, settings=settings, say=lambda _: None, **more)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Digits 0 … 4, negatives of 5 … 9, and noisy ones as files; an autoencoder of the first five."""
    folder = tmp_path_factory.mktemp("adaptation")
    levels, labels = load_digits(return_X_y=True)
    images = np.rint(levels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 60, images.shape)
    light = (images.mean((1, 2)) / 10).round(3)
    several = {"image": images, "label": labels, "light": light}
    sets = {
        "low": {name: value[labels < 5] for name, value in several.items()},
        "high": {"image": 255 - images[labels >= 5], "label": labels[labels >= 5]},
        "noisy": {"image": np.clip(images + noise, 0, 255).astype(np.uint8)[1500:], "label": labels[1500:]},
    }
    for name, arrays in sets.items():
        np.savez(folder / f"{name}.npz", **arrays)
    quiet({**MAE, "data": {"kind": "arrays", "path": str(folder / "low.npz"), "held_out": 0.2}}, out=folder / "mae")
    return folder


# Read-outs
@pytest.mark.parametrize("strength", [1e-2, 1.0])
def test_a_probe_is_that_of_scikit_learn(strength):
    x, y = load_digits(return_X_y=True)
    x, new, y = x[:600] + 3, x[600:800] + 3, y[:600]
    scaler = StandardScaler().fit(x)
    wanted = LogisticRegression(C=strength, max_iter=300).fit(scaler.transform(x), y)
    found = probe(x, y, strengths=(strength,))
    assert np.allclose(found.scores(new), wanted.predict_proba(scaler.transform(new)), atol=1e-6)
    assert np.array_equal(found.predict(new), wanted.predict(scaler.transform(new)))
    two = y < 2
    wanted = LogisticRegression(C=strength, max_iter=300).fit(StandardScaler().fit_transform(x[two]), y[two])
    found = probe(x[two], y[two], strengths=(strength,))
    assert np.allclose(found.scores(x[two]), wanted.predict_proba(StandardScaler().fit_transform(x[two])), atol=1e-6)
    numbers = x[:, 20:22]
    wanted = Ridge(alpha=1 / strength).fit(scaler.transform(x), numbers)
    assert np.allclose(
        probe(x, numbers, "numbers", strengths=(strength,)).predict(new), wanted.predict(scaler.transform(new))
    )


def test_the_strength_is_chosen_on_samples_that_were_not_fitted():
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 60)
    x = np.concatenate([y[:, None] + draw.normal(0, 1, (60, 1)), draw.normal(0, 1, (60, 80))], 1)
    found = probe(x, y)  # more features than samples: a weak penalty learns the noise by heart
    assert found.settings["strength"] <= 0.1 and len(found.settings["tried"]) == 6


def test_neighbours_are_those_of_a_loop():
    x, y = load_digits(return_X_y=True)
    x, new, y = x[:80], x[80:100], y[:80]
    found = knn(x, y, k=7, temperature=0.1).scores(new)
    for row, z in enumerate(new):
        cosine = np.array([z @ other / np.sqrt((z @ z) * (other @ other)) for other in x])
        near = np.argsort(-cosine)[:7]
        weight = np.array([sum(np.exp(cosine[i] / 0.1) for i in near if y[i] == c) for c in range(10)])
        assert np.allclose(found[row], weight / weight.sum(), atol=1e-12)


def test_a_probe_becomes_the_head(home, tmp_path):
    done = adapted(home / "mae", "digits", "probe", tmp_path / "probe", target="label")
    assert done.figures["this model"]["accuracy"] > done.figures["majority class"]["accuracy"] + 0.4
    ready = prepare(read_recipe(done.folder), tokenizers=done.folder)
    ready.objective.load_state_dict(load_objective(done.folder).state_dict())
    train, held = (features(ready.model, items, "label") for items in (ready.train_items, ready.held_out_items))
    read = probe(train.x, train.y)
    said = sf.predict(done.folder, "digits")
    assert said.target == "label" and said.classes == [str(c) for c in range(10)]
    assert np.allclose(np.stack(said.scores)[ready.held_out_items.indices], read.scores(held.x), atol=1e-4)
    right = np.array([said.values[i] == str(y) for i, y in zip(ready.held_out_items.indices, held.y)])
    assert right.mean() == pytest.approx(done.figures["this model"]["accuracy"])
    # the trunk is the run's own, and the figures are printed again
    first, last = sf.load(home / "mae").state_dict(), done.model.state_dict()
    assert all(torch.equal(value, first[name]) for name, value in last.items() if name.startswith("trunks."))
    again = evaluate(ready.objective, ready.held_out, ready.recipe.train, ready.recipe.seed)
    assert again["accuracy"] == done.figures["this model"]["accuracy"]
    # tables of what it says
    for ending in ("csv", "jsonl", "parquet"):
        assert main(["predict", str(done.folder), "digits", "-o", str(tmp_path / f"said.{ending}")]) == 0
    rows = list(csv.DictReader((tmp_path / "said.csv").open()))
    lines = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == [line["label"] for line in lines] == said.values
    assert float(rows[3]["p_4"]) == pytest.approx(said.scores[3][4], rel=1e-5)


def test_numbers_and_neighbours(home, tmp_path):
    near = adapted(home / "mae", home / "low.npz", "knn", tmp_path / "near", "k=5", target="label")
    said = sf.predict(near.folder, home / "low.npz")
    assert near.figures["this model"]["accuracy"] > near.figures["majority class"]["accuracy"] + 0.2 and np.allclose(
        np.sum(said.scores, 1), 1
    )
    numbers = adapted(home / "mae", home / "low.npz", "probe", tmp_path / "light", target="light")
    assert numbers.figures["this model"]["mse"] < 0.5 * numbers.figures["mean"]["mse"]
    said = sf.predict(numbers.folder, home / "low.npz")
    wanted = np.load(home / "low.npz")["light"]
    assert said.classes is None and np.corrcoef(np.array(said.values, float), wanted)[0, 1] > 0.8


def test_heads_and_weights_are_tuned_as_they_say(home, tmp_path):
    first = sf.load(home / "mae").state_dict()
    few = ("train.steps=15", "data.limit=300", "train.evaluate_every=15")
    for method, moved in (("frozen", False), ("full", True)):
        done = adapted(home / "mae", home / "low.npz", method, tmp_path / method, *few, target="label")
        last = done.model.state_dict()
        shared = [name for name in last if name in first]
        assert {torch.equal(first[name], last[name]) for name in shared} == {not moved}
        assert f"adapt {home / 'mae'}" in (done.folder / "README.md").read_text()


# Going on
def test_replay_and_low_rank_forget_less(home, tmp_path):
    more = ("train.steps=24", "train.batch=32", "train.optimizer.lr=3e-3", "train.evaluate_every=12")
    found = {}
    for name, settings in (
        ("plain", ()),
        ("replay", ("replay=0.5",)),
        ("lora", ("adapter={kind: lora, rank: 2, alpha: 2}",)),
    ):
        done = adapted(home / "mae", home / "high.npz", "continue", tmp_path / name, *more, *settings)
        found[name] = done.record
        assert list(done.record["meter"]) == ["0", "12", "24"]
        assert done.record["gained"] > 0
    assert found["plain"]["meter"]["0"] == found["replay"]["meter"]["0"] == found["lora"]["meter"]["0"]
    assert found["replay"]["forgotten"] < found["plain"]["forgotten"]
    assert found["lora"]["forgotten"] < found["plain"]["forgotten"]
    old, new = sf.load(home / "mae").state_dict(), sf.load(tmp_path / "lora").state_dict()
    assert all(torch.equal(value, new[name]) for name, value in old.items())  # taken off, nothing is forgotten


def test_replayed_samples_are_the_share_that_is_asked_for_and_none_that_is_tested(home):
    source = decode(
        find("source", "replay").Config,
        {
            "new": {"kind": "digits", "limit": 300},
            "old": {"kind": "digits", "limit": 400},
            "share": 0.25,
            "held_out": 0.2,
        },
    ).build()
    train, held_out = source.split()
    old = [index for index in train if "(replay" in source.where(index)]
    assert len(old) / len(train) == pytest.approx(0.25, abs=0.005)
    assert not {source.key(index) for index in old} & {source.key(index) for index in held_out}


# At test time
def test_adapting_at_test_time_leaves_the_model_as_it_was(home, tmp_path):
    settings = ("steps=4", "batch=100", f"test={home / 'noisy.npz'}", "optimizer.lr=0.002")
    done = adapted(home / "mae", "digits", "test_time", tmp_path / "tt", *settings, target="label")
    steps = done.record["by_step"]
    assert list(steps) == ["held out", "test"] and list(steps["test"]) == ["0", "1", "2", "4"]
    told = (done.folder / "README.md").read_text()
    better, worse, size = (done.record[name] for name in ("better", "worse", "samples"))
    gain = steps["test"]["4"]["accuracy"] - steps["test"]["0"]["accuracy"]
    assert (better - worse) / size == pytest.approx(gain)
    line = f"Adapting at test time {verdict(better, worse)}: {better} of {size} answers got better, {worse} worse."
    assert line in told and line in done.lines
    # the head read plain representations: without a step it is a probe
    plain = adapted(home / "mae", "digits", "probe", tmp_path / "probe", target="label")
    assert steps["held out"]["0"]["accuracy"] == plain.figures["this model"]["accuracy"]
    objective = load_objective(done.folder)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    way = TestTimeWay(
        objective,
        "enc",
        "label",
        decode(TestTime.Config, {"steps": 3, "copies": 2, "optimizer": {"kind": "adamw", "lr": 1e-3}}),
    )
    ready = prepare(read_recipe(done.folder), tokenizers=done.folder)
    batch = next(batches(ready.held_out_items, 16))[0]
    first, again = way(batch, [0, 3]), way(batch, [0, 3])
    assert np.array_equal(first[3], again[3]) and not np.allclose(first[0], first[3], atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    said = sf.predict(done.folder, {"kind": "digits", "limit": 20})
    assert np.shape(said.scores) == (20, 10)


def test_what_is_said_of_adapting_is_more_than_chance():
    """2^-5 on each side is more than 5 % of a fair coin, 2^-6 is not."""
    assert [verdict(*changes)[:6] for changes in ((0, 0), (5, 0), (6, 0), (0, 6), (60, 40))] == [
        "makes ", "makes ", "helps ", "harms ", "makes ",
    ]  # fmt: skip


def test_norms_of_the_test_batch(tmp_path):
    """`by_batch`: norms take the statistics of the batch while it is adapted to; nothing of it stays. simclr takes looks at it."""
    block = {"mixer": {"kind": "grid_conv", "groups": 1}, "nonlinearity": None, "norm": "batch"}
    recipe = {
        "data": {"kind": "digits", "held_out": 0.2},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}},
        "trunks": {"enc": {"inputs": ["image"], "width": 16, "depth": 2, "position": "none", "block": block}},
        "objective": {"kind": "simclr", "views": [{"kind": "affine", "degrees": 10, "pixels": 1}]},
        "train": {"steps": 30, "batch": 64, "precision": "fp32", "optimizer": {"kind": "muon", "lr": 0.01}},
    }
    quiet(recipe, out=tmp_path / "run")
    settings = ("views=[{kind: noise, deviation: 1.5}]", "batch=400", "steps=2", "by_batch=true", "optimizer.lr=1e-3")
    done = adapted(tmp_path / "run", "digits", "test_time", tmp_path / "tt", *settings, target="label")
    noisy, clean = (done.record["by_step"][name] for name in ("changed", "held out"))
    assert list(noisy) == ["plain", "0", "1", "2"] and done.figures["without adapting"] == noisy["plain"]
    assert clean["plain"]["accuracy"] > noisy["plain"]["accuracy"] + 0.2  # the noise does harm
    objective = load_objective(done.folder)
    ready = prepare(read_recipe(done.folder), tokenizers=done.folder)
    items = items_for(ready, ready.source, ready.held_out_items.indices)
    batch = next(batches(items, 100))[0]
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    way = TestTimeWay(objective, "enc", "label", decode(TestTime.Config, {"steps": 0, "by_batch": True}))
    found = way(batch, [PLAIN, 0])
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    with torch.no_grad():
        for mode, scores in ((False, found[PLAIN]), (True, found[0])):
            objective.train(mode)  # no dropout in it
            logits = objective.model.head("label", objective.model.trunks["enc"]({"image": batch["image"]}).x.mean(1))
            np.testing.assert_allclose(logits.softmax(-1).numpy(), scores, atol=1e-5)
    assert np.abs(found[PLAIN] - found[0]).max() > 0.01


# Two towers
@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "clip"
    recipe = find("objective", "infonce").example()
    quiet({**recipe, "data": "digits", "train": {"steps": 20, "batch": 48, "precision": "fp32"}}, out=folder)
    return folder


def test_classes_by_their_names(clip, tmp_path):
    (tmp_path / "templates.txt").write_text("the digit {}\n\nthis is a {}\n")
    command = [
        "adapt",
        str(clip),
        "digits",
        "--method",
        "zero_shot",
        "--target",
        "label",
        "--out",
        str(tmp_path / "zero"),
    ]
    assert main([*command, "--templates", str(tmp_path / "templates.txt")]) == 0
    record = json.loads((tmp_path / "zero/adaptation.json").read_text())
    model, said = sf.load(clip), sf.predict(tmp_path / "zero", "digits")
    picture, text = towers_of(model)
    classes = [str(c) for c in range(10)]
    means = np.stack([towered(model, text, [f"the digit {c}", f"this is a {c}"]).mean(0) for c in classes])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    source = decode(find("source", "digits").Config, {}).build()
    held_out = source.split()[1]
    cosine = towered(model, picture, [source[i]["image"] for i in held_out]) @ means.T
    right = np.array([classes[best] == source[i]["label"] for best, i in zip(cosine.argmax(1), held_out)])
    assert record["figures"]["this model"]["accuracy"] == pytest.approx(right.mean())
    assert record["figures"]["chance"]["accuracy"] == 0.1
    assert [said.values[i] for i in held_out] == [classes[best] for best in cosine.argmax(1)]


def test_partners_are_found_as_a_loop_finds_them(clip, tmp_path):
    draw = np.random.default_rng(0)
    score, match = draw.normal(size=(30, 30)), draw.random((30, 30)) < 0.05
    for k in (1, 4, 40):
        hits = [any(match[i, j] for j in sorted(range(30), key=lambda j: -score[i, j])[:k]) for i in range(30)]
        assert recall(score, match, k) == np.mean(hits)
        drawn = [match[i][draw.permutation(30)[:k]].any() for i in range(30) for _ in range(300)]
        assert by_chance(match, k) == pytest.approx(np.mean(drawn), abs=0.02)
    done = adapted(clip, "digits", "retrieval", tmp_path / "pairs")
    assert done.figures["this model"].keys() == done.figures["chance"].keys()
    model = sf.load(clip)
    source = decode(find("source", "digits").Config, {}).build()
    held_out = [source[index] for index in source.split()[1]]
    u, v = (towered(model, tower, [s[tower.stream] for s in held_out]) for tower in towers_of(model))
    hits = 0
    for one, sample in zip(u, held_out):  # equal captions are partners as well
        near = np.argsort(-(v @ one), kind="stable")[:5]
        hits += any(held_out[place]["caption"] == sample["caption"] for place in near)
    assert done.figures["this model"]["image to caption, recall@5"] == pytest.approx(hits / len(held_out))


# New words
@pytest.mark.parametrize(("kind", "word"), [("bpe", "sevenfold"), ("wordpiece", "redwall"), ("published", "sevenfold")])
@torch.no_grad()
def test_new_words_leave_old_ids_and_what_is_said_of_them_alone(kind, word, tmp_path):
    from exchanged import gpt2

    if kind == "published":
        gpt2(tmp_path / "run", vocab_size=270)
        model = sf.load_published(tmp_path / "run")
    else:
        data = {"kind": "text", "path": str(text_file(tmp_path, 3000))}
        streams = {"text": {"kind": "text", "tokenizer": {"kind": kind, "size": 300}, "length": 16}}
        trunks = {"enc": {"inputs": ["text"], "width": 16, "depth": 1}}
        train = {"steps": 1, "batch": 2, "precision": "fp32"}
        recipe = {"data": data, "streams": streams, "trunks": trunks, "objective": "masked_token", "train": train}
        model = quiet(recipe, out=tmp_path / "run").model
    name = next(iter(model.modalities))
    old = model.modalities[name].tokenizer
    longer = sf.extend_vocabulary(model, [word])
    new, text = longer.modalities[name].tokenizer, f"the red {word} falls"
    plain = "the red wall falls"
    assert new.size == old.size + 1 and np.array_equal(new.encode(plain).values, old.encode(plain).values)
    ids = new.encode(text).values
    assert (ids == old.size).sum() == 1 and len(ids) <= len(old.encode(text).values)
    assert new.decode(ids) == text
    trunk = next(iter(model.trunks))
    table, before = (m.trunks[trunk].embeds[name].weight for m in (longer, model))
    assert torch.equal(table[:-1], before)
    pieces = torch.as_tensor(old.encode(word).values)
    assert torch.allclose(table[-1], before[pieces].mean(0), atol=1e-7)
    batch, other = model.tokenize([plain]), longer.tokenize([plain])
    x, y = model(batch)[trunk].x, longer(other)[trunk].x
    assert torch.equal(x, y)
    assert torch.allclose(longer.head("text", y)[..., :-1], model.head("text", x), atol=1e-6)
    if kind != "published":  # it is kept
        new.save(tmp_path / "kept")
        again = new.config.build()
        again.restore(tmp_path / "kept")
        assert np.array_equal(again.encode(text).values, ids)
    with pytest.raises(sf.SevenfoldError, match="in the vocabulary already"):
        sf.extend_vocabulary(longer, [word])
