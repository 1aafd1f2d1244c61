"""Cards: figures beside their baselines, on runs and on published folders, and what bad input says."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits

import sevenfold as sf
from sevenfold.cli import main
from sevenfold.evaluation.card import MODEL, TWIN
from sevenfold.evaluation.gathered import encoded, task_of
from sevenfold.evaluation.vectors import twin
from sevenfold.training.recipe import read_recipe

QUIET = {"say": lambda _: None, "bar": False}
PIXELS = "logistic regression on pixels"


def pretrained(folder, seed=0, steps=2):
    recipe = {
        "data": {"kind": "digits", "limit": 300},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 4}}},
        "trunks": {
            "enc": {"inputs": ["image"], "width": 16, "depth": 1, "position": "learned"},
            "dec": {"inputs": ["enc"], "width": 16, "depth": 1, "position": "learned"},
        },
        "objective": "mae",
        "train": {"steps": steps, "batch": 8},
        "seed": seed,
    }
    return sf.train(recipe, folder, **QUIET).folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two seeds of one recipe, and a supervised run."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        pretrained(folder / f"mae{seed}", seed)
    supervised = {
        "data": {"kind": "digits", "limit": 300},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 4}}, "label": "label"},
        "trunks": {"enc": {"inputs": ["image"], "width": 16, "depth": 1, "position": "learned"}},
        "objective": "supervised",
        "train": {"steps": 20, "batch": 16, "optimizer": {"kind": "adamw", "lr": 0.01}},
    }
    sf.train(supervised, folder / "vit", **QUIET)
    return folder


@pytest.fixture(scope="module")
def card(home):
    return sf.evaluate([home / "mae0", home / "mae1"], target="label", note=["a note"])


def test_a_card_has_every_row(card):
    assert list(card.rows) == [MODEL, "majority class", PIXELS, TWIN]
    for row in card.rows.values():
        for figure in row.values():
            low, high = figure.resampled
            assert low <= figure.value <= high
    assert len(card.rows[MODEL]["accuracy"].seeds) == len(card.rows[TWIN]["accuracy"].seeds) == 2
    assert card.rows[MODEL]["accuracy"].over_seeds is not None and card.rows[PIXELS]["accuracy"].over_seeds is None


def test_the_majority_is_the_majority_of_the_training_items(card, home):
    source = read_recipe(home / "mae0").data.build()
    train, test = ([source[i]["label"] for i in part] for part in source.split())
    common = max(sorted(set(train)), key=train.count)
    assert card.rows["majority class"]["accuracy"].value == pytest.approx(np.mean([one == common for one in test]))
    assert card.samples["tested"] == len(test) and card.samples["learned_from"] == len(train)


def test_pixels_are_those_of_scikit_learn(card, home):
    """The baseline is the probe of the readout on the raw pixels, and nothing less."""
    from sevenfold.adaptation.readout import probe

    images, labels = load_digits(return_X_y=True)
    source = read_recipe(home / "mae0").data.build()
    train, test = source.split()
    x = np.rint(images * (255 / 16)) / 255
    found = probe(x[train], labels[train], scaling="one")
    wanted = (found.predict(x[test]) == labels[test]).mean()
    assert card.rows[PIXELS]["accuracy"].value == pytest.approx(wanted, abs=1 / len(test))


def test_the_sentence_follows_from_the_figures(card):
    assert not card.beside.beats and card.beside.against == PIXELS
    assert card.told.startswith("This model does not beat the best simple baseline by more than the spread: accuracy")
    assert "over 2 seeds" in card.told and "worse by" in card.told
    low, high = card.beside.difference.resampled
    assert high < 0 and low < card.beside.difference.value < high


def test_the_card_is_on_disk_in_every_form(card, home):
    folder = home / "mae0" / "evaluation"
    stored = json.loads((folder / "label_probe.json").read_text())
    assert stored == json.loads(card.json()) and stored["schema"] == 1
    assert stored.keys() >= {"rows", "beside", "sentence", "leaks", "calibration", "notes", "samples", "how"}
    assert stored["rows"][MODEL]["accuracy"].keys() == {"value", "seeds", "resampled", "over_seeds"}
    page = (folder / "label_probe.html").read_text()
    assert "PCA of the representations" in page and "Confidence and accuracy" in page and "<script" not in page
    assert PIXELS in card.table() and "Note: a note" in card.table()


def test_the_report_has_each_card_once(home):
    report = home / "mae1" / "report.html"
    before = report.read_text()
    for _ in range(2):
        sf.evaluate(home / "mae1", target="label", by="knn")
    sf.evaluate(home / "mae1")
    page = report.read_text()
    assert page.count("<!-- card label_knn -->") == page.count("<!-- card held_out -->") == 1
    assert page.startswith(before.removesuffix("</body></html>\n")) and page.endswith("</body></html>\n")
    assert sf.load(home / "mae1") is not None


def test_the_twin_has_the_same_shape_and_other_weights(home):
    model = sf.load(home / "mae0")
    one, again, other = twin(model, 0), twin(model, 0), twin(model, 1)
    shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (model, one)]
    assert shapes[0] == shapes[1]
    image = np.zeros((8, 8, 1), np.uint8)
    vectors = [m.embed([image]) for m in (one, again, other, model)]
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2]) and not np.allclose(vectors[0], vectors[3])


def test_a_supervised_run_is_measured_by_its_own_head(home):
    found = sf.evaluate(home / "vit")
    assert found.values() == sf.evaluate(home / "vit", target="label").values()
    assert sf.evaluate(home / "vit", by="loss").name == "held_out"
    held_out = json.loads((home / "vit" / "results.json").read_text())["held_out"]
    assert found.how["by"] == "head"
    assert found.figure.value == pytest.approx(held_out["accuracy"])
    assert found.calibration.before.nll == pytest.approx(held_out["nats"], rel=1e-3)
    assert f"{TWIN}, with a probe" in found.rows


def test_losses_have_their_twin_and_sentence(home):
    found = sf.evaluate(home / "mae0")
    assert list(found.rows) == [MODEL, "mean training item", TWIN]
    assert (
        found.metric == "mse"
        and found.figure.value == json.loads((home / "mae0/results.json").read_text())["held_out"]["mse"]
    )
    assert found.rows["mean training item"]["mse"].resampled is None
    assert found.told


# Other data


def table(path, rows, columns=("sequence", "label")):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def genes(count, seed=0):
    """Sequences with a motif or without, told by it alone."""
    draw = np.random.default_rng(seed)
    rows = []
    for place in range(count):
        bases = list(draw.choice(list("ACGT"), 40))
        if place % 2:
            bases[:12] = "TATAAATATAAA"
        rows.append(("".join(bases), "promoter" if place % 2 else "none"))
    return rows


@pytest.fixture(scope="module")
def dna(tmp_path_factory):
    """A model of sequences without labels, and labelled ones that it was not trained on: with groups, parts and planted copies."""
    folder = tmp_path_factory.mktemp("dna")
    table(folder / "all.csv", [(bases,) for bases, _ in genes(60, 1)], ["sequence"])
    recipe = {
        "data": {"kind": "csv", "path": str(folder / "all.csv"), "columns": ["sequence"]},
        "streams": {"sequence": {"kind": "dna", "tokenizer": {"kind": "kmer", "k": 1}, "pack": False}},
        "trunks": {"enc": {"inputs": ["sequence"], "width": 16, "depth": 1}},
        "objective": "masked_token",
        "train": {"steps": 2, "batch": 8},
    }
    sf.train(recipe, folder / "run", **QUIET)
    rows = [(*row, "test" if place % 4 == 0 else "train", f"g{place % 5}") for place, row in enumerate(genes(200, 2))]
    rows += [(rows[1][0], "promoter", "test", "g1"), (rows[3][0][5:35], "promoter", "test", "g2")]
    rows += [("ACGT" * 10, "", "train", "g0"), ("ACGA" * 10, "novel", "test", "g0")]
    table(folder / "labelled.csv", rows, ["sequence", "label", "part", "lab"])
    return folder


def test_labels_from_other_data_with_a_split_and_leaks(dna):
    found = sf.evaluate(dna / "run", dna / "labelled.csv", target="label", split="part", group="lab")
    assert found.data.startswith("the test part of")
    assert list(found.rows)[2:4] == [
        "logistic regression on counts of 1- to 4-mers",
        "logistic regression on the base at each place",
    ]
    assert found.leaks.exact == 1 and len(found.leaks.places) == 2
    assert found.clean.keys() == found.rows.keys() and found.told_clean
    told = " ".join(found.notes)
    assert "1 training and 0 test items have no 'label'" in told
    assert "1 test items are of classes never seen in training ('novel')" in told
    assert found.rows["logistic regression on the base at each place"]["accuracy"].value > 0.9


def test_few_labels_and_numbers(dna, tmp_path):
    few = sf.evaluate(dna / "run", dna / "labelled.csv", target="label", split="part", per_class=5, out=tmp_path)
    assert few.samples["learned_from"] == 10
    assert (tmp_path / "label_probe.json").is_file() and not (dna / "run" / "evaluation" / "few.json").exists()
    rows = [(bases, bases.count("G") / 40 + 0.01 * place % 7) for place, (bases, _) in enumerate(genes(80, 4))]
    numbers = table(tmp_path / "numbers.csv", rows, ["sequence", "strength"])
    found = sf.evaluate(dna / "run", numbers, target="strength", out=tmp_path)
    assert list(found.rows[MODEL]) == ["r2", "rmse", "spearman"] and "mean" in found.rows
    assert found.rows["mean"]["spearman"].value != found.rows["mean"]["spearman"].value  # no order in a constant
    assert json.loads(found.json())["rows"]["mean"]["spearman"]["value"] is None


def test_a_letter_for_each_token(dna, tmp_path):
    """Which bases are G or C: told exactly by the letter itself, so by the window, and by the model's tokens."""
    draw = np.random.default_rng(5)
    rows = []
    for _ in range(60):
        bases = "".join(draw.choice(list("ACGT"), 30))
        rows.append((bases, "".join("h" if base in "GC" else "l" for base in bases)[:-1] + "?"))
    path = table(tmp_path / "each.csv", rows, ["sequence", "states"])
    found = sf.evaluate(dna / "run", path, target="states", out=tmp_path, most=500)
    assert found.how["task"] == "classes of each token"
    assert found.samples["rows_tested"] == 29 * found.samples["tested"]
    assert found.rows["logistic regression on the 15 tokens around"]["accuracy"].value == 1
    assert found.figure.value > 0.95


