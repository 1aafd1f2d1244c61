"""Trunks of latents, streams that look at each other, tokens with frames: wired as a recipe would."""

from __future__ import annotations

import pytest
import torch

from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.pool import pool
from sevenfold.conformance._kit import counted
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


PROBE = {"mixer": None, "cross": {"kind": "cross", "heads": 4}, "probe": True}


def test_a_probe_is_no_part_of_its_answer():
    """Attention by the probe itself, unnormed, then the feed-forward part in its residual: all by hand, in float64."""
    found = ready("tiny_flamingo", trunks__latents__block=PROBE, trunks__latents__depth=1)
    model, batch = found.objective.model.double().eval(), one_batch(found)
    batch["image"] = batch["image"]._replace(values=batch["image"].values.double())
    trunk, done = model.trunks["latents"], model(batch)
    block, memory, rows = trunk.blocks[0], done["v"].x, len(done["v"].x)
    assert len(block.norms) == len(block.residuals) == 1
    asked = block.cross.query(trunk.tokens).unflatten(-1, (4, 12))
    key, value = (part.unflatten(-1, (4, 12)) for part in block.cross.key_value(memory).chunk(2, -1))
    weights = (torch.einsum("qhd,bkhd->bhqk", asked, key) / 12**0.5).softmax(-1)
    answer = block.cross.out(torch.einsum("bhqk,bkhd->bqhd", weights, value).flatten(2))
    wanted = trunk.norm(answer + block.feed(block.norms[0](answer)))
    assert wanted.shape == (rows, 4, 48)
    assert torch.allclose(done["latents"].x, wanted, atol=1e-12)
    lengths = {"image": batch["image"].values.shape[1]}
    pictures = {"image": batch["image"]}
    assert rows * flops(model, lengths) == counted(lambda: model(pictures)) + rows * heads_and_words(model, lengths)


def flops(model, lengths) -> int:
    """What the formulas count of one row."""
    return sum(cost.flops for cost in model_costs(model, lengths))


def heads_and_words(model, lengths) -> int:
    """What the formula counts of the parts that read no picture."""
    return sum(cost.flops for cost in model_costs(model, lengths) if not cost.place.startswith(("v.", "latents.")))


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ({**PROBE, "nonlinearity": None}, "block.probe: needs a cross mixer .cross_attends. and another part"),
        ({**PROBE, "residual": "hyper_connections"}, "block.probe: 'hyper_connections' carries several streams"),
    ],
)
def test_probes_that_cannot_be(block, why):
    with pytest.raises(ConfigError, match=why) as caught:
        ready("tiny_flamingo", trunks__latents__block=block)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="block.probe: needs a cross mixer"):
        ready("tiny_flamingo", trunks__v__block={"probe": True})


def test_class_and_mean_side_by_side():
    """A classifier of both reads vectors of twice the width, and its products are counted."""
    found = ready("tiny_vit", objective={"kind": "supervised", "pool": "class_mean"})
    model, batch = found.objective.model.eval(), one_batch(found)
    hidden = model(batch)["enc"]
    both = pool(hidden, "class_mean")
    width = hidden.x.shape[-1]
    assert torch.equal(both[:, :width], hidden.x[:, 0])
    assert torch.allclose(both[:, width:], hidden.x[:, 1:].mean(1))
    assert model.heads["label"].projection.weight.shape[1] == 2 * width
    lengths = {"image": batch["image"].values.shape[1]}
    run = counted(lambda: model.head("label", pool(model({"image": batch["image"]})["enc"], "class_mean")))
    assert len(both) * flops(model, lengths) == run
    without = {"trunks__enc__class_token": False, "objective": {"kind": "supervised", "pool": "class_mean"}}
    with pytest.raises(ConfigError, match="has no class token"):
        ready("tiny_vit", **without)


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
