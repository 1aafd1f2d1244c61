"""Small real runs: what hiding teaches about digits, against the same backbone with its first weights."""

from __future__ import annotations

import numpy as np
import pytest

from sevenfold.adaptation.readout import probe
from sevenfold.training.fit import fit
from tiny import made

STANDS = {"position": {"kind": "learned_grid", "table": [4, 4]}}


def ready(objective, tokenizer, trunks, rate):
    return made(
        {
            "data": {"kind": "digits", "held_out": 0.3},
            "streams": {"image": {"kind": "image", "tokenizer": {"kind": tokenizer, "patch": 2}}},
            "trunks": {"enc": {"inputs": ["image"], "width": 48, "depth": 2, **STANDS}, **trunks},
            "objective": objective,
            "train": {
                "steps": 150,
                "batch": 64,
                "precision": "fp32",
                "evaluate_every": 150,
                "evaluate_batches": 1,
                "optimizer": {"kind": "muon", "lr": rate},
            },
        }
    )


@pytest.mark.parametrize(
    ("objective", "tokenizer", "trunks", "rate", "margin", "term"),
    [
        ({"kind": "mae"}, "patch", {"dec": {"inputs": ["enc"], "width": 32, "depth": 1, **STANDS}}, 5e-3, 0.2, "mse"),
        ({"kind": "masked_token", "ratio": 0.4}, "quantized_patch", {}, 3e-2, 0.15, "nats"),
    ],
    ids=["mae", "masked_token"],
)
def test_a_probe_beats_random_initialisation(objective, tokenizer, trunks, rate, margin, term):
    """150 steps on digits without their labels: a linear probe on the mean of patch tokens names more of 100, by 20 and by 15."""
    run = ready(objective, tokenizer, trunks, rate)
    samples = [[run.source[i] for i in part.indices] for part in (run.train_items, run.held_out_items)]
    labels = [np.array([sample["label"] for sample in part]) for part in samples]

    def right() -> float:
        z = [run.model.embed([sample["image"] for sample in part], trunk="enc") for part in samples]
        return float((probe(z[0], labels[0], strengths=(1e-2, 1e-1)).predict(z[1]) == labels[1]).mean())

    first = right()
    fitted = fit(run.objective, run.train, run.held_out, run.recipe.train, bar=False)
    after = right()
    print(first, after, fitted.held_out)
    assert after > first + margin
    assert fitted.held_out[term] < 0.75 * fitted.log[0][term]