def test_letters_are_told_by_a_run_that_learned_them(tmp_path):
    """By its own head, every token of every item: the accuracy is that of its held-out part."""
    rows = [(bases, "".join("h" if base in "GC" else "l" for base in bases)) for bases, _ in genes(60, 7)]
    recipe = {
        "data": {
            "kind": "csv",
            "path": str(table(tmp_path / "each.csv", rows, ["sequence", "states"])),
            "held_out": 0.3,
        },
        "streams": {
            "sequence": {"kind": "dna", "tokenizer": {"kind": "kmer", "k": 1}, "pack": False},
            "states": {"kind": "token_labels"},
        },
        "trunks": {"enc": {"inputs": ["sequence"], "width": 16, "depth": 1}},
        "objective": {"kind": "supervised", "target": "states"},
        "train": {"steps": 5, "batch": 8},
    }
    run = sf.train(recipe, tmp_path / "run", **QUIET)
    found = sf.evaluate(run.folder, target="states")
    assert found.how["by"] == "head" and found.samples["rows_tested"] == 40 * found.samples["tested"]
    assert found.figure.value == pytest.approx(run.results["held_out"]["accuracy"])


def test_several_labels(dna, tmp_path):
    rows = [(bases, ";".join(name for name in ("TA", "GG", "CCC") if name in bases)) for bases, _ in genes(80, 6)]
    path = table(tmp_path / "several.csv", rows, ["sequence", "motifs"])
    data = {"kind": "csv", "path": str(path), "held_out": 0.4}
    found = sf.evaluate(dna / "run", data, target="motifs", target_kind="labels", out=tmp_path)
    assert found.how["task"] == "labels" and found.calibration is None
    assert list(found.rows)[1] == "shares of the labels"
    assert found.rows["logistic regression on counts of 1- to 4-mers"]["average precision"].value > 0.7


