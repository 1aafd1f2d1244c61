"""simclr, byol, vicreg and sigmoid against loops in float64; batches in pieces; collapse; what is learned without labels."""

from __future__ import annotations

import copy
import math
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sevenfold.adaptation.readout import probe
from sevenfold.core.errors import ConfigError
from sevenfold.data.collate import collate
from sevenfold.data.loader import gather
from sevenfold.objective._watch import collapsed
from sevenfold.objective.byol import BYOL
from sevenfold.training.cached import through_pieces
from sevenfold.training.fit import fit
from sevenfold.training.report import curves, warned
from tiny import made

VIEWS = [{"kind": "affine", "degrees": 15, "scale": 0.15, "slant": 0.15, "pixels": 1}]
CONV = {"position": "none", "block": {"mixer": {"kind": "grid_conv", "groups": 1}, "nonlinearity": None}}
PLAIN = {"position": {"kind": "learned_grid", "table": [4, 4]}}


def looks(kind, trunk=PLAIN, size=16, depth=1, train=(), **settings):
    """A recipe of two looks at digits."""
    return {
        "data": {"kind": "digits", "held_out": 0.1},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}},
        "trunks": {"enc": {"inputs": ["image"], "width": size, "depth": depth, **trunk}},
        "objective": {"kind": kind, "views": VIEWS, **settings},
        "train": {"batch": 64, "precision": "fp32", "evaluate_every": 1000, "save_every": 1000, **dict(train)},
    }


def towers(kind, trunk=PLAIN, size=16, depth=1, train=(), **settings):
    """A recipe of digits and their names."""
    data = looks(kind, trunk, size, depth, train)
    data["streams"]["label"] = {"kind": "label"}
    data["trunks"]["names"] = {"inputs": ["label"], "width": 16, "depth": 0, "position": "none"}
    return {**data, "objective": {"kind": kind, **settings}}


def in_float64(data, rows=6):
    torch.manual_seed(0)
    ready = made(data)
    ready.objective.double().train()
    batch = gather([ready.train[0, place] for place in range(rows)])[0]
    return ready.objective, {
        name: s if s.discrete else s._replace(values=s.values.double()) for name, s in batch.items()
    }


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


# Losses, one number at a time


@torch.no_grad()
def test_simclr_against_a_loop():
    objective, batch = in_float64(looks("simclr", temperature=0.3))
    found = objective.embed(batch)
    u = objective.projector(torch.cat([found["image.1"], found["image.2"]])).tolist()
    total = 0.0
    for i in range(12):
        score = {k: cosine(u[i], u[k]) / 0.3 for k in range(12) if k != i}
        total += math.log(sum(map(math.exp, score.values()))) - score[(i + 6) % 12]
    loss = objective(batch)
    assert float(loss.total) == pytest.approx(total, rel=1e-12) and float(loss.count) == 12


@torch.no_grad()
def test_byol_against_a_loop():
    """With a teacher that is no longer equal, and looks in both directions."""
    objective, batch = in_float64(looks("byol", momentum=0.9))
    for parameter in [*objective.model.parameters(), *objective.projector.parameters()]:
        parameter.add_(0.1 * torch.randn_like(parameter))
    before = copy.deepcopy(objective.teacher)
    objective.after_step(0, 4)
    objective.after_step(1, 4)
    momenta = [1 - 0.1 * (math.cos(math.pi * k / 4) + 1) / 2 for k in (0, 1)]
    pairs = zip(
        before.parameters(),
        objective.teacher.parameters(),
        [*objective.model.trunks["enc"].parameters(), *objective.projector.parameters()],
        strict=True,
    )
    for old, new, student in pairs:
        wanted = momenta[1] * (momenta[0] * old + (1 - momenta[0]) * student) + (1 - momenta[1]) * student
        torch.testing.assert_close(new, wanted, rtol=0, atol=1e-12)
        assert not new.requires_grad
    z = torch.cat([objective.pooled(batch, name) for name in ("image.1", "image.2")])
    guess = objective.predictor(objective.projector(z)).tolist()
    taught = [objective.pooled(batch, name, objective.teacher["trunks"]) for name in ("image.1", "image.2")]
    wanted = [part.tolist() for part in objective.teacher["projector"](torch.cat(taught)).chunk(2)]
    total = sum(2 - 2 * cosine(guess[i], wanted[1][i]) + 2 - 2 * cosine(guess[6 + i], wanted[0][i]) for i in range(6))
    loss = objective(batch)
    assert float(loss.total) == pytest.approx(total, rel=1e-12) and float(loss.count) == 6
    assert float(loss.terms["cosine"][0]) / 6 == pytest.approx(1 - total / 24, rel=1e-12)


