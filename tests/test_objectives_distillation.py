"""Self-distillation, joint embedding and distillation against loops in float64 that say what they mean."""

from __future__ import annotations

import math

import pytest
import torch

import sevenfold as sf
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Stream
from sevenfold.data.loader import gather
from sevenfold.objective._prototypes import koleo
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe
from test_resume import run
from tiny import log_of, made, weights_of

PICTURES = {"kind": "image", "tokenizer": {"kind": "patch", "patch": 2}}
MILD = [{"kind": "affine", "degrees": 10, "pixels": 1}]
HEAD = {"prototypes": 12, "hidden": 20, "width": 8}


def digits(objective, trunks=None, **train):
    """A recipe on pictures of 16 patches."""
    enc = {"inputs": ["image"], "width": 16, "depth": 1, "class_token": True, "position": "axial_rotary"}
    return {
        "data": {"kind": "digits", "limit": 40, "held_out": 0.2},
        "streams": {"image": PICTURES},
        "trunks": trunks or {"enc": enc},
        "objective": objective,
        "train": {"steps": 10, "batch": 8, "precision": "fp32", "evaluate_batches": 1, **train},
    }


def stirred(objective):
    """With noise on every parameter, a teacher of its own and an objective in the middle of its schedules; float64."""
    torch.manual_seed(5)
    objective.double()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        for balance in getattr(objective, "balances", {}).values():
            for buffer in balance.buffers():
                buffer.normal_(0, 0.05)
    if hasattr(objective, "clock"):
        objective.clock.tick(1, 10)
    return objective


def float64(batch):
    return {k: s if s.discrete else s._replace(values=s.values.double()) for k, s in batch.items()}


def batch_of(ready, rows=4):
    return float64(gather([ready.held_out_items[0, place] for place in range(rows)])[0])


# Balances


@pytest.mark.parametrize("rounds", [1, 3])
def test_sinkhorn_against_a_loop(rounds):
    torch.manual_seed(0)
    scores = torch.rand(7, 5, dtype=torch.float64) * 2 - 1
    q = [[math.exp(float(s) / 0.07) for s in row] for row in scores]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(rounds):
        for k in range(5):
            mass = sum(row[k] for row in q)
            for row in q:
                row[k] /= mass * 5
        q = [[value / (sum(row) * 7) for value in row] for row in q]
    wanted = torch.tensor(q, dtype=torch.float64) * 7
    found = find("balance", "sinkhorn").Config(rounds=rounds).build(5)(scores, 0.07)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(7, dtype=torch.float64), rtol=1e-14, atol=0)


def test_the_centre_moves_after_the_step_only():
    balance = find("balance", "centre").Config(momentum=0.9).build(3)
    first, second = torch.randn(4, 3), torch.randn(2, 3)
    balance(first, 0.1)
    found = balance(second, 0.05)
    torch.testing.assert_close(found, (second / 0.05).softmax(-1))
    balance.after_step()
    torch.testing.assert_close(balance.centre, 0.1 * torch.cat([first, second]).mean(0))
    torch.testing.assert_close(balance(second, 0.05), ((second - balance.centre) / 0.05).softmax(-1))


def test_koleo_in_closed_form():
    """Corners of a regular polygon are 2 sin(pi / n) apart; equal rows count as 1e-8 apart."""
    for n in (4, 7):
        angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
        corners = torch.stack([angle.cos(), angle.sin()], 1) * torch.rand(n, 1).double().add(0.5)
        assert float(koleo(corners)) == pytest.approx(-math.log(2 * math.sin(math.pi / n)), abs=1e-6)
    twice = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    loss = koleo(twice)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(1e-8))
    assert torch.isfinite(twice.grad).all()
    assert float(koleo(twice[:1].detach())) == 0


# Self-distillation


def points_of(head, x):
    """x [m d] → scores, by the formula."""
    last = len(head.perceptron.linears) - 1
    for place, linear in enumerate(head.perceptron.linears):
        x = linear(x)
        x = torch.nn.functional.gelu(x) if place < last else x
    if head.standardise:
        x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-12).sqrt()
    x = x / x.norm(dim=1, keepdim=True)
    v = head.prototypes / head.prototypes.norm(dim=1, keepdim=True)
    return x @ v.T


def cross(p, s, t):
    return -sum(float(a) * float(b) for a, b in zip(p, (s / t).log_softmax(-1)))