def test_an_adapted_run_is_measured_by_what_it_says(home, tmp_path):
    data = read_recipe(home / "mae0").data
    run = sf.adapt(home / "mae0", data, method="probe", target="label", out=tmp_path / "probe")
    found = sf.evaluate(tmp_path / "probe", target="label")
    alike = sf.evaluate(home / "mae0", target="label", out=tmp_path)
    assert run is not None and found.how["by"] == "head"
    assert found.figure.value == pytest.approx(alike.figure.value, abs=0.05)


def test_a_published_folder_is_measured_alike(tmp_path):
    from exchanged import gpt2

    gpt2(tmp_path / "gpt2")
    draw = np.random.default_rng(0)
    words = {"calm": ["the sea is still", "no wind at all"], "storm": ["waves break high", "the wind howls"]}
    rows = [(f"{draw.choice(words[kind])} {place}", kind) for place in range(30) for kind in words]
    path = table(tmp_path / "said.csv", rows, ["text", "label"])
    found = sf.evaluate(tmp_path / "gpt2", path, target="label", pool="last")
    assert found.path is None and list(found.rows)[2:] == [
        "logistic regression on bag of words",
        "logistic regression on characters in threes",
        TWIN,
    ]
    assert found.rows["logistic regression on bag of words"]["accuracy"].value == 1
    assert "roc auc" in found.rows[MODEL]


