"""Targets of several labels, and of a label for every token: against loops, scikit-learn, and bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from byhand import log_softmax
from sevenfold.core.errors import BadSample, ConfigError, DataError
from sevenfold.core.part import find
from sevenfold.data.loader import gather
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from tiny import made

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def proteins(folder, count=60, seed=0, **more):
    """A file of short proteins with what is known of them: `ss`, a letter for each residue (`-` unknown), and `terms`."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        letters = "".join(draw.choice(list(LETTERS), draw.integers(6, 15)))
        ss = "".join("-" if draw.random() < 0.1 else "H" if letter in "AEKLMQR" else "C" for letter in letters)
        terms = [name for name in ("binds", "cuts", "glows") if draw.random() < 0.5]
        rows.append({"protein": letters, "ss": ss, "terms": terms, **more})
    return write(folder, rows)


def write(folder, rows):
    path = folder / "proteins.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(path, target="ss", kind="token_labels", fields=None, data=None, **objective):
    given = {"protein": "protein", target: "text"} if fields is None else fields
    return {
        "data": {"kind": "jsonl", "path": str(path), "held_out": 0.2, "fields": given, **(data or {})},
        "streams": {"protein": {"kind": "protein", "ends": True}, target: {"kind": kind}},
        "trunks": {"enc": {"inputs": ["protein"], "width": 16, "depth": 1, "class_token": True}},
        "objective": {"kind": "supervised", **objective},
        "train": {"precision": "fp32"},
    }


@torch.no_grad()
def test_labels_of_tokens_against_a_loop(tmp_path):
    """The label at place i is of residue i, whatever stands in front of it; unknown places and rows without labels are left
    out."""
    ready = made(recipe(proteins(tmp_path)))
    assert ready.recipe.heads["ss"].pool == "none"
    raws = ready.samples(6)
    raws[1]["ss"] = raws[4]["protein"] = None
    batch = ready.model.tokenize(raws)
    loss = ready.objective(batch)
    total, count, right = 0.0, 0, 0
    for raw in raws:
        if raw["ss"] is None or raw["protein"] is None:
            continue
        x = ready.model({"protein": ready.model.tokenize([{"protein": raw["protein"]}])["protein"]})["enc"].x[0]
        logits = ready.model.head("ss", x)[2:, :2].double()  # behind the class and the begin token; C and H
        for place, letter in enumerate(raw["ss"]):
            if letter != "-":
                total -= log_softmax(logits[place].tolist())["CH".index(letter)]
                right += int(logits[place].argmax()) == "CH".index(letter)
                count += 1
    assert float(loss.count) == count > 20
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert int(loss.terms["accuracy"][0]) == right
    assert float(ready.objective.targets(batch, {})) == count
    assert ready.objective.initial(batch) == math.log(2)


@torch.no_grad()
def test_several_labels_against_a_loop_and_sklearn(tmp_path):
    ready = made(recipe(proteins(tmp_path), "terms", "labels"))
    raws = ready.samples(12)
    raws[3]["terms"] = None
    known = [raw for raw in raws if raw["terms"] is not None]
    batch = ready.model.tokenize(raws)
    loss = ready.objective(batch)
    logits = ready.objective.guess(batch)[[raw["terms"] is not None for raw in raws]].double()
    sets = [raw["terms"].split("\n") if raw["terms"] else [] for raw in known]
    truth = MultiLabelBinarizer(classes=["binds", "cuts", "glows"]).fit_transform(sets)
    values = batch["terms"].values[:, 0][[raw["terms"] is not None for raw in raws]]
    assert np.array_equal(values.numpy(), truth)
    total = 0.0
    for row, wanted in zip(logits.tolist(), truth):
        total -= sum(math.log(1 / (1 + math.exp(-x if y else x))) for x, y in zip(row, wanted)) / 3
    assert float(loss.total) == pytest.approx(total, rel=1e-5) and float(loss.count) == 11
    hits, of = (float(value) for value in loss.terms["f1"])
    assert hits / of == pytest.approx(f1_score(truth, (logits > 0).numpy(), average="micro", zero_division=0))


