"""Trunks of latents, streams that look at each other, tokens with frames: wired as a recipe would."""

from __future__ import annotations

import pytest
import torch

from sevenfold.core.errors import ConfigError
from sevenfold.core.notation import read
from sevenfold.core.part import decode
from sevenfold.training.recipe import Recipe, shipped_folder
from tiny import made


def ready(name: str, **changes):
    data = read(shipped_folder() / f"{name}.yaml")
    for path, value in changes.items():
        place = data
        *steps, last = path.split("__")
        for step in steps:
            place = place[step]
        place[last] = value
    return made(data)


def one_batch(found, rows: int = 6):
    samples = found.samples(rows, held_out=False)
    return found.objective.model.tokenize([{name: sample[name] for name in found.recipe.streams} for sample in samples])


def test_pictures_reach_the_words_only_through_the_gates_which_are_closed_at_first():
    found = ready("tiny_flamingo")
    model, batch = found.objective.model.eval(), one_batch(found)
    done = model(batch)
    assert done["latents"].x.shape == (6, 4, 48)
    other = {**batch, "image": batch["image"]._replace(values=batch["image"].values + 1)}
    assert torch.equal(model(other)["lm"].x, done["lm"].x)  # bit for bit: tanh(0) = 0
    loss = found.objective(batch)
    (loss.total / loss.count).backward()
    gates = {name: p for name, p in model.trunks["lm"].named_parameters() if name.endswith("gate")}
    assert gates and all(p.grad.any() for p in gates.values())
    with torch.no_grad():
        for gate in gates.values():
            gate.fill_(1.0)
    assert not torch.equal(model(other)["lm"].x, model(batch)["lm"].x)
    model.zero_grad()
    found.objective(batch).total.backward()
    assert model.trunks["v"].embeds["image"].weight.grad.any() and model.trunks["latents"].tokens.grad.any()


def test_latents_are_as_many_whatever_is_read_and_pooled_like_tokens():
    found = ready("tiny_flamingo")
    model = found.objective.model.eval()
    vectors = model.embed_batch(one_batch(found), "mean", "latents")
    assert len(vectors) == 6 and vectors[0].shape == (48,)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trunks__latents__registers": 0}, "without any, a trunk is of latents: give it registers and cross_attends"),
        ({"trunks__latents__mask": {"causal": True}}, "does not work forward only"),
        ({"trunks__latents__index": True}, "has no order"),
        ({"trunks__latents__position": "rotary"}, "needs tokens with coordinates"),
        ({"trunks__latents__width": 64}, "reads vectors of width 48 with latents of width 64"),
        (
            {
                "trunks__lm__block": {"mixer": None, "cross": None, "nonlinearity": None},
                "trunks__lm__cross_attends": None,
            },
            "it does nothing",
        ),
    ],
)
def test_what_cannot_be_wired(changes, why):
    with pytest.raises(ConfigError, match=why) as caught:
        ready("tiny_flamingo", **changes)
    assert "\n" not in str(caught.value)


def test_two_streams_look_at_each_other():
    found = ready("tiny_vilbert", trunks__both__depth=1)
    model, batch = found.objective.model.double().eval(), one_batch(found)
    batch["image"] = batch["image"]._replace(values=batch["image"].values.double())
    done = model(batch)["both"]
    caption = done.of("caption")
    assert caption.valid is not None and not caption.valid.all()  # captions are of unequal length
    for row in range(len(done.x)):
        alone = {
            "image": batch["image"].rows(slice(row, row + 1)),
            "caption": batch["caption"].rows(slice(row, row + 1)).slice(0, int(caption.valid[row].sum())),
        }
        single = model(alone)["both"]
        keep = caption.valid[row]
        assert torch.allclose(single.of("caption").x[0], caption.x[row, keep], atol=1e-10)
        assert torch.allclose(single.of("image").x[0], done.of("image").x[row], atol=1e-10)
    changed = batch["caption"]._replace(values=batch["caption"].values.flip(1))
    assert not torch.allclose(model({**batch, "caption": changed})["both"].of("image").x, done.of("image").x)
    torch._dynamo.reset()
    compiled = torch.compile(model.trunks["both"].blocks[0], fullgraph=True, backend="eager")
    hidden = model.trunks["both"].join([model.trunks["both"].embed(name, batch[name]) for name in ("image", "caption")])
    from sevenfold.core.types import Mask

    assert torch.allclose(compiled(hidden, Mask()).x, model.trunks["both"].blocks[0](hidden, Mask()).x)


@pytest.mark.parametrize("mixer", ["geometric", "invariant_point"])
def test_a_trunk_of_structures_is_blind_to_moving_all_frames(mixer):
    found = ready("tiny_structure", trunks__enc__block={"mixer": mixer}, trunks__enc__depth=2)
    model, batch = found.objective.model.double().eval(), one_batch(found, 3)
    name = next(name for name, stream in batch.items() if stream.frames is not None)
    frames = batch[name].frames.double()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turn = turn * torch.linalg.det(turn).sign()
    there = frames[..., :3, :].abs().sum((-1, -2), keepdim=True) > 0
    moved = torch.cat([turn @ frames[..., :3, :], frames[..., 3:, :] @ turn.T + torch.tensor([3.0, -8.0, 5.0])], -2)
    streams = {**batch, name: batch[name]._replace(frames=frames)}
    other = {**batch, name: batch[name]._replace(frames=torch.where(there, moved, frames))}
    first, second = (model(streams)["enc"].x, model(other)["enc"].x)
    assert torch.allclose(first, second, atol=1e-5)
    bent = frames.clone()
    bent[:, 3, 3] += 2.0
    assert not torch.allclose(model({**batch, name: batch[name]._replace(frames=bent)})["enc"].x, first, atol=1e-4)


def test_a_trunk_says_that_pictures_have_no_frames():
    data = read(shipped_folder() / "tiny_digits.yaml")
    data["trunks"]["enc"]["block"] = {"mixer": "geometric"}
    with pytest.raises(ConfigError, match="needs tokens with frames"):
        made(data)
    decode(Recipe, data)  # the recipe itself is fine: it is the tokens that lack them
