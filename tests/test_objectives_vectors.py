"""Every objective's loss against loops in float64 that say what it means: mae and infonce."""

from __future__ import annotations

import math

import pytest
import torch

from sevenfold.core.types import Hidden, Stream
from sevenfold.data.loader import gather
from tiny import made, recipe

PLAIN = {"mixer": {"kind": "attention"}}


def float64(batch):
    return {
        name: stream if stream.discrete else stream._replace(values=stream.values.double())
        for name, stream in batch.items()
    }


# Masked autoencoder


def mae(folder, block=PLAIN, trunk=(), **settings):
    torch.manual_seed(0)
    data = recipe("mae", folder, block=block)
    data["trunks"] = {name: {**given, **dict(trunk)} for name, given in data["trunks"].items()}
    data["objective"].update(settings)
    ready = made(data)
    ready.objective.double()
    return ready


def pictures(ready, rows=4, lengths=None):
    """A batch of pictures of 16 patches; `lengths`: only so many of each row's patches are there."""
    batch = float64(gather([ready.held_out_items[0, place] for place in range(rows)])[0])
    if lengths is not None:
        valid = torch.arange(16)[None] < torch.tensor(lengths)[:, None]
        batch["image"] = batch["image"]._replace(valid=valid)
    return batch


def by_loop(ready, stream, score, ratio, patch_norm):
    """(sum, count): row by row, the lowest scores are seen; a decoder places the others by their coordinates."""
    model, objective = ready.model, ready.objective
    encoder, decoder = model.trunks["enc"], model.trunks["dec"]
    total, count = 0.0, 0
    for row in range(len(stream.values)):
        n = 16 if stream.valid is None else int(stream.valid[row].sum())
        order = sorted(range(n), key=lambda place: float(score[row, place]))
        keep = max(1, min(int(n * (1 - ratio)), n - 1))
        seen, gone = order[:keep], order[keep:]
        if not gone:
            continue
        latent = encoder({"image": Stream(stream.values[row : row + 1, seen], stream.coords[row : row + 1, seen])})
        known = decoder.embed("enc", latent)
        asked = objective.mask_token.expand(1, len(gone), -1)
        asked = decoder.embed("enc", Hidden(asked, stream.coords[row : row + 1, gone]), project=False)
        asked = asked._replace(spans={"hidden": (0, len(gone))})
        guess = model.head(objective.head, decoder.mix(decoder.join([known, asked])).of("hidden").x)[0]
        for said, place in zip(guess, gone):
            target = stream.values[row, place].tolist()
            if patch_norm:
                mean = sum(target) / len(target)
                var = sum((value - mean) ** 2 for value in target) / (len(target) - 1)
                target = [(value - mean) / math.sqrt(var + 1e-6) for value in target]
            total += sum((float(a) - b) ** 2 for a, b in zip(said, target)) / len(target)
            count += 1
    return total, count


@pytest.mark.parametrize("ratio", [0.75, 0.4])
@pytest.mark.parametrize("patch_norm", [False, True])
@pytest.mark.parametrize("lengths", [None, (16, 9, 2, 5), (16, 1, 0, 3), (7, 7, 6, 2)])
@torch.no_grad()
def test_mae_against_a_loop(ratio, patch_norm, lengths, tmp_path):
    """With and without padding: shorter rows keep the share of their own length."""
    ready = mae(tmp_path, ratio=ratio, patch_norm=patch_norm)
    batch = pictures(ready, 4, lengths)
    score = ready.objective.draw(batch)["score"]
    loss = ready.objective(batch, {"score": score})
    total, count = by_loop(ready, batch["image"], score, ratio, patch_norm)
    assert float(loss.count) == count
    assert float(loss.total) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("trunk", [{}, {"class_token": True, "registers": 2}])
@torch.no_grad()
def test_padding_changes_nothing(trunk, tmp_path):
    """What stands in padded places, and how many there are, has no part in the loss; nor has the rest of the batch."""
    ready = mae(tmp_path, trunk=trunk)
    batch = pictures(ready, 4, (12, 9, 4, 6))
    score = ready.objective.draw(batch)["score"]
    loss = ready.objective(batch, {"score": score})
    stream = batch["image"]
    other = stream.values.masked_fill(~stream.valid[..., None], 7.0), stream.coords + 5 * ~stream.valid[..., None]
    assert float(ready.objective({"image": Stream(*other, stream.valid)}, {"score": score}).total) == float(loss.total)
    rows = [
        ready.objective(
            {"image": Stream(*(part[row : row + 1, :n] for part in stream[:2]))}, {"score": score[row : row + 1, :n]}
        )
        for row, n in enumerate((12, 9, 4, 6))
    ]
    assert float(loss.total) == pytest.approx(sum(float(row.total) for row in rows), rel=1e-9)
    assert float(loss.count) == sum(float(row.count) for row in rows)


