"""Norms against PyTorch's own and closed forms, in float64; and what a condition does to a trunk."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find
from sevenfold.core.types import Stream
from sevenfold.data.loader import gather
from tiny import made, recipe

B, N, D, C = 3, 7, 24, 10
EXACT = {"atol": 1e-12, "rtol": 0}


def norm(kind: str, condition: int | None = None, **settings):
    torch.manual_seed(0)
    part = find("normalization", kind).Config(**settings).build(D, condition).double()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return part


def noise(*shape):
    return torch.randn(*(shape or (B, N, D)), dtype=torch.float64) * 3 + 1


def ragged():
    valid = torch.arange(N) < torch.tensor([7, 4, 2])[:, None]
    return valid


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_batch_is_batch_norm_over_valid_tokens(momentum, padded):
    """Output, gradients, running statistics, and evaluation: nn.BatchNorm1d on the valid tokens laid in one line."""
    ours, reference = norm("batch", momentum=momentum), nn.BatchNorm1d(D, momentum=momentum).double()
    reference.load_state_dict({**ours.state_dict(), "num_batches_tracked": torch.tensor(0)})
    valid = ragged() if padded else None
    keep = torch.ones(B, N, dtype=torch.bool) if valid is None else valid
    for _ in range(3):
        x = noise().requires_grad_()
        y, wanted = ours(x, None, valid)[keep], reference(x[keep])
        torch.testing.assert_close(y, wanted, **EXACT)
        weight = torch.randn_like(y)
        found = torch.autograd.grad((y * weight).sum(), [x, ours.weight, ours.bias])
        for a, b in zip(found, torch.autograd.grad((wanted * weight).sum(), [x, reference.weight, reference.bias])):
            torch.testing.assert_close(a, b, **EXACT)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(reference, name), **EXACT)
    x = noise()
    torch.testing.assert_close(ours.eval()(x), reference.eval()(x.flatten(0, 1)).view_as(x), **EXACT)


def test_batch_takes_streams_side_by_side():
    ours, x, valid = norm("batch"), noise(B, N, 2, D), ragged()
    wanted = F.batch_norm(x[valid].flatten(0, 1), None, None, ours.weight, ours.bias, training=True)
    torch.testing.assert_close(ours(x, None, valid)[valid].flatten(0, 1), wanted, **EXACT)


def test_batch_statistics_are_in_checkpoints(tmp_path):
    data = recipe("supervised", tmp_path, {"norm": "batch"})
    state = made(data).objective.state_dict()
    assert any(name.endswith("running_var") for name in state)


@pytest.mark.parametrize("groups", [1, 3, 8, 24])
def test_group_is_group_norm_of_each_token(groups):
    ours, reference, x = norm("group", groups=groups), nn.GroupNorm(groups, D).double(), noise()
    reference.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), reference(x.flatten(0, 1)).view_as(x), **EXACT)
    if groups == 1:
        layer = nn.LayerNorm(D).double()
        layer.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(x), layer(x), **EXACT)


def test_groups_divide_the_width():
    with pytest.raises(ConfigError, match="5 groups do not divide the width 24"):
        find("normalization", "group").Config(groups=5).build(D)


def test_adaptive_is_the_formula():
    ours, x, told = norm("adaptive", C), noise(), noise(B, C)
    y = ours(x, told)
    for b in range(B):
        scale, shift = (ours.weight @ (told[b] / (1 + (-told[b]).exp())) + ours.bias).split(D)
        for n in range(N):
            plain = (x[b, n] - x[b, n].mean()) / (x[b, n].var(unbiased=False) + 1e-6).sqrt()
            torch.testing.assert_close(y[b, n], plain * (1 + scale) + shift, **EXACT)


def test_adaptive_begins_as_plain_layer_norm():
    ours, x = find("normalization", "adaptive").Config().build(D, C).double(), noise()
    assert torch.equal(ours(x, noise(B, C)), F.layer_norm(x, (D,), eps=1e-6))


@pytest.mark.parametrize(("room", "kind"), [("normalization", "adaptive"), ("residual", "gated")])
def test_no_condition_is_said(room, kind, tmp_path):
    field = {"normalization": "norm", "residual": "residual"}[room]
    with pytest.raises(
        ConfigError, match=rf"trunks\.lm: block: {field}: {kind} reads a condition.*condition to a stream"
    ):
        made(recipe("next_token", tmp_path, {field: kind}))


# A trunk with a condition
BLOCK = {"norm": "adaptive", "residual": "gated"}


def conditional(folder, **more):
    data = recipe("masked_token", folder, BLOCK)
    data["data"] = {"kind": "digits", "limit": 60}
    data["streams"] = {"caption": {"kind": "text", "ends": True}, "label": {"kind": "label"}}
    data["trunks"]["enc"] |= {"inputs": ["caption"], "condition": "label", **more}
    data["objective"] = {"kind": "masked_token", "stream": "caption"}
    ready = made(data)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in ready.objective.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return ready


def test_the_condition_reaches_every_token(tmp_path):
    ready = conditional(tmp_path)
    trunk, batch = ready.model.trunks["enc"], gather([ready.train[(0, i)] for i in range(6)])[0]
    assert "label" not in (trunk(batch).spans or {})
    table = trunk.conditioner.embed.weight
    torch.testing.assert_close(trunk.condition(batch, 6), table[batch["label"].values[:, 0]])
    other = {**batch, "label": batch["label"]._replace(values=(batch["label"].values + 1) % 10)}
    changed = (trunk(batch).x - trunk(other).x).abs().amax(-1)
    assert (changed[batch["caption"].valid] > 1e-4).all()


def test_an_absent_condition_is_one_learned_vector(tmp_path):
    """Absent from the batch, from a row, or dropped in training: the same."""
    ready = conditional(tmp_path, condition_dropout=0.5)
    trunk, batch = ready.model.trunks["enc"], gather([ready.train[(0, i)] for i in range(6)])[0]
    without = trunk({"caption": batch["caption"]}).x
    label: Stream = batch["label"]
    none = label._replace(valid=torch.zeros(6, 1, dtype=torch.bool))
    assert torch.equal(trunk({**batch, "label": none}).x, without)
    one = torch.ones(6, 1, dtype=torch.bool)
    one[2] = False
    found = trunk({**batch, "label": label._replace(valid=one)}).x
    torch.testing.assert_close(found[2], without[2])
    assert not torch.allclose(found[3], without[3])
    trunk.train()
    rows = label._replace(values=label.values[:1].expand(4000, -1))
    dropped = (trunk.condition({"label": rows}, 4000) == trunk.conditioner.null).all(1).float().mean()
    assert abs(dropped - 0.5) < 5 * (0.25 / 4000) ** 0.5
    loss = ready.objective.train()({"caption": batch["caption"]})
    loss.total.backward()
    assert trunk.conditioner.null.grad.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"condition": "labell"}, "trunks.enc.condition: there is no stream 'labell'; did you mean 'label'?"),
        ({"condition": "caption"}, "trunks.enc.condition: 'caption' is among its inputs already: take it out of one"),
    ],
)
def test_wrong_conditions(tmp_path, change, said):
    with pytest.raises(ConfigError) as error:
        conditional(tmp_path, **change)
    assert str(error.value) == said


def test_an_objective_that_forgets_the_condition_is_told(tmp_path):
    ready = conditional(tmp_path)
    trunk, batch = ready.model.trunks["enc"], gather([ready.train[(0, i)] for i in range(2)])[0]
    with pytest.raises(ConfigError, match="the condition 'label' was not handed on"):
        trunk.mix(trunk.join([trunk.embed("caption", batch["caption"])]))


def test_drawing_follows_the_condition(tmp_path):
    """Step by step gives what one pass gives; guidance 0 draws as without a label, and labels change what is drawn."""
    data = recipe("next_token", tmp_path, BLOCK)
    data["data"] = {"kind": "digits", "limit": 60}
    data["streams"] = {"caption": {"kind": "text", "ends": True}, "label": {"kind": "label"}}
    data["trunks"]["lm"] |= {"inputs": ["caption"], "condition": "label"}
    ready = made(data)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in ready.objective.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    trunk, batch = ready.model.double().trunks["lm"], gather([ready.train[(0, i)] for i in range(3)])[0]
    batch["caption"] = batch["caption"].slice(0, 5)._replace(valid=None)
    wanted = trunk(batch).x
    state, found = trunk.start(3, 5, trunk.condition(batch, 3)), []
    for place in range(5):
        hidden, state = trunk.step(trunk.embed("caption", batch["caption"].slice(place, place + 1)), state)
        found.append(hidden.x)
    torch.testing.assert_close(torch.cat(found, 1), wanted, atol=1e-10, rtol=0)
    labels = [ready.source[index]["label"] for index in range(10)]
    how = {"stream": "caption", "temperature": 0, "length": 12}
    free = ready.model.generate(**how)
    assert ready.model.generate(given={"label": labels}, guidance=0.0, **how) == free * 10
    assert len(set(ready.model.generate(given={"label": labels}, **how))) > 1
