"""What every balance must do: see the contract in sevenfold.objective.balance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sevenfold.conformance._kit import expect, near

ROWS, SIZE = 24, 10


def made(config: Any, steps: int = 3) -> tuple[Any, Tensor]:
    """One after some steps of training, and scores."""
    torch.manual_seed(1)
    balance = config.build(SIZE)
    for _ in range(steps):
        balance.forget()
        balance(scores(), 0.1)
        balance.after_step()
    return balance, scores()


def scores() -> Tensor:
    """Scores of which one prototype would take nearly all."""
    found = torch.randn(ROWS, SIZE) * 0.1
    found[:, 3] += 1
    return found


def state(balance: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in balance.state_dict().items()}


def check_probabilities(config: Any) -> None:
    """Every row is none below 0 and sums to 1, also where scores are huge."""
    balance, given = made(config)
    for scale in (1.0, 1e4):
        found = balance.eval()(given * scale, 0.04)
        expect(found.shape == given.shape and bool((found >= 0).all()), "gives no probabilities [b k]")
        near(found.double().sum(1), torch.ones(ROWS, dtype=torch.float64), "the sum of a row", 1e-5)


def check_balances(config: Any) -> None:
    """After a hundred steps, a prototype that is liked by all does not take all."""
    balance, given = made(config, 100)
    alone = float((given / 0.1).softmax(-1)[:, 3].mean())
    found = float(balance.eval()(given, 0.1)[:, 3].mean())
    expect(found < 0.3 < 0.9 < alone, f"prototype 3 takes {found:.2f} of the batch, and would take {alone:.2f}")


def check_still(config: Any) -> None:
    """forward changes nothing that is saved, nor does a step that is forgotten; evaluation leaves no trace."""
    balance, given = made(config)
    before = state(balance)
    balance(given, 0.1)
    balance.forget()
    balance.after_step()
    balance.eval()(given, 0.1)
    balance.train().after_step()
    for name, value in state(balance).items():
        expect(torch.equal(value, before[name]), f"{name} has changed")


def check_pieces(config: Any) -> None:
    """A batch in pieces of one step changes what is saved as the whole does."""
    found = []
    for size in (ROWS, ROWS // 3):
        balance, given = made(config)
        for start in range(0, ROWS, size):
            balance(given[start : start + size], 0.1)
        balance.after_step()
        found.append(state(balance))
    for name, value in found[0].items():
        near(found[1][name], value, name, 1e-6)
