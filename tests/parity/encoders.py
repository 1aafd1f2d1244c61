"""What every encoder that fills in masked words is held to against transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from twins import comes_back, layers, precisely, same, same_gradients, twin, words


def streams_and_logits(reference: Any, ids: Tensor, valid: Tensor, normed: bool = False) -> None:
    """The stream before and after every block (`normed`: their last one is after the norm), the logits. `valid` all True:
    ours is told nothing of it."""
    dtype = next(reference.parameters()).dtype
    _, model, _ = twin(reference)
    (name,) = model.heads
    with precisely(dtype):
        theirs = reference(ids, attention_mask=valid.long(), output_hidden_states=True)
    given = words(ids, None if valid.all() else valid)
    done, seen = layers(model.trunks["enc"], lambda: model({name: given})["enc"])
    assert len(seen) == len(theirs.hidden_states)
    for ours, their in zip([*seen[:-1], done.x] if normed else seen, theirs.hidden_states):
        same(ours, their, valid)
    same(done.x, theirs.hidden_states[-1], valid)
    same(model.head(name, done.x), theirs.logits, valid)


def loss_and_gradients(
    reference: Any, ids: Tensor, valid: Tensor, chosen: Tensor, mask: int, aside: Any = None
) -> None:
    """The loss of hidden words and every gradient. `aside` is called with the reference before gradients are compared, to
    forget those that are of no word of ours."""
    dtype = next(reference.parameters()).dtype
    family, model, objective = twin(reference, "masked_token")
    (name,) = model.heads
    corrupted = torch.where(chosen, mask, ids)
    given = words(ids, None if valid.all() else valid)
    with precisely(dtype):
        theirs = reference(corrupted, attention_mask=valid.long())
    loss = F.cross_entropy(theirs.logits[chosen], ids[chosen])
    ours = objective({name: given}, {"chosen": chosen, "seen": corrupted})
    same(ours.mean, loss)
    if dtype == torch.float32:
        labels = ids.masked_fill(~chosen, -100)
        same(ours.mean, reference(corrupted, attention_mask=valid.long(), labels=labels).loss)
    loss.backward()
    ours.mean.backward()
    if aside is not None:
        aside(reference)
    same_gradients(reference, family, model)


def way_back(reference: Any, run: Any) -> None:
    """Every number as it was, in a reference that is read from what ours writes; `run(reference)` gives the same to the bit."""
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert torch.equal(run(again), run(reference))
