"""A small real run: what a masked autoencoder makes of digits, against the same backbone with its first weights."""

from __future__ import annotations

import numpy as np

from sevenfold.adaptation.readout import probe
from sevenfold.training.fit import fit
from tiny import made


def test_a_probe_on_mae_beats_random_initialisation():
    """150 steps on digits without their labels: a linear probe on the mean of patch tokens names at least 20 of 100 more."""
    stands = {"position": {"kind": "learned_grid", "table": [4, 4]}}
    ready = made(
        {
            "data": {"kind": "digits", "held_out": 0.3},
            "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}},
            "trunks": {
                "enc": {"inputs": ["image"], "width": 48, "depth": 2, **stands},
                "dec": {"inputs": ["enc"], "width": 32, "depth": 1, **stands},
            },
            "objective": {"kind": "mae"},
            "train": {
                "steps": 150,
                "batch": 64,
                "precision": "fp32",
                "evaluate_every": 150,
                "evaluate_batches": 1,
                "optimizer": {"kind": "muon", "lr": 5e-3},
            },
        }
    )
    samples = [[ready.source[i] for i in part.indices] for part in (ready.train_items, ready.held_out_items)]
    labels = [np.array([sample["label"] for sample in part]) for part in samples]

    def right() -> float:
        z = [ready.model.embed([sample["image"] for sample in part]) for part in samples]
        return float((probe(z[0], labels[0], strengths=(1e-2, 1e-1)).predict(z[1]) == labels[1]).mean())

    first = right()
    fitted = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False)
    assert right() > first + 0.2
    assert fitted.held_out["mse"] < 0.75 * fitted.log[0]["mse"]