def test_seen_patches_are_no_targets_and_hidden_ones_no_input(tmp_path):
    """The loss does not depend on the pixels of hidden patches but through its targets, and the gradient of the guess
    reaches the seen ones only."""
    ready = mae(tmp_path)
    batch = pictures(ready)
    score = ready.objective.draw(batch)["score"]
    visible, hidden = ready.objective.split(batch["image"], score)
    assert visible.shape == (4, 4) and hidden.shape == (4, 12)
    assert torch.equal(torch.cat([visible, hidden], 1).sort(1).values, torch.arange(16).expand(4, -1))
    values = batch["image"].values.clone().requires_grad_()
    guess = ready.objective.rebuild(batch["image"]._replace(values=values), visible, hidden)
    guess.sum().backward()
    reached = values.grad.abs().sum(-1) > 0
    assert reached.gather(1, visible).all() and not reached.gather(1, hidden).any()
    moved = batch["image"].coords.clone()
    moved[0, hidden[0, 0]] += 3
    with torch.no_grad():
        other = ready.objective.rebuild(batch["image"]._replace(coords=moved), visible, hidden)
    changed = (other - guess).abs().sum(-1) > 1e-9
    assert changed[0].any() and not changed[1:].any()


def test_the_share_that_is_seen(tmp_path):
    for ratio in (0.25, 0.5, 0.75, 0.9):
        objective = mae(tmp_path, ratio=ratio).objective
        for n in (2, 3, 8, 16, 49, 196):
            valid = torch.arange(n)[None] < torch.arange(1, n + 1)[:, None]
            stream = Stream(torch.zeros(n, n, 4), torch.zeros(n, n, 2), valid)
            visible, hidden = objective.split(stream)
            seen = [int(valid[row, visible[row]].sum()) for row in range(n)]
            assert seen == [max(1, min(int(length * (1 - ratio)), length - 1)) for length in range(1, n + 1)]
            assert visible.shape[1] == seen[-1] and visible.shape[1] + hidden.shape[1] == n


def test_baselines_of_mae(tmp_path):
    ready = mae(tmp_path, patch_norm=True)
    batch = gather([ready.held_out_items[0, place] for place in range(4)])[0]
    values = batch["image"].values.double().flatten(0, 1)
    standard = (values - values.mean(1, keepdim=True)) / (values.var(1, keepdim=True) + 1e-6).sqrt()
    found = ready.objective.baselines([batch], [batch])
    assert found["zero"]["mse"] == pytest.approx(float(standard.square().mean()), rel=1e-5)
    plain = mae(tmp_path).objective.baselines([batch], [batch])
    error = (batch["image"].values.double() - batch["image"].values.double().mean(0)).square().mean()
    assert plain["mean training item"]["mse"] == pytest.approx(float(error), rel=1e-5)


# Contrast


def pairs(folder, **settings):
    data = recipe("infonce", folder, block=PLAIN)
    data["objective"].update(settings)
    torch.manual_seed(0)
    ready = made(data)
    ready.objective.double()
    return ready, float64(gather([ready.held_out_items[0, place] for place in range(6)])[0])


def contrast(u, v, scale, matches):
    """The mean over both directions of - mean over matches of log softmax, by the book."""
    rows = range(len(u))
    score = [[scale * float(u[i] @ v[j]) for j in rows] for i in rows]
    total = 0.0
    for i in rows:
        across = math.log(sum(math.exp(score[i][j]) for j in rows))
        down = math.log(sum(math.exp(score[j][i]) for j in rows))
        total += sum(across - score[i][j] for j in rows if matches[i][j]) / sum(matches[i]) / 2
        total += sum(down - score[j][i] for j in rows if matches[j][i]) / sum(row[i] for row in matches) / 2
    return total


