"""The loss of supervised learning against loops in float64, and its baselines against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byhand import nats
from sevenfold.data.loader import gather
from tiny import made


def digits_recipe(target, **settings):
    patches = {"kind": "image", "tokenizer": {"kind": "patch", "patch": 4}}
    return {
        "data": {"kind": "digits", "limit": 200},
        "streams": {"image": patches, "label": {"kind": target, "field": "label"}},
        "trunks": {"enc": {"inputs": ["image"], "width": 16, "depth": 1, "position": "axial_rotary"}},
        "objective": {"kind": "supervised", **settings},
        "train": {"precision": "fp32"},
    }


@pytest.mark.parametrize("target", ["label", "number"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@torch.no_grad()
def test_supervised_against_a_loop(target, smoothing):
    """Rows without a label, or without a picture, are left out."""
    ready = made(digits_recipe(target, smoothing=smoothing))
    raws = [
        {**sample, "label": sample["label"] if target == "label" else int(sample["label"])}
        for sample in ready.samples(8)
    ]
    raws[2]["label"] = raws[5]["image"] = None
    batch = ready.model.tokenize(raws)
    guess = ready.objective.guess(batch).double()
    values = batch["label"].values[:, 0]
    whole = [row for row in range(8) if row not in (2, 5)]
    for training in (False, True):
        ready.objective.train(training)
        loss = ready.objective(batch)
        if target == "label":
            expected = sum(nats(guess[row], int(values[row]), smoothing * training) for row in whole)
            right = sum(int(guess[row].argmax()) == int(values[row]) for row in whole)
            assert int(loss.terms["accuracy"][0]) == right
        else:
            expected = sum(float(guess[row] - values[row]) ** 2 for row in whole)
        assert float(loss.total) == pytest.approx(expected, rel=1e-5)
        assert float(loss.count) == 6
    batch.pop("label")
    assert float(ready.objective(batch).count) == 0


@pytest.mark.parametrize("target", ["label", "number"])
def test_supervised_baselines_are_those_of_sklearn_on_the_raw_pixels(target):
    from sklearn.linear_model import LogisticRegression, Ridge

    ready = made(digits_recipe(target))
    kept = [
        [gather([items[0, k]])[0] for k in range(len(items))] for items in (ready.train_items, ready.held_out_items)
    ]
    found = ready.objective.baselines(*kept)
    (x, y), (x_new, y_new) = [
        (
            np.stack([ready.source[k]["image"].reshape(-1) / 255 * 2 - 1 for k in items.indices]),
            np.array([int(ready.source[k]["label"]) for k in items.indices]),
        )
        for items in (ready.train_items, ready.held_out_items)
    ]
    if target == "label":
        model = LogisticRegression(max_iter=1000).fit(x, y)
        accuracy = found["logistic regression on raw features"]["accuracy"]
        assert accuracy == pytest.approx(model.score(x_new, y_new), abs=1.5 / len(y_new)) and accuracy > 0.7
        assert found["majority class"]["accuracy"] == (y_new == np.bincount(y).argmax()).mean()
    else:
        mean, std = y.mean(), y.std()
        ridge = Ridge().fit(x, (y - mean) / std)
        error = ((ridge.predict(x_new) - (y_new - mean) / std) ** 2).mean()
        assert found["ridge regression on raw features"]["mse"] == pytest.approx(error, rel=1e-3)
        assert found["mean"]["mse"] == pytest.approx((((y_new - mean) / std) ** 2).mean(), rel=1e-5)
