"""What many processes need, each, by formula: memory, what is sent in a step, and how much of the time that costs.

    rows      memory  W + G + S + A                      sends  2 (n-1)/n G
    shard     memory  (W + G + S)/n + 2 B + A            sends  3 (n-1)/n G a piece      B the weights of the largest unit
    sequence  memory  … + A/C                            sends  … + 3 (C-1)/C K          K keys and values of all blocks
    tensor    memory  … of what is cut 1/T               sends  … + 2 (T-1)/T (2 X + Y)  X what the parts that are cut give

W weights, G gradients, S optimizer state (bytes, float32), A what a process keeps of its own rows; every process has as many rows
as the recipe says, so n of them see n times as many in a step. A ring sends (n-1)/n of a tensor to collect or to add it up, twice
that to do both (Patarasuk 2009, doi:10.1016/j.jpdc.2008.09.002); shares are collected in both passes, and gradients added up:
Rajbhandari 2020, arXiv:1910.02054 section 7. Heads and channels: one sum forward and one backward, Shoeybi 2019, arXiv:1909.08053
section 3, and gradients of what is cut are added up among n/T. Y has a gradient only: the memory, for each cross-attention, and the
bias [rows heads n n] of a position that learns, which each process makes for all heads. What is sent while the backward pass runs (two thirds of a step) costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from sevenfold.training.estimate import Estimate
from sevenfold.training.hardware import BANDWIDTH_SHARE, Hardware

NODE = 8
"""Accelerators of a machine."""
LINKS = {
    "NVIDIA A100 80GB SXM": (300e9, 25e9),
    "NVIDIA H100 80GB SXM": (450e9, 50e9),
    "NVIDIA H200 SXM": (450e9, 50e9),
}
"""Bytes a second from one accelerator: to its neighbours (NVLink, one way, data sheets), to other machines (one port of 200 or
400 Gb/s each, as in NVIDIA's DGX A100 and H100 systems)."""
CABLE = (5e9, 1.25e9)
"""Elsewhere: through memory, and 10 Gb/s between machines."""


class Layout(NamedTuple):
    """One way to share the work; bytes and seconds of one process in one step."""

    processes: int
    way: str
    memory: int
    sent: int
    seconds: float
    """Of a step."""
    efficiency: float
    """Of the time of a process alone with its part of the work, the share that is left when all talk."""
    together: int = 1
    """How many have the same rows."""


class Facts(NamedTuple):
    """What one process alone needs, in bytes and seconds; `cut_…`: what of it processes can share by heads and channels."""

    held: int
    gradients: int
    kept: int
    block: int
    """The weights of the largest block, or of what is in none."""
    keys: int
    """What is sent for the keys and values of all blocks, and for their gradients, to one who has none of them."""
    given: int
    """What the parts that are cut give, in all pieces of a batch."""
    memory: int
    """What cross-attentions that are cut read of a memory with a gradient, in all pieces."""
    bias: int
    """What positions that learn add to scores, in all pieces."""
    pieces: int
    seconds: float
    cut_held: float
    cut_gradients: float
    cut_kept: float
    cut_block: float
    cut_seconds: float

    def parts(self, less: float) -> tuple[float, float, float]:
        """held, kept and block, without that share of what is cut."""
        return self.held - less * self.cut_held, self.kept - less * self.cut_kept, self.block - less * self.cut_block


def layouts(
    found: Estimate, hardware: Hardware, processes: int, sequence: int = 1, tensor: int = 1, again: bool = False
) -> list[Layout]:
    """What each way to share the work over so many processes needs. `found`: of one process alone with its rows; `again`: whether
    blocks are computed again in the backward pass."""
    if found.seconds is None:
        return []
    fits, facts = not unshared(found, tensor), _facts(found)
    made = []
    for spread in dict.fromkeys((1, sequence if facts.keys else 1)):
        for heads in dict.fromkeys((1, tensor if fits else 1)):
            for shares in (False, True) if spread == 1 else (True,):
                if not processes % (spread * heads):
                    made.append(_layout(facts, hardware, processes, shares, spread, heads, again))
    return made


def unshared(found: Estimate, among: int) -> str:
    """Why so many processes cannot share heads and channels, in a line; nothing where they can."""
    units = {cost.place: cost.cut.units for cost in found.costs if cost.cut.units}
    if not units:
        return "no block of this model has a part that can be cut"
    place = next((place for place, count in units.items() if count % among), None)
    if place is None:
        return ""
    many = units[place]
    return f"{place} " + ("cannot be cut" if many == 1 else f"is of {many} equal parts, which {among} does not divide")


def _facts(found: Estimate) -> Facts:
    size, number = 2 if found.precision != "fp32" else 4, found.rows_a_piece * found.pieces
    blocks: dict[str, tuple[float, float]] = {}
    held, gradients = found.memory["weights"] + found.memory["optimizer state"], found.memory["gradients"]
    cut_weights = cut_gradients = inside = seconds = 0.0
    given = memory = bias = 0
    for cost, time in zip(found.costs, found.times):
        head, blocked, rest = cost.place.partition(".blocks.")
        unit = f"{head}.{rest.partition('.')[0]}" if blocked else "rest"
        weights, part = blocks.get(unit, (0.0, 0.0))
        cut = cost.cut.parameters
        blocks[unit] = weights + 4 * cost.parameters, part + 4 * cut
        if cut:
            cut_weights += 4 * cut
            cut_gradients += 4 * cut * cost.trained / cost.parameters
            inside += (
                found.rows_a_piece * max(0, cost.kept - cost.cut.gives - cost.cut.whole) * (4 if cost.wide else size)
            )
            given += number * cost.cut.gives * size
            memory += number * cost.cut.memory * size
            bias += number * cost.cut.bias * 4
            seconds += time
    kept = max(0, found.peak - held - gradients)
    state = found.memory["optimizer state"] * cut_gradients / max(gradients, 1)
    block, cut_block = max(blocks.values())
    return Facts(
        held=held + gradients,
        gradients=gradients,
        kept=kept,
        block=int(block),
        keys=sum(cost.cached[0] for cost in found.costs) * number * (size + 8),
        given=given,
        memory=memory,
        bias=bias,
        pieces=found.pieces,
        seconds=found.seconds or 0.0,
        cut_held=cut_weights + state + cut_gradients,
        cut_gradients=cut_gradients,
        cut_kept=min(inside, kept),
        cut_block=cut_block,
        cut_seconds=seconds,
    )


def _layout(
    facts: Facts, hardware: Hardware, n: int, shares: bool, sequence: int, tensor: int, again: bool
) -> Layout:  # fmt: skip
    inside, outside = LINKS.get(hardware.name, CABLE)
    rate, near = (BANDWIDTH_SHARE * (inside if count <= NODE else outside) for count in (n, sequence * tensor))
    less, others = 1 - 1 / tensor, n // tensor
    held, kept, block = (facts.held, facts.kept, facts.block) if tensor == 1 else facts.parts(less)
    cut = facts.cut_gradients / tensor if tensor > 1 else 0.0
    whole = facts.gradients - (facts.cut_gradients if tensor > 1 else 0.0)
    sums = (n - 1) / n * whole + (others - 1) / others * cut
    hidden_sent = (3 * facts.pieces if shares else 2) * sums
    spread = (sequence - 1) / sequence * facts.keys / tensor
    summed = ((3 if again else 2) * facts.given + facts.bias) / sequence + facts.memory
    heads = 2 * (tensor - 1) / tensor * summed
    memory = (facts.held / n + 2 * block if shares else held) + kept / sequence
    compute = (facts.seconds - less * facts.cut_seconds) / sequence
    hides = compute if shares else 2 / 3 * compute
    seconds = compute + max(0.0, hidden_sent / rate - hides) + (spread + heads) / near
    named = [
        *(["shard"] if shares else []),
        *([f"sequence {sequence}"] if sequence > 1 else []),
        *([f"tensor {tensor}"] if tensor > 1 else []),
    ]
    sent = int(hidden_sent + spread + heads)
    way = ", ".join(named) or "rows"
    return Layout(n, way, int(memory), sent, seconds, compute / seconds, sequence * tensor)
