"""Small real runs: what is learned without labels is better than the first weights, and what happens without a safeguard.

Digits of scikit-learn, a logistic probe on the mean token; the same network with its first weights is what is beaten.
"""

from __future__ import annotations

import numpy as np
import pytest

import sevenfold as sf
from sevenfold.adaptation.readout import probe
from sevenfold.objective.ijepa import IJEPA, standardised
from sevenfold.training.fit import fit
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe

ENC = {"inputs": ["image"], "width": 48, "depth": 2, "position": {"kind": "learned", "size": 8}}
PRED = {"inputs": ["enc"], "width": 32, "depth": 1, "position": {"kind": "learned", "size": 8}}
MILD = [{"kind": "affine", "degrees": 10, "pixels": 1}]


def ready(objective, steps, batch=32):
    trunks = {"enc": ENC, "pred": PRED} if objective["kind"] == "ijepa" else {"enc": {**ENC, "class_token": True}}
    return prepare(
        read_recipe(
            {
                "data": {"kind": "digits"},
                "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}},
                "trunks": trunks,
                "objective": objective,
                "train": {
                    "steps": steps,
                    "batch": batch,
                    "precision": "fp32",
                    "evaluate_every": 1000,
                    "evaluate_batches": 1,
                    "optimizer": {"kind": "muon", "lr": 0.01, "weight_decay": 0.05},
                },
            }
        )
    )


def trained(made):
    """The log of its steps."""
    settings = made.recipe.train
    found = fit(made.objective, made.train, made.held_out, settings, seed=made.recipe.seed, bar=False)
    return [record for record in found.log if "loss" in record], found.held_out


def probed(made):
    """The share of held-out digits that a linear probe gets right."""
    raws, labels = [], []
    for indices in made.source.split():
        samples = [made.source[index] for index in indices]
        raws.append(made.model.embed([sample["image"] for sample in samples], trunk="enc"))
        labels.append(np.array([sample["label"] for sample in samples]))
    return float((probe(raws[0], labels[0], strengths=(0.1,)).predict(raws[1]) == labels[1]).mean())


@pytest.mark.parametrize(
    ("objective", "steps"),
    [
        ({"kind": "ijepa", "momentum": 0.98}, 220),
        ({"kind": "dinov2", "momentum": 0.95, "views": MILD, "crops": 0, "masked": 0.25}, 80),
        ({"kind": "ibot", "momentum": 0.95, "views": MILD, "masked": 0.25}, 80),
    ],
    ids=["ijepa", "dinov2", "ibot"],
)
def test_a_probe_beats_the_first_weights(objective, steps):
    made = ready(objective, steps)
    before = probed(made)
    _, held_out = trained(made)
    after = probed(made)
    print(f"{objective['kind']}: probe {before:.3f} -> {after:.3f}; {held_out}")
    assert after > before + 0.15
    assert made.objective.warnings(held_out) == []


def test_a_student_of_a_trained_teacher_beats_its_first_weights(tmp_path):
    """It sees no label, and says after 150 steps what a teacher of other width has learned from labels (0.30 to 0.85)."""
    streams = {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}, "label": "label"}
    teacher = {
        "data": {"kind": "digits"},
        "streams": streams,
        "trunks": {"enc": {**ENC, "width": 64}},
        "objective": "supervised",
        "train": {"steps": 150, "batch": 64, "precision": "fp32", "optimizer": {"kind": "muon", "lr": 0.01}},
    }
    sf.train(teacher, tmp_path / "teacher", say=lambda line: None, bar=False)
    made = ready({"kind": "distill", "teacher": str(tmp_path / "teacher")}, 150)
    before = probed(made)
    trained(made)
    assert probed(made) > before + 0.3


class Chased(IJEPA):
    """I-JEPA with its safeguard taken out: targets are the student's own, with their gradient."""

    def teach(self, stream):
        return standardised(self.model.trunks[self.encoder]({self.stream: stream}).of(self.stream).x)


def test_ijepa_collapses_without_its_teacher():
    made = ready({"kind": "ijepa", "momentum": 0.98}, 80)
    made.objective.__class__ = Chased
    steps, _ = trained(made)
    print(steps[-1])
    assert steps[-1]["smooth_l1"] < 0.05
    assert steps[0]["token_spread"] > 0.5
    assert "say where they stand and not what is there" in made.objective.warnings(steps[-1])[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"balance": {"kind": "centre", "momentum": 1.0}}, "one-hot collapse"),
        ({"teacher_temperature": [0.5, 0.5]}, "uniform collapse"),
    ],
    ids=["no centre", "no sharpening"],
)
def test_centring_and_sharpening_hold_each_other(change, said):
    """Alone, sharpening gives everything to one prototype, and centring says the same of all (arXiv:2104.14294 section 5.3)."""
    plain = {"views": MILD, "crops": 0, "masked": 0, "koleo": 0, "head": {"standardise": False}}
    made = ready({"kind": "dinov2", "momentum": 0.9, **plain, **change}, 40)
    steps, held_out = trained(made)
    print(change, {k: v for k, v in steps[-1].items() if "teacher" in k})
    assert any(said in line for line in made.objective.warnings(held_out))