def seen_by_hand(trunk, stream, mask_token, hidden):
    """(class token, patches) of one look of every row, row by row, the mask token in the place of hidden embeddings."""
    classes, patches = [], []
    for row in range(len(stream.values)):
        x = trunk.embeds["image"](stream.values[row : row + 1]).clone()
        for place in range(x.shape[1]):
            if hidden is not None and hidden[row, place]:
                x[0, place] = mask_token
        given = trunk.embed("image", Hidden(x, stream.coords[row : row + 1]), project=False)
        out = trunk.mix(trunk.join([given]))
        classes.append(out.x[0, 0])
        patches.append(out.of("image").x[0])
    return torch.stack(classes), torch.stack(patches)


@pytest.mark.parametrize(
    "more", [{}, {"head": {**HEAD, "shared": True, "standardise": False}}, {"balance": "sinkhorn"}]
)
@torch.no_grad()
def test_dinov2_against_a_loop(more):
    settings = {
        "kind": "dinov2",
        "views": MILD,
        "crops": 3,
        "head": HEAD,
        "koleo": 0.3,
        "patch": 0.7,
        "masker": "block",
        "teacher_temperature": [0.04, 0.07],
        **more,
    }
    ready = made(digits(settings))
    objective = stirred(ready.objective)
    batch = batch_of(ready)
    torch.manual_seed(1)
    drawn = objective.draw(batch)
    assert set(drawn) == {"image.1", "image.2"}
    assert any(bool(hidden.any()) for hidden in drawn.values())
    found = objective(batch, drawn)
    student, teacher = objective.model.trunks["enc"], objective.teacher["trunks"]["enc"]
    heads, their = objective.behind, objective.teacher["behind"]
    patch = "class" if more.get("head", {}).get("shared") else "patch"
    names = ["image.1", "image.2", "image.crop.0", "image.crop.1", "image.crop.2"]
    ours = {name: seen_by_hand(student, batch[name], objective.mask_token, drawn.get(name)) for name in names}
    theirs = {name: seen_by_hand(teacher, batch[name], None, None) for name in names[:2]}
    tau = 0.04 + 0.03 * 0.2 / 0.3

    def balanced(name, scores):
        balance = objective.balances[name]
        if "balance" not in more:
            return ((scores - balance.centre) / tau).softmax(-1)
        q = (scores / tau).exp()
        for _ in range(3):
            q = q / q.sum(0, keepdim=True)
            q = q / q.sum(1, keepdim=True)
        return q

    told = [points_of(their["class"], theirs[name][0]) for name in names[:2]]  # each look by itself
    p = balanced("class", torch.cat(told)).chunk(2)
    s = {name: points_of(heads["class"], ours[name][0]) for name in names}
    pairs = {"class": [], "crops": []}
    for place, u in enumerate(names[:2]):
        for v in names:
            if u != v:
                mean = sum(cross(p[place][row], s[v][row], 0.1) for row in range(4)) / 4
                pairs["crops" if "crop" in v else "class"].append(mean)
    hidden = torch.cat([drawn[name] for name in names[:2]])
    q = balanced("patch", points_of(their[patch], torch.cat([theirs[name][1] for name in names[:2]])[hidden]))
    z = points_of(heads[patch], torch.cat([ours[name][1] for name in names[:2]])[hidden])
    rows, sums = hidden.nonzero()[:, 0].tolist(), {}
    for row, a, b in zip(rows, q, z):
        sums.setdefault(row, []).append(cross(a, b, 0.1))
    near = 0.0
    for name in names[:2]:
        u = ours[name][0] / ours[name][0].norm(dim=1, keepdim=True)
        for i in range(4):
            near -= math.log(min(float((u[i] - u[j]).norm()) for j in range(4) if j != i)) / 4
    wanted = {
        "class": sum(pairs["class"]) / 2,
        "crops": sum(pairs["crops"]) / 6,
        "patch": sum(sum(values) / len(values) for values in sums.values()) / len(sums),
        "koleo": near,
    }
    for name, value in wanted.items():
        assert float(found.terms[name][0] / found.terms[name][1]) == pytest.approx(value, rel=1e-7), name
    whole = (sum(pairs["class"]) + sum(pairs["crops"])) / 8 + 0.7 * wanted["patch"] + 0.3 * wanted["koleo"]
    assert float(found.mean) == pytest.approx(whole, rel=1e-7)