@torch.no_grad()
def test_vicreg_against_a_loop():
    objective, batch = in_float64(looks("vicreg", width=10, hidden=12))
    found = objective.embed(batch)
    u = objective.expander(torch.cat([found["image.1"], found["image.2"]])).tolist()
    one, two = u[:6], u[6:]
    near = sum((a - b) ** 2 for x, y in zip(one, two) for a, b in zip(x, y)) / 6 / 10
    wide = apart = 0.0
    for look in (one, two):
        mean = [sum(row[j] for row in look) / 6 for j in range(10)]
        for j in range(10):
            for k in range(10):
                c = sum((row[j] - mean[j]) * (row[k] - mean[k]) for row in look) / 5
                if j == k:
                    wide += max(0.0, 1 - math.sqrt(c + 1e-4)) / 10 / 2
                else:
                    apart += c * c / 10
    loss = objective(batch)
    told = {name: float(total / count) for name, (total, count) in loss.terms.items()}
    assert float(loss.mean) == pytest.approx(25 * near + 25 * wide + apart, rel=1e-12)
    assert [told[name] for name in ("invariance", "variance", "covariance")] == pytest.approx([near, wide, apart])


@torch.no_grad()
@pytest.mark.parametrize("multi_positive", [False, True])
def test_sigmoid_against_a_loop(multi_positive):
    """Two rows have the same name."""
    objective, batch = in_float64(towers("sigmoid", multi_positive=multi_positive, size=12))
    assert float(objective.scale.exp()) == pytest.approx(10) and float(objective.bias) == -10
    batch["label"].values.copy_(torch.tensor([0, 1, 2, 0, 3, 4])[:, None])
    found = objective.embed(batch)
    u, v = found["u"].tolist(), found["v"].tolist()
    total = 0.0
    for i in range(6):
        for j in range(6):
            match = i == j or (multi_positive and {i, j} == {0, 3})
            logit = 10 * sum(a * b for a, b in zip(u[i], v[j])) - 10
            total += math.log1p(math.exp(-logit if match else logit))
    loss = objective(batch)
    assert float(loss.total) == pytest.approx(total, rel=1e-9) and float(loss.count) == 6
    same = objective.matches(found).double()
    constant = math.log(float(same.mean() / (1 - same.mean())))
    guess = torch.nn.functional.softplus(torch.where(same > 0, -1.0, 1.0) * constant).sum()
    assert objective.baselines([batch], [batch])["chance"]["nats"] == pytest.approx(float(guess) / 6)


# Batches in pieces


@pytest.mark.parametrize("kind", ["simclr", "byol", "vicreg", "infonce", "sigmoid"])
def test_pieces_see_the_same_dropout_twice(kind):
    """The gradients of all pieces held at once, each under its own seed, are those of gradient caching."""
    noisy = {**PLAIN, "block": {"dropout": 0.3}}
    objective, batch = in_float64((towers if kind in ("infonce", "sigmoid") else looks)(kind, noisy))
    pieces = [(slice(0, 2), 11), (slice(2, 3), 12), (slice(3, 6), 13)]
    parts = []
    for rows, seed in pieces:
        torch.manual_seed(seed)
        parts.append(objective.embed({name: stream.rows(rows) for name, stream in batch.items()}))
    loss = objective.compare({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    loss.total.backward()
    wanted = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    objective.zero_grad()
    found = through_pieces(objective, batch, {}, pieces, 5, nullcontext)
    assert float(found.total.detach()) == pytest.approx(float(loss.total.detach()), rel=1e-12)
    for name, parameter in objective.named_parameters():
        if name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=0, atol=1e-12)
    objective.zero_grad()
    alone = [objective.compare(part).total.detach() for part in parts]
    assert abs(float(sum(alone) - loss.total.detach())) > 1e-3, (
        "pieces by themselves are another loss, or nothing is compared"
    )


def test_pieces_with_nothing_in_them():
    objective, batch = in_float64(looks("simclr"))
    stream = batch["image.1"]
    valid = torch.ones(stream.values.shape[:2], dtype=torch.bool)
    valid[:3] = False
    partly = {**batch, "image.1": stream._replace(valid=valid)}
    found = through_pieces(objective, partly, {}, [(slice(0, 3), 0), (slice(3, 6), 1)], 2, nullcontext)
    rest = {name: s.rows(slice(3, 6)) for name, s in batch.items()}
    assert float(found.total.detach()) == pytest.approx(float(objective(rest).total.detach()), rel=1e-12)
    none = {**batch, "image.1": stream._replace(valid=torch.zeros_like(valid))}
    assert float(through_pieces(objective, none, {}, [(slice(0, 6), 0)], 1, nullcontext).count) == 0


def test_statistics_of_a_batch_cannot_be_had_from_pieces():
    with pytest.raises(ConfigError, match="accumulate: byol compares whole batches, and the norm 'trunks.enc"):
        made(looks("byol", {**PLAIN, "block": {"norm": "batch"}}, train={"accumulate": 4}))
    made(looks("byol", train={"accumulate": 4}))  # those of the projector can


def test_teacher_and_schedule_resume_exactly(tmp_path):
    settings = {"steps": 6, "save_every": 3, "keep": 5, "batch": 8}
    ready = [made(looks("byol", train=settings)) for _ in range(2)]
    fit(ready[0].objective, ready[0].train, ready[0].held_out, ready[0].recipe.train, folder=tmp_path, bar=False)
    shutil.rmtree(max((tmp_path / "checkpoints").glob("step-*")))
    again = ready[1]
    fit(again.objective, again.train, again.held_out, again.recipe.train, folder=tmp_path, resume=True, bar=False)
    wanted, found = (part.objective.state_dict() for part in ready)
    assert float(found["clock.done"]) == 1 and wanted.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    teacher, student = found["teacher.copies.trunks.enc.norm.weight"], found["model.trunks.enc.norm.weight"]
    assert not torch.equal(teacher, student)


# Collapse


def told(steps, data):
    """(steps at which a warning was logged in training, the last record, whether the last look warned)."""
    data["train"] |= {"steps": steps, "optimizer": {"kind": "adamw", "lr": 2e-3}}
    ready = made(data)
    log = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False).log
    records = [record for record in log if "loss" in record]
    return [r["step"] for r in records if "warnings" in r], records[-1], log[-1].get("warnings", [])


