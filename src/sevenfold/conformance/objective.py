"""What every objective must do: see the contract in sevenfold.objective. On the tiny recipe of its `example`."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from sevenfold.conformance._kit import RowNoise, Skipped, counted, expect, finite, near
from sevenfold.core.part import decode, find
from sevenfold.core.types import Batch, Loss, Stream
from sevenfold.data.loader import gather
from sevenfold.training.cached import through_pieces
from sevenfold.training.prepare import Ready, prepare
from sevenfold.training.recipe import Recipe

ROWS = 8


@cache
def _ready(kind: str) -> Ready:
    """The example of an objective, ready to train. Copied before anything is changed."""
    return prepare(decode(Recipe, find("objective", kind).example(), "example"))


def made(config: Any) -> tuple[Any, Batch]:
    """The objective on its example, with a batch of it; in evaluation, so nothing but the objective is random."""
    ready = _ready(config.kind)
    objective = copy.deepcopy(ready.objective).eval()
    batch = gather([ready.train[0, index] for index in range(min(ROWS, len(ready.train)))])[0]
    expect(batch is not None, "the example has no samples that can be read")
    assert batch is not None
    return objective, batch


def loss_of(objective: Any, batch: Batch) -> Loss:
    """The loss under noise that depends on the rows only."""
    with torch.random.fork_rng(devices=[]), RowNoise():
        return objective(batch)


def rows_of(batch: Batch, start: int, stop: int) -> Batch:
    """Some rows of a batch."""
    return {name: stream.rows(slice(start, stop)) for name, stream in batch.items()}


def padded(batch: Batch, rows: int = 0, tokens: int = 0) -> Batch:
    """A batch with that many rows of padding more, and that many tokens of padding at the end of each row."""

    def longer(part: Tensor) -> Tensor:
        shape = (part.shape[0] + rows, part.shape[1] + tokens, *part.shape[2:])
        whole = part.new_zeros(shape)
        whole[: part.shape[0], : part.shape[1]] = part
        return whole

    found = {}
    for name, stream in batch.items():
        real = torch.ones(stream.values.shape[:2], dtype=torch.bool) if stream.valid is None else stream.valid
        segments = None if stream.segments is None else longer(stream.segments)
        found[name] = Stream(longer(stream.values), longer(stream.coords), longer(real), segments)
    return found


def check_example(config: Any) -> None:
    """Its example is a recipe that trains with it."""
    expect(_ready(config.kind).objective.kind == config.kind, "the example trains with another objective")


def check_loss(config: Any) -> None:
    """A sum and a count, finite scalars; terms of the same form; outputs without gradients; FLOPs above 0."""
    objective, batch = made(config)
    loss = objective(batch)
    pairs = {"loss": (loss.total, loss.count), **loss.terms}
    for name, (total, count) in pairs.items():
        expect(total.shape == count.shape == (), f"{name} is not a pair of scalars")
        finite(total, name)
        expect(float(count) > 0, f"{name} has a count of {float(count):g}")
    expect(loss.total.requires_grad, "the total has no gradient")
    held = [name for name, value in loss.outputs.items() if value.requires_grad]
    expect(not held, f"outputs {held} hold on to gradients")
    expect(not any(total.requires_grad for total, _ in loss.terms.values()), "a term holds on to gradients")
    missing = set(objective.watched) - loss.terms.keys()
    expect(not missing, f"watches {sorted(missing)}, which the loss does not tell")


def check_initial(config: Any) -> None:
    """Before training, the loss is within 0.1 of what theory expects."""
    objective, batch = made(config)
    wanted = objective.initial(batch)
    if wanted is None:
        raise Skipped("it expects nothing in particular")
    found = float(objective(batch).mean.detach())
    expect(abs(found - wanted) < 0.1, f"starts at {found:.3f}, and theory says {wanted:.3f}")


def check_gradients(config: Any) -> None:
    """Every trainable parameter gets a finite gradient that is not all 0."""
    objective, batch = made(config)
    loss_of(objective.train(), batch).total.backward()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            expect(parameter.grad is not None, f"{name} gets no gradient")
            finite(parameter.grad, f"the gradient of {name}")
            expect(parameter.grad.any(), f"the gradient of {name} is 0")


def check_learns(config: Any) -> None:
    """Sixty steps on one batch lower its loss by a third at least."""
    objective, batch = made(config)
    objective.train()
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    found = []
    for step in range(60):
        loss = objective(batch).mean
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step, 60)
        found.append(float(loss.detach()))
    first, last = found[0], sum(found[-5:]) / 5
    expect(math.isfinite(last) and last < first * 2 / 3, f"the loss goes from {first:.3f} to {last:.3f} only")


def check_accumulation(config: Any) -> None:
    """The sums and counts of the pieces of a batch are those of the batch, if it says that it is decomposable."""
    objective, batch = made(config)
    if not objective.decomposable:
        raise Skipped("compares the rows of a batch")
    batch = in_double(objective, batch)
    rows, drawn = len(next(iter(batch.values())).values), objective.draw(batch)
    whole = objective(batch, drawn)
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for start, stop in ((0, rows // 3), (rows // 3, rows)):
        piece = objective(rows_of(batch, start, stop), {name: choice[start:stop] for name, choice in drawn.items()})
        total, count = total + piece.total, count + float(piece.count)
    near(total, whole.total.double(), "the sum of two pieces", 1e-10 if whole.total.dtype == torch.float64 else 1e-6)
    expect(count == float(whole.count), "the counts of two pieces do not add up")


def check_cached(config: Any) -> None:
    """In training, a batch in pieces gives the loss and the gradients of the whole, if it says that it is cached; what it
    embeds of a row does not depend on the others."""
    objective, batch = made(config)
    if not objective.cached:
        raise Skipped("is not made of vectors of rows")
    expect(not objective.decomposable, "adds up over rows as it is: it need not be cached")
    batch = in_double(objective.train(), batch)
    drawn = objective.draw(batch)
    loss = objective(batch, drawn)
    loss.total.backward()
    wanted = {name: p.grad for name, p in objective.named_parameters()}
    objective.zero_grad()
    pieces = [(slice(0, 3), 1), (slice(3, 4), 2), (slice(4, ROWS), 3)]
    found = through_pieces(objective, batch, drawn, pieces, 4, nullcontext)
    expect(float(found.count) == float(loss.count), "the count of a batch in pieces is another")
    near(found.total, loss.total, "the loss of a batch in pieces", 1e-12)
    for name, parameter in objective.named_parameters():
        if wanted[name] is not None:
            expect(parameter.grad is not None, f"{name} gets no gradient from pieces")
            near(parameter.grad, wanted[name], f"the gradient of {name}, of a batch in pieces", 1e-11)


def in_double(objective: Any, batch: Batch) -> Batch:
    """The batch in float64, and the objective made so."""
    objective.double()
    return {name: s if s.discrete else s._replace(values=s.values.double()) for name, s in batch.items()}


def check_padding(config: Any) -> None:
    """Rows of padding and (where length is free) tokens of padding change nothing."""
    objective, batch = made(config)
    wanted = loss_of(objective, batch)
    tokens = 3 if all(m.tokenizer.layout() is None for m in objective.model.modalities.values()) else 0
    for what, other in (("two rows", padded(batch, rows=2)), ("three tokens", padded(batch, tokens=tokens))):
        found = loss_of(objective, other)
        expect(float(found.count) == float(wanted.count), f"{what} of padding change the count")
        near(found.total, wanted.total, f"the loss with {what} of padding")


def check_nothing(config: Any) -> None:
    """A batch of padding, and one without some stream, have no target or a finite loss; gradients stay finite."""
    objective, batch = made(config)
    rows = len(next(iter(batch.values())).values)
    nothing = {name: stream.rows(slice(rows, None)) for name, stream in padded(batch, rows=3).items()}
    cases = {"a batch of padding": nothing, **{f"a batch without {n!r}": _without(batch, n) for n in batch}}
    for what, other in cases.items():
        if other:
            objective.zero_grad()
            loss = objective(other, objective.draw(other))
            finite(loss.total, f"the loss of {what}")
            expect(float(loss.count) == 0 or other is not nothing, f"{what} counts {float(loss.count):g} targets")
            total = float(loss.total.detach())
            expect(float(loss.count) > 0 or total == 0, f"{what} has a loss of {total:g}")
            loss.total.backward()
            for name, parameter in objective.named_parameters():
                if parameter.grad is not None:
                    finite(parameter.grad, f"the gradient of {name} for {what}")


def _without(batch: Batch, name: str) -> Batch:
    return {other: stream for other, stream in batch.items() if other != name}


def check_repeatable(config: Any) -> None:
    """The seed decides the loss, bit for bit."""
    objective, batch = made(config)
    objective.train()
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(objective(batch).total)
    expect(torch.equal(*found), "the same seed gives another loss")


def check_saves(config: Any) -> None:
    """Its weights and buffers go through a file bit for bit."""
    objective, batch = made(config)
    other, _ = made(config)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(load(save({name: value.clone() for name, value in objective.state_dict().items()})))
    expect(
        torch.equal(loss_of(objective, batch).total, loss_of(other, batch).total), "differs after saving and loading"
    )


def check_flops(config: Any) -> None:
    """The formula is within 5 % of PyTorch's counter."""
    objective, batch = made(config)
    found, wanted = objective.flops(batch), counted(lambda: objective(batch))
    expect(abs(found - wanted) <= 0.05 * wanted, f"flops says {found:,}, and {wanted:,} were counted")


def check_shown(config: Any) -> None:
    """Exhibits are tables of raw items; baselines name terms of the loss."""
    objective, batch = made(config)
    ready = _ready(config.kind)
    for exhibit in objective.exhibits(ready.samples(4), seed=0):
        expect(
            all(len(row) == len(exhibit.columns) for row in exhibit.rows), f"{exhibit.title}: rows of another length"
        )
        for stream, item in (cell for row in exhibit.rows for cell in row):
            if stream is None:
                expect(isinstance(item, str), f"{exhibit.title}: a cell without a stream is no text")
            else:
                objective.model.modalities[stream].html(item)
    expect(objective.exhibits([], seed=0) is not None, "exhibits of no samples is None")
    terms = {"loss", *objective(batch).terms}
    for name, found in objective.baselines([batch], [batch]).items():
        expect(found.keys() <= terms, f"the baseline {name!r} has terms {set(found) - terms}, which the loss has not")
        expect(all(math.isfinite(value) for value in found.values()), f"the baseline {name!r} is not finite")
