"""Residuals against loops over their equations, and against the plain residual that they begin as; dropout and extra tokens."""

from __future__ import annotations

import pytest
import torch

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find
from sevenfold.core.types import Stream
from sevenfold.data.loader import gather
from tiny import made, recipe

B, N, D, C = 2, 5, 8, 6
EXACT = {"atol": 1e-10, "rtol": 0}


def noise(*shape):
    return torch.randn(*(shape or (B, N, D)), dtype=torch.float64)


def stirred(module, scale=0.3):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return module


# Gated
def test_gated_is_the_formula_and_begins_closed():
    part = find("residual", "gated").Config().build(D, 0, 2, 0, C).double()
    x, told = noise(), noise(B, C)
    assert torch.equal(part(x, torch.tanh, told), x)
    y = stirred(part)(x, torch.tanh, told)
    for b in range(B):
        gate = part.weight @ (told[b] * torch.sigmoid(told[b])) + part.bias
        torch.testing.assert_close(y[b], x[b] + gate * x[b].tanh(), **EXACT)


# Hyper-connections, Zhu 2024, arXiv:2409.19606
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("streams", [1, 2, 4])
def test_hyper_connections_are_their_matrices(streams, dynamic):
    """Token by token: h_0 = A_m^T H, H <- A_r^T H + B^T f(h_0) (eq. 1-5), with the dynamic weights of eq. 10-13."""
    torch.manual_seed(0)
    part = find("residual", "hyper_connections").Config(streams=streams, dynamic=dynamic).build(D, 1, 4).double()
    stirred(part)
    h, f = noise(B, N, streams, D), torch.tanh
    found = part(h, f)
    for b in range(B):
        for n in range(N):
            wide, one = h[b, n], part.write[None, :].clone()
            a_m, a_r = part.read[:, :1].clone(), part.read[:, 1:].clone()
            if dynamic:
                normed = torch.stack([(r - r.mean()) / (r.var(unbiased=False) + 1e-5).sqrt() for r in wide])
                one = one + part.write_scale * (normed @ part.write_weight.T).tanh().T
                a_m = a_m + part.read_scale * (normed @ part.read_weight[:1].T).tanh()
                a_r = a_r + part.read_scale * (normed @ part.read_weight[1:].T).tanh()
            wanted = a_r.T @ wide + one.T @ f(a_m.T @ wide)
            torch.testing.assert_close(found[b, n], wanted, **EXACT)


def pair(folder, block, **trunk):
    """Two models with the same weights: the plain residual, and hyper-connections."""
    found = []
    for residual in ({"kind": "add"}, {"kind": "hyper_connections", **block}):
        data = recipe("next_token", folder, {"residual": residual})
        data["trunks"]["lm"] |= {"depth": 3, **trunk}
        found.append(made(data))
    plain, hyper = found
    state = plain.model.state_dict()
    missing, unexpected = hyper.model.load_state_dict(state, strict=False)
    assert not unexpected and missing and all(".residuals." in name for name in missing)
    return plain, hyper


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("block", [{}, {"dynamic": False}, {"streams": 2}])
def test_hyper_connections_begin_as_the_plain_residual(tmp_path, block, final_norm):
    plain, hyper = pair(tmp_path, block, final_norm=final_norm)
    batch = gather([plain.train[(0, index)] for index in range(3)])[0]
    plain.model.double(), hyper.model.double()
    wanted, found = plain.model(batch)["lm"].x, hyper.model(batch)["lm"].x
    torch.testing.assert_close(found, wanted, **EXACT)