def test_what_is_hidden_from_the_student():
    """Of half of the looks, ratios spread over the range; the values of hidden tokens change nothing, and the teacher sees them."""
    ready = made(digits({"kind": "ibot", "views": MILD, "ratio": [0.2, 0.5], "head": HEAD}))
    objective, batch = ready.objective.double(), batch_of(ready, 8)
    drawn = objective.draw(batch)
    for name, hidden in drawn.items():
        counts = sorted(hidden.sum(1).tolist())
        assert counts == [0, 0, 0, 0, *(round(16 * (0.2 + 0.3 * (i + 0.5) / 4)) for i in range(4))], name
    look = batch["image.1"]
    noise = torch.where(drawn["image.1"][..., None], torch.rand_like(look.values), look.values)
    other = look._replace(values=noise)
    same = [objective.student(stream, drawn["image.1"]).x for stream in (look, other)]
    assert torch.equal(*same)
    assert not torch.equal(
        *(objective.hidden({"image.1": s}, "image.1", objective.teacher["trunks"]).x for s in (look, other))
    )


def test_the_teacher_follows_and_is_the_product():
    ready = prepare(read_recipe(digits({"kind": "dinov2", "views": MILD, "head": HEAD, "momentum": 0.5})))
    objective = ready.objective
    before = objective.teacher["trunks"]["enc"].blocks[0].mixer.out.weight.clone()
    weight = objective.model.trunks["enc"].blocks[0].mixer.out.weight
    with torch.no_grad():
        weight.add_(1)
    objective.after_step(4, 10)  # half of the way: the momentum is 0.75
    found = objective.teacher["trunks"]["enc"].blocks[0].mixer.out.weight
    torch.testing.assert_close(found, before + 0.25)
    objective.product()
    assert torch.equal(weight, found)
    assert torch.equal(objective.behind["class"].prototypes, objective.teacher["behind"]["class"].prototypes)


@pytest.mark.parametrize("kind", ["dinov2", "ijepa"])
def test_stopped_and_resumed_is_bitwise_the_run_that_was_not(kind, tmp_path):
    settings = {"dinov2": {"views": MILD, "head": HEAD, "crops": 2}, "ijepa": {}}[kind]
    enc = {"inputs": ["image"], "width": 16, "depth": 1, "class_token": True, "position": "axial_rotary"}
    trunks = {"enc": enc, **({"pred": {**enc, "inputs": ["enc"], "class_token": False}} if kind == "ijepa" else {})}
    data = digits({"kind": kind, **settings}, trunks, evaluate_every=1, steps=6)
    whole = run(data, tmp_path / "whole")
    with pytest.raises(Exception, match="SIGTERM after step 3 of 6"):
        run(data, tmp_path / "stopped", 3, resume=True)
    resumed = run(data, tmp_path / "stopped", resume=True)
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")
    assert resumed.held_out == whole.held_out


def test_what_self_distillation_refuses():
    for settings, said in (
        ({"ratio": [0.5, 0.1]}, "objective.ratio: .* is no range"),
        ({"teacher_temperature": [0.0, 0.1]}, "teacher_temperature: both must be above 0"),
        ({"pool": "class_mean", "head": {"shared": True}}, "head.shared: class and patch tokens have another width"),
    ):
        with pytest.raises(ConfigError, match=said):
            prepare(read_recipe(digits({"kind": "ibot", "views": MILD, **settings})))


# Joint-embedding prediction

JEPA = {
    "enc": {"inputs": ["image"], "width": 16, "depth": 1, "position": "axial_rotary"},
    "pred": {"inputs": ["enc"], "width": 12, "depth": 1, "position": "axial_rotary"},
}