@pytest.mark.parametrize("multi_positive", [False, True])
@torch.no_grad()
def test_infonce_against_a_loop(multi_positive, tmp_path):
    """Two rows have the same caption, two others the same picture."""
    ready, batch = pairs(tmp_path, multi_positive=multi_positive)
    for name, (a, b) in {"caption": (0, 3), "image": (1, 2)}.items():
        for part in batch[name]:
            if part is not None:
                part[b] = part[a]
    u, v = ready.objective.vectors(batch)
    matches = [[i == j or (multi_positive and {i, j} in ({0, 3}, {1, 2})) for j in range(6)] for i in range(6)]
    loss = ready.objective(batch)
    assert float(loss.total) == pytest.approx(contrast(u, v, 1 / 0.07, matches), rel=1e-9)
    assert float(loss.count) == 6
    score = (u @ v.T).tolist()
    hits = sum(matches[i][max(range(6), key=lambda j: score[i][j])] for i in range(6))
    hits += sum(matches[j][max(range(6), key=lambda i: score[i][j])] for j in range(6))
    assert float(loss.terms["recall@1"][0]) == hits / 2
    u_of_row = ready.objective.vectors({name: stream.rows(slice(2, 3)) for name, stream in batch.items()})[0]
    torch.testing.assert_close(u_of_row[0], u[2], rtol=0, atol=1e-12)


@torch.no_grad()
def test_rows_without_a_pair_are_left_out(tmp_path):
    ready, batch = pairs(tmp_path)
    n = batch["image"].values.shape[1]
    valid = torch.ones(6, n, dtype=torch.bool)
    valid[2] = False
    partly = {**batch, "image": batch["image"]._replace(valid=valid)}
    rest = {name: stream.rows(torch.tensor([0, 1, 3, 4, 5])) for name, stream in batch.items()}
    assert float(ready.objective(partly).total) == pytest.approx(float(ready.objective(rest).total), rel=1e-9)
    assert float(ready.objective(partly).count) == 5
    assert float(ready.objective({"image": batch["image"]}).count) == 0


@torch.no_grad()
def test_rows_that_differ_in_padding_alone_are_not_equal(tmp_path):
    """A blank patch and no patch are two things."""
    ready, batch = pairs(tmp_path)
    values = torch.zeros_like(batch["image"].values)
    valid = torch.arange(values.shape[1])[None] < torch.tensor([16, 16, 15, 15, 14, 13])[:, None]
    stream = Stream(values, batch["image"].coords, valid)
    captions = batch["caption"]._replace(values=torch.arange(6)[:, None] + 0 * batch["caption"].values)
    same = ready.objective.matches(ready.objective.embed({"image": stream, "caption": captions}))
    assert same.long().tolist() == [[int(a == b) for b in (16, 16, 15, 15, 14, 13)] for a in (16, 16, 15, 15, 14, 13)]


@torch.no_grad()
def test_chance(tmp_path):
    """Equal vectors give log b; the baseline says what guessing gives, matches counted as they are in the loss."""
    ready, batch = pairs(tmp_path)
    objective = ready.objective
    ones = torch.nn.functional.normalize(torch.ones(6, 64, dtype=torch.float64), dim=1)
    objective.vectors = lambda whole: (ones, ones)
    assert float(objective(batch).mean) == pytest.approx(math.log(6))
    found = objective.baselines([batch], [batch, {name: s.rows(slice(0, 2)) for name, s in batch.items()}])["chance"]
    assert found["nats"] == pytest.approx((6 * math.log(6) + 2 * math.log(2)) / 8)
    captions = [tuple(row.tolist()) for row in batch["caption"].values]
    equal = sum(captions[i] == captions[j] for i in range(6) for j in range(6)) / 6
    two = sum(captions[i] == captions[j] for i in range(2) for j in range(2)) / 2
    assert found["recall@1"] == pytest.approx((equal + two) / 8)


def test_the_scale_stays_between_1_and_100(tmp_path):
    objective = pairs(tmp_path)[0].objective
    assert float(objective.scale.detach().exp()) == pytest.approx(1 / 0.07)
    for given, kept in ((9.0, 100.0), (-1.0, 1.0), (2.0, math.exp(2))):
        objective.scale.data.fill_(given)
        objective.after_step(0, 1)
        assert float(objective.scale.detach().exp()) == pytest.approx(kept)


def test_similarities_are_not_rounded_to_bf16(tmp_path):
    """Under autocast the vectors come from bf16 products; what is compared does not."""
    torch.manual_seed(0)
    ready = made(recipe("infonce", tmp_path, block=PLAIN))
    batch = gather([ready.held_out_items[0, place] for place in range(6)])[0]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        loss = ready.objective(batch)
        u, v = ready.objective.vectors(batch)
        matches = ready.objective.matches(ready.objective.embed(batch)).tolist()
    assert float(loss.total) == pytest.approx(contrast(u.double(), v.double(), 1 / 0.07, matches), rel=1e-5)