def test_hyper_connections_step_as_they_run(tmp_path):
    """Generation token by token gives what one pass gives, and padding changes nothing."""
    _, hyper = pair(tmp_path, {})
    trunk = stirred(hyper.model.double()).trunks["lm"]
    ids = torch.randint(200, (2, 9))
    stream = Stream(ids, torch.arange(9)[None, :, None].expand(2, -1, -1))
    wanted = trunk({"text": stream}).x
    state, found = trunk.start(2, 9), []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        hidden, state = trunk.step(trunk.embed("text", stream.slice(start, stop)), state)
        found.append(hidden.x)
    torch.testing.assert_close(torch.cat(found, 1), wanted, **EXACT)
    longer = Stream(torch.nn.functional.pad(ids, (0, 3)), torch.arange(12)[None, :, None].expand(2, -1, -1))
    padded = trunk({"text": longer._replace(valid=(torch.arange(12) < 9).expand(2, -1))}).x
    torch.testing.assert_close(padded[:, :9], wanted, **EXACT)


def test_streams_take_turns_over_branches():
    """Branch k reads stream k mod s: two branches a block."""
    reads = []
    for index in range(2):
        for place in range(2):
            part = find("residual", "hyper_connections").Config(streams=3).build(D, index, 2, place)
            reads.append(int(part.read[:, 0].argmax()))
            assert torch.equal(part.read[:, 1:], torch.eye(3)) and torch.equal(part.write, torch.ones(3))
    assert reads == [0, 1, 2, 0]


def test_residuals_of_different_streams_are_refused(tmp_path):
    data = recipe("next_token", tmp_path)
    data["trunks"]["lm"]["block"] = [{"residual": "add"}, {"residual": "hyper_connections"}]
    with pytest.raises(ConfigError, match=r"residuals of \[1, 4\] streams do not stand in one trunk"):
        made(data)


# Dropout and extra tokens
def test_dropout_drops_its_share_and_keeps_the_mean(tmp_path):
    """Srivastava 2014: of what a branch gives, and of the embedded tokens; none in evaluation."""
    data = recipe("next_token", tmp_path, {"dropout": 0.3, "nonlinearity": None})
    data["trunks"]["lm"] |= {"dropout": 0.2, "depth": 1, "width": 64}
    trunk = made(data).model.trunks["lm"]
    block = trunk.blocks[0].train()
    stirred(block)
    hidden = trunk.embed(
        "text", Stream(torch.randint(200, (64, 20)), torch.arange(20)[None, :, None].expand(64, -1, -1))
    )
    hidden = trunk._around(hidden, None)
    whole = block.eval()(hidden, _causal()).x - hidden.x
    part = block.train()(hidden, _causal()).x - hidden.x
    gone = part.abs() < 1e-6
    assert abs(float(gone.float().mean()) - 0.3) < 5 * (0.21 / gone.numel()) ** 0.5
    torch.testing.assert_close(part[~gone], whole[~gone] / 0.7, atol=1e-5, rtol=1e-4)
    share = (trunk.train()._finish(hidden).x == 0).float().mean()
    assert abs(float(share) - 0.2) < 5 * (0.16 / gone.numel()) ** 0.5
    assert torch.equal(trunk.eval()._finish(hidden).x, hidden.x)


def _causal():
    from sevenfold.core.types import Mask

    return Mask(causal=True)


def test_class_and_register_tokens_learn_and_are_not_pooled(tmp_path):
    """Registers (Darcet 2023, arXiv:2309.16588) work inside and are dropped from what is pooled; class tokens are read."""
    from sevenfold.assembly.pool import pool

    data = recipe("supervised", tmp_path)
    data["trunks"]["enc"] |= {"class_token": True, "registers": 3}
    ready = made(data)
    batch = gather([ready.train[(0, index)] for index in range(6)])[0]
    hidden = ready.model.trunks["enc"](batch)
    assert hidden.spans == {"class": (0, 1), "registers": (1, 4), "image": (4, hidden.x.shape[1])}
    torch.testing.assert_close(pool(hidden, "mean"), hidden.x[:, 4:].mean(1))
    assert torch.equal(pool(hidden, "class"), hidden.x[:, 0])
    ready.objective(batch).total.backward()
    assert (ready.model.trunks["enc"].tokens.grad.abs().sum(1) > 0).all()
