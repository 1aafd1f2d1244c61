"""Mixtures of experts: the routing against a loop over tokens, the balance, and how it joins every objective's loss."""

from __future__ import annotations

import pytest
import torch

from sevenfold.assembly.block import Block
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.data.loader import gather
from sevenfold.training.fit import fit
from tiny import OBJECTIVES, made, recipe

B, N, D = 2, 9, 16


def moe(**settings):
    torch.manual_seed(0)
    part = decode(find("nonlinearity", "moe").Config, settings).build(D).double()
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return part.eval()


def noise():
    return torch.randn(B, N, D, dtype=torch.float64)


@pytest.mark.parametrize("expert", ["swiglu", "gelu", {"kind": "relu", "inner": 5}])
@pytest.mark.parametrize(("experts", "active"), [(4, 1), (4, 2), (3, 3), (1, 1)])
def test_each_token_goes_through_its_experts(experts, active, expert):
    feed, x = moe(experts=experts, active=active, expert=expert), noise()
    valid = torch.arange(N) < torch.tensor([N, 4])[:, None]
    y = feed(x, valid)
    for b in range(B):
        for n in range(N):
            share = (feed.router.weight @ x[b, n]).softmax(0)
            best = share.argsort(descending=True)[:active]
            scale = share[best].sum() if active > 1 else 1.0
            wanted = sum(share[e] / scale * feed.experts[e](x[b, n][None])[0] for e in best)
            wanted = wanted if valid[b, n] else torch.zeros(D, dtype=torch.float64)
            torch.testing.assert_close(y[b, n], wanted, atol=1e-10, rtol=0)


def test_no_token_is_dropped_when_all_choose_the_same():
    feed, x = moe(experts=4, active=1), noise()
    with torch.no_grad():
        feed.router.weight.zero_()
        feed.router.weight[2] = x.sum((0, 1))
    x = x.abs().mean((0, 1)) + feed.router.weight[2] * torch.rand(B, N, 1, dtype=torch.float64)
    assert (feed(x).abs().sum(-1) > 0).all()


def test_the_balance_is_one_where_experts_share_alike_and_most_where_they_do_not():
    """E sum f P: 1 for uniform routing, E where one expert gets everything; its gradient pulls towards the even."""
    feed = moe(experts=4, active=1, balance=1.0).train()
    eye = torch.eye(4, D, dtype=torch.float64)
    with torch.no_grad():
        feed.router.weight.copy_(eye * 50)
    feed(eye[None])
    assert float(feed.penalty[0] / feed.penalty[1]) == pytest.approx(1.0)
    feed.penalty = None
    feed(eye[:1].expand(1, 8, D))
    assert float(feed.penalty[0] / feed.penalty[1]) == pytest.approx(4.0)
    feed.penalty = None
    with torch.no_grad():
        feed.router.weight.div_(25)
    feed(eye[:1].expand(1, 8, D))
    feed.penalty[0].backward()
    assert feed.router.weight.grad[0, 0] > 0 > feed.router.weight.grad[1:, 0].max()


def test_router_z_is_the_formula():
    feed, x = moe(experts=3, active=2, balance=0.0, router_z=1.0).train(), noise()
    valid = torch.arange(N) < torch.tensor([N, 4])[:, None]
    feed(x, valid)
    wanted = torch.stack([(feed.router.weight @ token).exp().sum().log() ** 2 for token in x[valid]]).mean()
    torch.testing.assert_close(feed.penalty[0] / feed.penalty[1], wanted, atol=1e-10, rtol=0)


def blocks(**settings):
    return {"nonlinearity": {"kind": "moe", "experts": 4, "expert": {"kind": "swiglu", "inner": 8}, **settings}}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_adds_the_balance(tmp_path, objective):
    """In training: the mean over tokens of each mixture, times the count; not in evaluation; cleared once read."""
    losses = {}
    for weight in (0.0, 0.5):
        ready = made(recipe(objective, tmp_path, blocks(balance=weight)))
        batch = gather([ready.train[(0, index)] for index in range(8)])[0]
        assert "balance" not in ready.objective(batch).terms
        torch.manual_seed(5)
        losses[weight] = ready.objective.train()(batch)
        assert all(getattr(module, "penalty", None) is None for module in ready.objective.modules())
    total, count = losses[0.5].terms["balance"]
    assert 0.4 * 2 < float(total / count) < 0.5 * 2 * 3  # about 1 for each of two layers, times the weight
    added = losses[0.5].total - losses[0.0].total
    torch.testing.assert_close(added.detach(), total, atol=1e-3, rtol=1e-4)
    assert torch.equal(losses[0.5].count, losses[0.0].count)


def test_a_forgotten_pass_does_not_leak(tmp_path):
    """What a training pass outside of the objective left is not added to the next loss."""
    ready = made(recipe("masked_token", tmp_path, blocks(balance=1.0)))
    ready.objective.train()
    batch = gather([ready.train[(0, index)] for index in range(8)])[0]
    torch.manual_seed(5)
    wanted = ready.objective(batch).total
    ready.model(batch)
    torch.manual_seed(5)
    assert torch.equal(ready.objective(batch).total, wanted)


def used(ready):
    """The share of choices on the expert that gets the most, in the first block."""
    batch = gather([ready.train[(0, index)] for index in range(16)])[0]
    feed, seen = ready.model.trunks["lm"].blocks[0].feed, []
    hook = feed.router.register_forward_hook(lambda _, __, out: seen.append(out))
    ready.objective.eval()(batch)
    hook.remove()
    return float(seen[0].argmax(-1).bincount(minlength=4).max() / len(seen[0]))


def test_training_balances_experts(tmp_path):
    """From a router that sends everything to one expert, the balance spreads tokens out; without it they stay."""
    found = {}
    for weight in (0.0, 0.5):
        data = recipe("next_token", tmp_path, blocks(active=1, balance=weight), steps=40, optimizer={"lr": 3e-2})
        ready = made(data)
        feed = ready.model.trunks["lm"].blocks[0].feed
        with torch.no_grad():
            feed.router.weight[0] += 0.15 * torch.ones(16)
            feed.router.weight[1:] -= 0.05 * torch.randn(3, 16)
            ready.model.trunks["lm"].blocks[0].norms[1].bias += 1.0
        assert used(ready) > 0.9
        fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False)
        found[weight] = used(ready)
    assert found[0.5] < 0.6 and found[0.5] < found[0.0], found


def test_mixtures_train_compiled(tmp_path, monkeypatch):
    """Whole blocks are traced (fullgraph), and the losses are those of the plain run; without generating code."""
    compiling = torch.nn.Module.compile
    monkeypatch.setattr(Block, "compile", lambda self, **how: compiling(self, backend="eager", **how))
    logs = []
    for compiled in (False, True):
        ready = made(recipe("masked_token", tmp_path, blocks(), steps=3, compile=compiled))
        logs.append(fit(ready.objective, ready.train, ready.held_out, ready.recipe.train, bar=False).log)
    for plain, whole in zip(*logs):
        if "loss" in plain:
            assert plain["loss"] == pytest.approx(whole["loss"], rel=1e-4)
            assert plain["balance"] == pytest.approx(whole["balance"], rel=1e-3)


def test_refusals():
    with pytest.raises(ConfigError, match=r"nonlinearity.active: 3 of 2 experts"):
        moe(experts=2, active=3)
    with pytest.raises(ConfigError, match=r"nonlinearity.expert.inner"):
        moe(inner=3)
