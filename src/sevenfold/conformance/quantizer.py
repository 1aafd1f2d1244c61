"""What every quantizer must do: see the contract in sevenfold.objective.quantizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import counted, expect, finite, near

ROWS, TOKENS = 4, 24


def made(config: Any, steps: int = 3) -> tuple[Any, Tensor]:
    """One after some steps of training, and vectors to quantize."""
    torch.manual_seed(1)
    quantizer = config.build()
    for _ in range(steps):
        quantizer.forget()
        quantizer(torch.randn(ROWS, TOKENS, quantizer.width))
        quantizer.after_step()
    return quantizer, torch.randn(ROWS, TOKENS, quantizer.width)


def state(quantizer: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def check_codes(config: Any) -> None:
    """ids in 0 … K-1 and, going forward, exactly their vectors; a penalty per vector, none below 0."""
    quantizer, z = made(config)
    found = quantizer.eval()(z)
    expect(found.ids.dtype == torch.int64 and found.ids.shape == z.shape[:-1], "ids are not one int64 per vector")
    expect(((found.ids >= 0) & (found.ids < quantizer.size)).all(), "an id is not in 0 … K-1")
    vectors = quantizer.vectors()
    expect(vectors.shape == (quantizer.size, quantizer.width), f"vectors are {list(vectors.shape)}")
    near(found.x, vectors[found.ids], "the vectors of the ids")
    expect(found.penalty.shape == z.shape[:-1] and (found.penalty >= 0).all(), "the penalty is not one per vector")


def check_gradient(config: Any) -> None:
    """What is quantized gets a finite gradient that is not 0."""
    quantizer, z = made(config)
    z.requires_grad_()
    (quantizer(z).x * torch.randn_like(z)).sum().backward()
    assert z.grad is not None
    finite(z.grad, "the gradient")
    expect(z.grad.any(-1).all(), "a vector gets no gradient")


def check_still(config: Any) -> None:
    """forward changes nothing that is saved, nor does a step that is forgotten; evaluation leaves no trace."""
    quantizer, z = made(config)
    before = state(quantizer)
    quantizer(z)
    quantizer.forget()
    quantizer.after_step()
    quantizer.eval()(z)
    quantizer.train().after_step()
    for name, value in state(quantizer).items():
        expect(torch.equal(value, before[name]), f"{name} has changed")


def check_pieces(config: Any) -> None:
    """A batch in pieces gives the same codes as the batch, up to rounding; padding counts for nothing."""
    states = []
    for pieces in (1, 2, 4):
        quantizer, z = made(config)
        score, valid = torch.rand(z.shape[:-1]), torch.rand(z.shape[:-1]) < 0.7
        quantizer.forget()
        for rows in torch.arange(ROWS).chunk(pieces):
            given = torch.where(valid[rows].unsqueeze(-1), z[rows], z[rows] * (7.0 if pieces > 1 else 1.0))
            quantizer(given, valid[rows], score[rows])
        quantizer.after_step()
        states.append(state(quantizer))
    for other in states[1:]:
        for name, value in other.items():
            near(value.float(), states[0][name].float(), f"{name} after a step in pieces")


def check_use(config: Any) -> None:
    """Perplexity is 0 before any step and 1 … K after; at an even use K, and no code is dead."""
    quantizer, _ = made(config, steps=0)
    expect(quantizer.perplexity() == 0, "has a perplexity before any step")
    quantizer, _ = made(config)
    expect(1 - 1e-6 <= quantizer.perplexity() <= quantizer.size + 1e-6, f"a perplexity of {quantizer.perplexity():g}")
    quantizer.uses.fill_(3.0)
    expect(abs(quantizer.perplexity() / quantizer.size - 1) < 1e-6 and quantizer.dead() == 0, "even use is not K")
    quantizer.uses.zero_()[0] = 1.0
    expect(
        abs(quantizer.perplexity() - 1) < 1e-6 and quantizer.dead() == quantizer.size - 1, "use of one code is not 1"
    )


def check_bf16(config: Any) -> None:
    """Under autocast the codes are those of float32."""
    quantizer, z = made(config)
    quantizer.eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(z)
    expect(torch.equal(found.ids, quantizer(z).ids), "other codes under autocast")


def check_flops(config: Any) -> None:
    """The formula is what PyTorch counts."""
    quantizer, z = made(config)
    quantizer.eval()
    found, wanted = quantizer.flops(ROWS * TOKENS), counted(lambda: quantizer(z))
    expect(found == wanted, f"flops says {found:,}, and {wanted:,} were counted")
