"""What a training step should need, by formula, before it is run: memory over the course of the step, and seconds.

    held      weights + optimizer state + batch (+ gradients, where a batch is taken in pieces)
    forward   held + kept of the parts so far + outputs
    backward  held + kept of the parts to come + gradients so far + 2 largest tensor of the part
    step      held + gradients + scratch
    seconds   sum over parts of products / rate + bytes moved / bandwidth + operations overhead, and the optimizer's

The peak is the largest of the moments. Parts give their formulas themselves (sevenfold.assembly.cost); under bf16 what
parts keep takes half, and the products keep casts of their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from sevenfold.assembly.cost import Cost
from sevenfold.blocks.mixing._documents import SHORTEST
from sevenfold.core.errors import DataError
from sevenfold.core.types import Batch, Stream
from sevenfold.objective import Objective, _told
from sevenfold.training.hardware import Hardware
from sevenfold.training.optimizer import Optimizer
from sevenfold.training.prepare import Ready
from sevenfold.training.recipe import TrainConfig

FORWARD_OPS, BACKWARD_OPS = 4, 8
"""Operations of a part that each cost an overhead."""
MOVED = 3
"""How often what is kept is moved: written, read, and as large a gradient written and read in part."""
UPDATE = 24
"""Numbers that an optimizer's pointwise operations move per weight, clipping and the mean over the count included."""


class Shape(NamedTuple):
    """What the formulas need to know of a batch: tokens of every stream, the streams whose rows have masks of their own,
    the bytes of a row, and whether rows are packed with documents that are attended to one by one."""

    lengths: dict[str, int]
    masked: frozenset[str]
    bytes: int
    packed: bool = False


class Estimate(NamedTuple):
    """What a step needs. `memory` and `peak` in bytes, `flops` forward and backward of the whole batch, `seconds` or None
    where nothing is known of the hardware."""

    costs: list[Cost]
    pieces: int
    rows_a_piece: int
    precision: str
    memory: dict[str, int]
    peak: int
    moment: str
    flops: tuple[int, int]
    seconds: float | None
    times: list[float]
    """Seconds of each of `costs`, forward and backward."""

    @property
    def parameters(self) -> int:
        return sum(cost.parameters for cost in self.costs)

    @property
    def cache(self) -> tuple[int, int]:
        """Numbers of state that generation carries: after an item of full length, and those of its last token."""
        whole = sum(cost.cached[0] for cost in self.costs)
        return whole, whole - sum(cost.cached[1] for cost in self.costs)