BATCH_NORM = {**CONV, "block": {**CONV["block"], "norm": "batch"}}


def test_byol_collapses_without_its_predictor_and_says_so():
    small = {"size": 32, "depth": 2, "train": {"batch": 32}}
    at, last, held_out = told(80, looks("byol", BATCH_NORM, **small, predictor=False))
    assert at and at[0] < 100 and last["spread"] < 0.15 and "to a point" in held_out[0]
    at, last, held_out = told(64, looks("byol", BATCH_NORM, **small))
    assert not at and not held_out and last["spread"] > 0.4 and last["rank"] > 4


def test_vicreg_collapses_without_its_terms_and_says_so():
    """Without the variance term to a point; without the covariance term to a line, which the variance alone does not see."""
    small = {"size": 32, "depth": 2, "width": 16, "hidden": 64, "train": {"batch": 32}}
    at, last, held_out = told(64, looks("vicreg", BATCH_NORM, **small, variance=0))
    assert at and last["variance"] > 0.95 and "to a point" in held_out[0]
    at, last, held_out = told(90, looks("vicreg", BATCH_NORM, **small, covariance=0))
    assert at and last["variance"] < 0.1 and last["spread"] > 0.8 and last["rank"] < 2 and "to a line" in held_out[0]


def test_the_report_draws_what_is_watched():
    step = {"loss": 1.0, "grad_norm": 1.0, "lr": 1e-3, "spread": 0.05, "rank": 1.2}
    log = [{"step": 1, **step}, {"step": 2, **step}, {"step": 2, "held_out": {"loss": 1.0, "spread": 0.04}}]
    drawn = curves(log, BYOL.watched)
    assert ">spread<" in drawn and ">rank<" in drawn
    assert ">spread<" not in curves(log) and ">held out<" in curves(log)
    lines = warned([{"step": 2, "held_out": step, "warnings": collapsed(step)}])
    assert "Warning:" in lines and "its spread is 0.050" in lines


# A small real run


def right(model, labels=500):
    """Test accuracy of a linear probe on mean-pooled tokens, with so many labels; tested on 900 others."""
    digits = load_digits()
    tokens = model.modalities["image"].tokens
    pictures = (digits.images[..., None] / 16).astype(np.float32)
    x = np.stack(model.eval().embed_batch(collate([{"image": tokens(picture)} for picture in pictures]), "mean"))
    order = np.random.default_rng(0).permutation(len(x))
    read = probe(x[order[:labels]], digits.target[order[:labels]])
    return float((read.predict(x[order[-900:]]) == digits.target[order[-900:]]).mean())


@pytest.mark.parametrize(
    ("data", "margin"),
    [
        (looks("simclr", size=32), 0.08),
        (looks("byol", size=32, momentum=0.9), 0.08),
        (looks("vicreg", size=32), 0.08),
        (towers("infonce", size=32), 0.2),
        (towers("sigmoid", size=32, offset=-3), 0.15),
    ],
    ids=lambda value: value["objective"]["kind"] if isinstance(value, dict) else "",
)
def test_what_is_learned_beats_the_random_backbone(data, margin):
    data["train"] |= {"steps": 70, "optimizer": {"kind": "adamw", "lr": 4e-3}}
    ready = made(copy.deepcopy(data))
    before = right(ready.model)
    log = fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False).log
    assert not any("warnings" in record for record in log)
    after = right(ready.model)
    assert after > before + margin, (before, after)