@torch.no_grad()
def test_weights_of_classes_are_those_of_torch(tmp_path):
    plain, weighted = (made(recipe(proteins(tmp_path), weights=given)) for given in ({}, {"H": 3.0}))
    weighted.model.load_state_dict(plain.model.state_dict())
    batch = gather([plain.train[0, i] for i in range(8)])[0]
    known = plain.objective.known(batch)
    logits = plain.objective.guess(batch)[:, : known.shape[1]][known]
    target = batch["ss"].values[:, : known.shape[1]][known]
    wanted = torch.nn.functional.cross_entropy(logits, target, torch.tensor([1.0, 3.0]))
    assert float(weighted.objective(batch).mean) == pytest.approx(float(wanted), rel=1e-5)
    assert float(weighted.objective.targets(batch, {})) == float(weighted.objective(batch).count)
    with pytest.raises(ConfigError, match="weights: there is no label 'HH'; did you mean 'H'"):
        made(recipe(proteins(tmp_path), weights={"HH": 2.0}))


def test_the_label_of_a_residue_is_learned_and_beside_it_stands_a_window(tmp_path):
    """Which label a residue has is told by its letter alone: a few steps are enough, and a linear window knows it too."""
    ready = made(recipe(proteins(tmp_path, 40)))
    objective = ready.objective.train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    batch = gather([ready.train[0, i] for i in range(len(ready.train))])[0]
    for _ in range(60):
        loss = objective(batch).mean
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    held = gather([ready.held_out[0, i] for i in range(len(ready.held_out))])[0]
    right, of = objective.eval()(held).terms["accuracy"]
    beside = objective.baselines([batch], [held])
    assert float(right / of) > 0.95 > beside["majority class"]["accuracy"] + 0.2
    assert beside["logistic regression on a window of 15 tokens"]["accuracy"] > 0.9
    shown = objective.exhibits(ready.samples(3))[0]
    assert shown.columns == ["protein", "true", "predicted"]
    assert all(len(row[1][1]) == len(row[2][1]) == len(row[0][1]) for row in shown.rows)


def test_labels_that_do_not_fit_their_sequence_are_bad_samples(tmp_path):
    path = write(
        tmp_path, [{"protein": "ACDEFG" + LETTERS[i % 20], "ss": "HHHCCC" + "C" * (i != 3)} for i in range(80)]
    )
    ready = prepare(read_recipe(recipe(path, data={"bad_share": 0.5})))
    found = [items[0, i] for items in (ready.train_items, ready.held_out_items) for i in range(len(items))]
    bad = [str(one) for one in found if isinstance(one, BadSample)]
    assert len(bad) == 1 and "ss has 6 labels, and protein 7 tokens: there must be one for each" in bad[0]
    with pytest.raises(ConfigError, match="objective.of: 'proteins' is not one of"):
        prepare(read_recipe(recipe(path, of="proteins")))