# Generation


def test_what_is_drawn_is_read_by_a_classifier_of_real_items(tmp_path):
    recipe = {
        "data": {"kind": "digits", "limit": 200},
        "streams": {
            "image": {"kind": "image", "tokenizer": {"kind": "quantized_patch", "patch": 4, "size": 16}},
            "label": "label",
        },
        "trunks": {
            "mind": {"inputs": ["image"], "condition": "label", "width": 16, "depth": 1, "class_token": True,
                     "mask": {"causal": True}, "position": {"kind": "learned", "size": 8},
                     "block": {"norm": "adaptive", "residual": "gated"}}
        },
        "objective": {"kind": "next_token", "stream": "image"},
        "train": {"steps": 2, "batch": 8},
    }  # fmt: skip
    run = sf.train(recipe, tmp_path / "run", **QUIET).folder
    found = sf.evaluate(run, target="label", by="drawn")
    real = "real test items (the most to hope for)"
    assert list(found.rows) == [MODEL, "its drawings for other items (chance)", TWIN, real]
    assert found.beside.against != real and not found.beside.beats
    assert found.rows[real]["accuracy"].value > 0.8
    assert found.how["given"] == "label" and "Drawn as asked" in (run / "evaluation/label_drawn.html").read_text()


# Bad input


def refused(capsys, *args, says):
    assert main(["evaluate", *map(str, args)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("sevenfold: ") and err.count("\n") == 1, err
    for word in [says] if isinstance(says, str) else says:
        assert word in err, err


def test_what_cannot_be_measured_is_one_line(home, dna, tmp_path, capsys):
    mae, labelled = home / "mae0", dna / "labelled.csv"
    refused(capsys, mae, "--target", "lable", says=["lable", "did you mean 'label'"])
    refused(capsys, mae, "--target", "image", says="image")
    refused(capsys, mae, "--by", "probe", says="--target")
    refused(capsys, mae, "--target", "label", "--split", "part", says=["other data", "data.split: part"])
    refused(capsys, mae, "--target", "label", "--by", "prob", says="by")
    refused(capsys, mae, "--target", "label", "--by", "head", says="says nothing of 'label'")
    refused(capsys, mae, "--target", "label", "--metric", "rmse", says=["rmse", "numbers"])
    refused(capsys, mae, "--target", "label", "--metric", "acuracy", says="did you mean 'accuracy'")
    refused(capsys, mae, "--target", "label", "--pool", "class", says="class token")
    refused(capsys, mae, "--target", "label", "--streams", "imag", says="did you mean 'image'")
    refused(capsys, mae, "--target", "label", "--name", "../x", says="name")
    refused(capsys, mae, home / "vit", "--target", "label", says=["no other seed", "streams.label"])
    refused(capsys, mae, mae, "--target", "label", says="has the seed 0")
    refused(capsys, home / "vit", "--target", "label", "--by", "drawn", says="--stream")
    refused(capsys, dna / "run", labelled, "--target", "label", "--split", "label", says="data.split")
    one = table(tmp_path / "one.csv", [(bases, "same") for bases, _ in genes(40)])
    refused(capsys, dna / "run", one, "--target", "label", says="nothing to tell apart")
    none = table(tmp_path / "none.csv", [(bases, "yes", "train") for bases, _ in genes(40)] + [("ACGT", "", "test")] * 3,
                 ["sequence", "label", "part"])  # fmt: skip
    refused(capsys, dna / "run", none, "--target", "label", "--split", "part", says="none of 3 test items")


def test_umap_names_its_extra(home, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    refused(capsys, home / "mae0", "--target", "label", "--drawing", "umap", says="sevenfold[umap]")


def test_notes_on_targets():
    found = encoded("classes", ["a", "a", "b", "c"], ["a", "d", "d"], "x")
    assert found.notes[0].startswith("'b', 'c': classes with one training item")
    assert found.notes[1].startswith("2 test items are of classes never seen") and found.known == 3
    assert found.names == ["a", "b", "c", "d"] and found.test.tolist() == [0, 3, 3]
    labels = encoded("labels", [["x", "y"], []], [["y", "z"]], "t")
    assert labels.train.tolist() == [[1, 1, 0], [0, 0, 0]] and labels.test.tolist() == [[0, 1, 1]]
    assert "all training items have the same" in encoded("numbers", [1.0, 1.0], [2.0], "t").notes[0]


def test_tasks_are_told_from_the_field():
    assert task_of("label", "t", ["a"], None) == ("classes", False)
    assert task_of("number", "t", [1.0], None) == ("numbers", False)
    assert task_of("text", "t", ["HHE", "EE"], [3, 2]) == ("classes", True)
    assert task_of("text", "t", ["yes", "no"] * 20, None) == ("classes", False)
    with pytest.raises(sf.SevenfoldError, match="neither labels nor numbers"):
        task_of("text", "t", ["a sentence", "another one", "a third"], [2, 2, 2])


def test_constant_representations_and_features_are_said(home, tmp_path):
    """A collapsed model answers as the majority does, and constant pixels make no baseline."""
    from safetensors.torch import load_file, save_file

    from sevenfold.core.files import read_json, sha256

    run = tmp_path / "run"
    shutil.copytree(home / "mae0", run)
    weights = {name: value * 0 for name, value in load_file(run / "model.safetensors").items()}
    save_file(weights, run / "model.safetensors", {"format": "pt"})
    manifest = read_json(run / "manifest.json")
    manifest["files"]["model.safetensors"]["sha256"] = sha256(run / "model.safetensors")
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = sf.evaluate(run, target="label")
    assert any("collapsed" in note for note in found.notes)
    assert found.values() == found.values("majority class")