def shape_of(batch: Batch) -> Shape:
    """The shape of a batch."""
    masked = {name for name, stream in batch.items() if _masked(stream)}
    number = len(next(iter(batch.values())).values)
    size = sum(part.nbytes for stream in batch.values() for part in stream if isinstance(part, torch.Tensor))
    packed = any(s.segments is not None and name not in masked for name, s in batch.items())
    return Shape({name: s.values.shape[1] for name, s in batch.items()}, frozenset(masked), size // number, packed)


def _masked(stream: Stream) -> bool:
    """Whether rows have masks of their own; those of several documents have none where each is attended to by itself."""
    if stream.segments is None or stream.valid is not None:
        return stream.valid is not None
    documents = len(stream.segments) + int((stream.segments.diff(dim=1) != 0).sum())
    return documents * SHORTEST > stream.segments.numel()


def shape(ready: Ready) -> Shape:
    """The shape of a batch of the recipe's own, from its first training items."""
    number = min(ready.batch, len(ready.train), 64)
    batch = ready.train.batch([(0, index) for index in range(number)])[0]
    if batch is None:
        raise DataError(f"{ready.recipe.data.path}: none of the first {number} training items can be read")
    return shape_of(batch)


def estimate(
    objective: Objective, given: Shape, settings: TrainConfig, precision: str, hardware: Hardware | None = None
) -> Estimate:
    """What a step of `settings.batch` rows in `settings.accumulate` pieces needs. Nothing is run; weights may be on the
    device "meta"."""
    costs, batch = objective.costs(given.lengths, given.masked), settings.batch or 32
    number, bf16 = math.ceil(batch / settings.accumulate), precision != "fp32"
    cpu = hardware is None or hardware.kind == "cpu"
    if given.packed:  # one document's scores at a time
        costs = [cost._replace(scored=(0, 0)) for cost in costs]
    pieced = {cost.place: in_pieces(cost, number, bf16, cpu) for cost in costs} if objective.in_pieces else {}
    pieces = math.ceil(batch / number)
    every = dict(objective.named_parameters())
    learned = {name: parameter for name, parameter in every.items() if parameter.requires_grad}
    weights = 4 * sum(p.numel() for p in every.values()) + sum(b.nbytes for b in objective.buffers())
    gradients = 4 * sum(p.numel() for p in learned.values())
    held = {
        "weights": weights,
        "optimizer state": 4 * state_numbers(settings.optimizer, learned),
        "batch": batch * given.bytes,
    }
    kept = [number * bytes_kept(cost._replace(outputs=0) if pieced.get(cost.place) else cost, bf16) for cost in costs]
    again = blocks_of(costs) if settings.recompute else [None] * len(costs)
    casts = sum(2 * cost.parameters for cost in costs if cost.flops and not cost.wide) if bf16 else 0
    scratch = settings.optimizer.part.scratch(learned)
    peak, moment, beside = _course(
        costs,
        kept,
        pieced,
        number,
        bf16,
        sum(held.values()) + casts,
        gradients if pieces > 1 else 0,
        bf16 and cpu,
        again,
    )
    if settings.recompute:
        kept = [0 if block else numbers for block, numbers in zip(again, kept)]
        kept.append(sum(number * _stream(cost, bf16) for cost in costs))
    last = sum(held.values()) + gradients + scratch
    if last > peak:
        peak, moment, beside = last, "optimizer step", scratch
    memory = {
        **held, "gradients": gradients, "activations": sum(kept) + casts, "outputs and scratch": beside,
    }  # fmt: skip
    once = pieces * sum(cost.once for cost in costs)
    done = [cost._replace(backward=cost.backward + cost.flops) if block else cost for cost, block in zip(costs, again)]
    if pieces > 1 and objective.cached:  # every piece is embedded twice
        done = [cost._replace(flops=2 * cost.flops) for cost in done]
    flops = (batch * sum(r.flops for r in done) + once, batch * sum(r.backward for r in done) + 3 * once)
    times = [] if hardware is None else [pieces * _seconds(cost, number, bf16, hardware) for cost in done]
    seconds = None
    if hardware is not None:
        rate, moved = hardware.rate(False), UPDATE * gradients + 2 * held["optimizer state"]
        seconds = sum(times) + moved / hardware.bandwidth + settings.optimizer.part.flops(learned) / rate
        seconds += 8 * len(learned) * hardware.overhead
    return Estimate(costs, pieces, number, precision, memory, peak, moment, flops, seconds, times)


def bytes_kept(cost: Cost, bf16: bool) -> int:
    """Bytes that one row of the batch leaves for the backward pass in a part; of a head the softmax of its outputs, or
    their difference from what was wanted, in float32."""
    return cost.kept * (2 if bf16 and not cost.wide else 4) + 4 * cost.outputs


class Pieces(NamedTuple):
    """Bytes of a head whose logits are made some places at a time: while they are, and until its gradient is used."""

    moment: int
    ahead: int


def in_pieces(cost: Cost, number: int, bf16: bool, cpu: bool = True) -> Pieces | None:
    """None for a part that is no head, and where all logits are made at once. `cpu`: whether it runs on a CPU."""
    if not cost.each or number * cost.outputs <= _told.LARGE:
        return None
    places, size = min(_told.ROWS, number * cost.outputs // cost.each), 2 if bf16 else 4
    matrix = cost.flops * cost.each // (2 * cost.outputs)
    ahead = 4 * matrix if cost.backward else 0
    looked = 8 * (_told.together(places, cost.each) if cpu else places)
    return Pieces((places * size + looked) * cost.each + (size * matrix if ahead else 0), ahead)


def _course(
    costs: Sequence[Cost],
    kept: Sequence[int],
    pieced: Mapping[str, Pieces | None],
    number: int,
    bf16: bool,
    held: int,
    before: int,
    scored: bool,
    again: Sequence[str | None],
) -> tuple[int, str, int]:
    """(the largest sum of a step's forward and backward pass, when that is, what of it is neither held nor kept)."""
    size = 2 if bf16 else 4
    live, peak, moment, beside = held + before, 0, "", 0

    def seen(when: str, extra: int) -> None:
        nonlocal peak, moment, beside
        if live + extra > peak:
            peak, moment, beside = live + extra, when, extra

    for cost, numbers, block in zip(costs, kept, again):
        pieces = pieced.get(cost.place)
        live += number * _stream(cost, bf16) if block else numbers + (pieces.ahead if pieces else 0)
        seen("forward pass", pieces.moment if pieces else number * cost.outputs * (size + 4 * bf16))
    done, inside = 0, None
    for cost, numbers, block in zip(reversed(costs), reversed(kept), reversed(again)):
        if block and block != inside:  # computed again: all that is inside of it is there, beside what went in
            live += sum(n - number * _stream(r, bf16) for r, n, place in zip(costs, kept, again) if place == block)
        inside, pieces = block, pieced.get(cost.place)
        extra = number * ((4 if cost.exact else size) * cost.scratch + (0 if pieces else 8 * cost.outputs))
        extra = max(extra, pieces.ahead if pieces else 0)
        if scored and cost.scored[0]:
            # beside two thirds of the rest: what is given, and gradients of queries, keys, values
            extra = max(extra, 2 * extra // 3 + cost.scored[0] * min(number, cost.scored[1]))
        seen("outputs" if cost.outputs else "backward pass", done + max(extra, 4 * cost.trained))
        live -= numbers + (pieces.ahead if pieces else 0)
        done += 0 if before else 4 * cost.trained
        seen("backward pass", done)
    return peak, moment, beside


def blocks_of(costs: Sequence[Cost]) -> list[str | None]:
    """The place of the block that each part is in, or None."""
    found: list[str | None] = []
    place = None
    for cost in costs:
        if cost.stream:
            place = cost.place.rpartition(".")[0]
        elif place is None or not cost.place.startswith(f"{place}."):
            place = None
        found.append(place)
    return found


def _stream(cost: Cost, bf16: bool) -> int:
    """Bytes that go into the block which begins with a part."""
    return cost.stream * (2 if bf16 and not cost.wide else 4)


def state_numbers(optimizer: Optimizer.Config, trained: Mapping[str, nn.Parameter]) -> int:
    """Numbers that an optimizer keeps about these parameters, seen on a twin with sides of at most 2."""
    twin = {name: nn.Parameter(torch.zeros([min(side, 2) for side in p.shape])) for name, p in trained.items()}
    made = optimizer.build(twin)
    for parameter in twin.values():
        parameter.grad = torch.zeros_like(parameter)
    made.step(1.0)
    count = 0
    for key, value in made.tensors().items():
        name = key.rpartition("|")[0]
        count += trained[name].numel() if value.shape == twin[name].shape else value.numel()
    return count


def _seconds(cost: Cost, number: int, bf16: bool, hardware: Hardware) -> float:
    """Seconds of one piece in a part, forward and backward."""
    if not (cost.flops or cost.kept or cost.outputs):
        return 0.0
    flops = number * (cost.flops + cost.backward)
    # a tied head has no matrix of its own
    matrix = cost.flops * cost.each // (2 * cost.outputs) if cost.outputs else cost.parameters
    side = math.sqrt(max(matrix, 1)) if cost.flops else 1.0
    moved = MOVED * number * bytes_kept(cost, bf16) + (3 if cost.backward else 1) * 4 * cost.parameters * bool(
        cost.flops
    )
    operations = FORWARD_OPS + (BACKWARD_OPS if cost.kept else 0)
    return flops / hardware.rate(bf16, side) + moved / hardware.bandwidth + operations * hardware.overhead


def table(found: Estimate) -> list[dict[str, Any]]:
    """One dict per part, as plain data."""
    times: list[Any] = list(found.times) or [None] * len(found.costs)
    size = found.precision != "fp32"
    return [
        {
            "part": cost.place,
            "kind": cost.kind,
            "parameters": cost.parameters,
            "trained": cost.trained,
            "forward": cost.flops,
            "backward": cost.backward,
            "kept": bytes_kept(cost, size),
            "cache": 4 * cost.cached[0],
            "seconds": seconds,
        }
        for cost, seconds in zip(found.costs, times)
    ]