def test_what_is_odd_about_labels_is_said(tmp_path):
    """Missing ones, a class with one sample, a label that training never had."""
    rows = [
        {"protein": LETTERS[i % 20] + "ACDEFGACD" * (1 + i % 3) + LETTERS[i // 20], "kind": "ab"[i % 2]}
        for i in range(200)
    ]
    for row in rows[:30]:
        row["kind"] = None
    rows[50]["kind"] = "alone"
    path, told = write(tmp_path, rows), []
    fields = {"protein": "protein", "kind": "label"}
    with pytest.raises(DataError, match="name it in data.partly if some samples may lack it"):
        prepare(read_recipe(recipe(path, "kind", "label", fields)))
    ready = prepare(read_recipe(recipe(path, "kind", "label", fields, {"partly": ["kind"]})), note=told.append)
    train = len(ready.train_items)
    lost = sum("kind" not in ready.train_items[0, i] for i in range(train))
    assert f"kind: {lost} of {train} training samples have none, and are no targets of it" in told and lost > 15
    assert "kind: one training item alone is 'alone'" in told
    rows[ready.held_out_items.indices[0]]["kind"] = "new"
    again = prepare(read_recipe(recipe(write(tmp_path, rows), "kind", "label", fields, {"partly": ["kind"]})))
    found = again.held_out_items[0, 0]
    assert isinstance(found, BadSample) and "the label 'new' was not in the training data; known: 'a'" in str(found)


@pytest.mark.parametrize("field", ["label", "caption"])
def test_few_labels_are_kept(field):
    """`labelled` keeps some of each value, the same ones every time, and all that are held out."""
    data = {"kind": "digits", "limit": 300, "labelled": {"label": 4}}
    if field == "caption":
        data["labelled"] = {"captoin": 4}
        with pytest.raises(DataError, match="no field 'captoin'; did you mean 'caption'"):
            made({**find("objective", "supervised").example(), "data": data})
        return
    ready = made({**find("objective", "supervised").example(), "data": data})
    kept = [i for i in range(len(ready.train_items)) if "label" in ready.train_items[0, i]]
    labels = [ready.source[ready.train_items.indices[i]]["label"] for i in kept]
    assert sorted(labels) == sorted("0123456789" * 4)
    assert all("label" in ready.held_out_items[0, i] for i in range(len(ready.held_out_items)))
    assert float(ready.objective(gather([ready.train[0, i] for i in range(len(ready.train))])[0]).count) == 40


def test_hidden_states_are_drawn_as_they_say():
    """Runs of 8 letters on average, and letters as often as their state gives them."""
    source = find("source", "hidden_states").Config(samples=300, size=100, untold=0).build()
    counts, changes, total = np.zeros(source.emits.shape), 0, 0
    for index in range(len(source)):
        sample = source[index]
        said = sample["states"]
        for state, letter in zip(said, sample["protein"]):
            counts["CEH".index(state), source.alphabet.index(letter)] += 1
        changes += sum(a != b for a, b in zip(said, said[1:]))
        total += len(said) - 1
        assert sample["contains"] == ";".join(source.states[s] for s in sorted(set(said)))
        assert sample["share"] == said.count("H") / len(said)
    assert total / changes == pytest.approx(8, rel=0.05)
    assert np.abs(counts / counts.sum(1, keepdims=True) - source.emits).max() < 0.015
    untold = find("source", "hidden_states").Config(samples=3, letters="dna").build()[0]["states"]
    assert untold[:2] == untold[-2:] == "--" and set(untold[2:-2]) <= {"I", "X"}


def test_a_sound_at_twice_the_speed_is_an_octave_higher():
    view = find("view", "speed").Config(factor=(2.0, 2.0)).build()
    sound = np.sin(np.arange(4000) * 2 * np.pi * 50 / 4000).astype(np.float32)
    faster = view(sound, np.random.default_rng(0))
    assert len(faster) == 2000 and faster.dtype == np.float32
    assert np.abs(np.fft.rfft(faster)).argmax() == 50 and np.abs(faster - sound[::2]).max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "raw", "said"),
    [
        ("labels", ["glows", "sings"], "the label 'sings' was not in the training data"),
        ("labels", 3.5, "labels are words in a list"),
        ("labels", np.array([0, 2, 1]), "zeros and ones in a line"),
        ("labels", [["binds"]], "a label is a word or a whole number"),
        ("token_labels", "CCXH", "at place 2: the label 'X' was not in the training data"),
        ("token_labels", "", "the labels are empty"),
        ("token_labels", 5, "labels of tokens are a str of letters or a list"),
    ],
)
def test_labels_that_are_none(kind, raw, said):
    modality = find("modality", kind).Config().build()
    modality.fit([["binds", "glows"]] if kind == "labels" else ["CCH"])
    with pytest.raises(ValueError, match=said):
        modality.tokens(raw)


def test_an_array_of_flags_and_words_between_separators():
    flags = find("modality", "labels").Config().build()
    flags.fit([np.array([0, 1, 0]), np.array([1, 1, 0])])
    assert flags.tokens(np.array([0, 1, 1])).values.tolist() == [[0, 1, 1]]
    assert flags.raw(np.array([[0.2, 0.9, 0.6]])) == (1, 2)
    assert flags.remarks([np.array([0, 1, 0]), np.array([1, 1, 0])])[0].startswith("all training items have 1")
    words = find("modality", "labels").Config(tokenizer={"kind": "multi_hot", "separator": "|"}).build()
    words.fit(["a|b", "c"])
    assert words.tokens("c | a").values.tolist() == [[1, 0, 1]] and words.tokens("").values.tolist() == [[0, 0, 0]]
    with pytest.raises(ValueError, match="4 places of 0 and 1, and training had 3"):
        flags.tokens(np.array([0, 1, 1, 0]))