@pytest.mark.parametrize("lengths", [None, (16, 9, 2, 5), (16, 1, 0, 3)])
@pytest.mark.parametrize("extra", [{}, {"class_token": True, "registers": 2}])
@torch.no_grad()
def test_ijepa_against_a_loop(lengths, extra):
    ready = made(digits({"kind": "ijepa", "targets": 3}, {"enc": {**JEPA["enc"], **extra}, "pred": JEPA["pred"]}))
    objective = stirred(ready.objective)
    stream = batch_of(ready)["image"]
    if lengths is not None:
        stream = stream._replace(valid=torch.arange(16)[None] < torch.tensor(lengths)[:, None])
    torch.manual_seed(2)
    drawn = objective.draw({"image": stream})
    found = objective({"image": stream}, drawn)
    encoder, predictor, teacher = *objective.model.trunks.values(), objective.teacher["trunks"]["enc"]
    total, count = 0.0, 0
    for row in range(4):
        n = 16 if lengths is None else lengths[row]
        context = drawn["context"][row].nonzero()[:, 0].tolist()
        blocks = [block.nonzero()[:, 0].tolist() for block in drawn["targets"][row]]
        size = max(0, min(max(1, round(n * 0.15)), n - 1))
        assert [len(block) for block in blocks] == [size] * 3
        assert len(context) == min(max(1, round(0.4 * n)), max(1, n - 3 * size), n)
        assert max([*context, *(place for block in blocks for place in block)], default=0) < max(n, 1)
        assert not set(context) & {place for block in blocks for place in block}
        if size == 0:
            continue
        whole = teacher({"image": Stream(stream.values[row : row + 1, :n], stream.coords[row : row + 1, :n])})
        goal = whole.of("image").x[0]
        goal = (goal - goal.mean(1, keepdim=True)) / (goal.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        seen = encoder({"image": Stream(stream.values[row : row + 1, context], stream.coords[row : row + 1, context])})
        for block in blocks:
            known = predictor.embed("enc", seen)
            asked = Hidden(objective.mask_token.expand(1, size, -1), stream.coords[row : row + 1, block])
            asked = predictor.embed("enc", asked, project=False)._replace(spans={"asked": (0, size)})
            said = objective.out(predictor.mix(predictor.join([known, asked])).of("asked").x)[0]
            for guess, place in zip(said, block):
                gaps = [abs(float(a) - float(b)) for a, b in zip(guess, goal[place])]
                total += sum(gap * gap / 2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps)
                count += 1
    assert float(found.count) == count
    assert float(found.total) == pytest.approx(total, rel=1e-9)


@torch.no_grad()
def test_the_spread_of_tokens_is_over_samples_at_one_place():
    """Tokens that depend on their place alone have none; those of noise have all."""
    from sevenfold.objective.ijepa import _alive, standardised

    place = standardised(torch.randn(1, 6, 32)).expand(50, -1, -1)
    assert float(torch.div(*_alive(place, None)["token_spread"])) == pytest.approx(0, abs=1e-6)
    assert float(torch.div(*_alive(standardised(torch.randn(200, 6, 32)), None)["token_spread"])) == pytest.approx(
        1, abs=0.01
    )
    valid = torch.arange(6)[None] < torch.tensor([6, 3] * 25)[:, None]
    torn = place + 100 * ~valid[..., None]
    assert float(torch.div(*_alive(torn, valid)["token_spread"])) == pytest.approx(0, abs=1e-6)


def test_what_ijepa_refuses():
    for change, said in (
        ({"pred": {**JEPA["pred"], "inputs": ["image"]}}, "ijepa needs a second trunk that reads the first"),
        (
            {"enc": {**JEPA["enc"], "mask": {"causal": True}}},
            "ijepa needs both sides: set trunks.enc.mask.causal to false",
        ),
        ({"enc": {**JEPA["enc"], "index": True}}, "trunks.enc must use their own coordinates"),
    ):
        with pytest.raises(ConfigError, match=said):
            prepare(read_recipe(digits({"kind": "ijepa"}, {**JEPA, **change})))


# Distillation


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a small classifier."""
    enc = {"inputs": ["image"], "width": 24, "depth": 1, "class_token": True, "position": "axial_rotary"}
    data = digits({"kind": "supervised", "pool": "mean"}, {"enc": enc}, steps=3)
    data["streams"]["label"] = {"kind": "label"}
    folder = tmp_path_factory.mktemp("teacher") / "run"
    sf.train(data, folder, say=lambda line: None, bar=False)
    return folder


def student(teacher, **settings):
    data = digits({"kind": "distill", "teacher": str(teacher), **settings})
    data["heads"] = {"label": {"trunk": "enc", "outputs": 10, "pool": "mean"}}
    return data


@torch.no_grad()
def test_distill_against_a_loop(teacher):
    settings = {
        "cosine": 0.5,
        "smooth_l1": 2.0,
        "logits": 1.5,
        "temperature": 3.0,
        "pool": "class",
        "teacher_pool": "mean",
    }
    ready = made(student(teacher, **settings))
    objective, source = ready.objective.double(), sf.load(teacher).double()
    objective.teacher.double()
    stream = batch_of(ready)["image"]
    found = objective({"image": stream})
    sums = {"cosine": 0.0, "smooth_l1": 0.0, "kl": 0.0}
    for row in range(4):
        one = {"image": stream.rows(slice(row, row + 1))}
        theirs, ours = source.trunks["enc"](one), objective.model.trunks["enc"](one)
        z, said = theirs.x[0, 1:].mean(0), objective.projection(ours.x[0, 0])
        sums["cosine"] += 1 - float(said @ z / said.norm() / z.norm())
        goal = (z - z.mean()) / (z.var(unbiased=False) + 1e-5).sqrt()
        gaps = (said - goal).abs().tolist()
        sums["smooth_l1"] += sum(gap * gap / 2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps)
        p = (source.heads["label"](z) / 3).softmax(0)
        q = (objective.model.heads["label"](ours.x[0, 1:].mean(0)) / 3).softmax(0)
        sums["kl"] += 9 * sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q))
    for name, value in sums.items():
        assert float(found.terms[name][0]) == pytest.approx(value, rel=1e-9), name
    whole = 0.5 * sums["cosine"] + 2 * sums["smooth_l1"] + 1.5 * sums["kl"]
    assert float(found.total) == pytest.approx(whole, rel=1e-9)
    assert not any("teacher" in name for name in objective.state_dict())


def test_a_teacher_with_other_tokens_reads_its_own(teacher):
    """A student on patches of 4 learns from a teacher on patches of 2."""
    data = student(teacher)
    data["streams"]["image"] = {"kind": "image", "tokenizer": {"kind": "patch", "patch": 4}}
    ready = made(data)
    batch = gather([ready.held_out_items[0, place] for place in range(4)])[0]
    assert {name: stream.values.shape[1] for name, stream in batch.items()} == {"image": 4, "image.teacher": 16}
    samples = [ready.source[ready.held_out_items.indices[place]]["image"] for place in range(4)]
    wanted = torch.from_numpy(sf.load(teacher).embed(samples))
    torch.testing.assert_close(ready.objective(batch).outputs["teacher"], wanted, rtol=1e-4, atol=1e-5)
    data["heads"]["label"] |= {"stream": "image", "outputs": 10, "pool": "none"}
    data["objective"]["logits"] = 1.0
    with pytest.raises(ConfigError, match="one of student and teacher asks every token"):
        made(data)


def test_a_run_knows_its_teacher(teacher, tmp_path):
    """It goes on with the same one only, and says when it is gone."""
    import shutil

    own = tmp_path / "teacher"
    shutil.copytree(teacher, own)
    run_of = sf.train(student(own), tmp_path / "run", overrides=["train.steps=2"], say=lambda line: None, bar=False)
    assert run_of.results["held_out"]["cosine"] > 0
    assert sf.evaluate(tmp_path / "run").values()["cosine"] == pytest.approx(run_of.results["held_out"]["cosine"])
    shutil.rmtree(own)
    with pytest.raises(ConfigError, match="objective.teacher: .* there is no such run folder"):
        sf.evaluate(tmp_path / "run")
    sf.train(digits({"kind": "supervised"}) | _labelled(), own, say=lambda line: None, bar=False)
    with pytest.raises((ConfigError, CheckpointError), match="holds other weights than when this run began"):
        sf.evaluate(tmp_path / "run")


def _labelled():
    enc = {"inputs": ["image"], "width": 24, "depth": 1, "class_token": True, "position": "axial_rotary"}
    return {
        "streams": {"image": PICTURES, "label": {"kind": "label"}},
        "trunks": {"enc": enc},
        "train": {"steps": 2, "batch": 8, "precision": "fp32"},
    }


def test_without_a_teacher_the_beginning_is_kept(teacher):
    """What a run begins from is remembered: the representation of another task's model is held on to."""
    data = digits({"kind": "distill"}) | {"start": str(teacher)}
    del data["trunks"]
    ready = prepare(read_recipe(data))
    theirs, ours = ready.objective.teacher.state_dict(), ready.model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())
    assert any(name.startswith("own.copies.model.") for name in ready.objective.state_dict())
