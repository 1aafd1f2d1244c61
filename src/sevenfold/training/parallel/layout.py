"""What many processes need, each, by formula: memory, what is sent in a step, and how much of the time that costs.

    rows      memory  W + G + S + A                      sends  2 (n-1)/n G
    shard     memory  (W + G + S)/n + 2 B + A            sends  3 (n-1)/n G a piece      B the weights of the largest unit
    sequence  memory  … + A/C                            sends  … + 3 (C-1)/C K          K keys and values of all blocks

W weights, G gradients, S optimizer state (bytes, float32), A what a process keeps of its own rows; every process has as many rows
as the recipe says, so n of them see n times as many in a step. A ring sends (n-1)/n of a tensor to collect or to add it up, twice
that to do both (Patarasuk 2009, doi:10.1016/j.jpdc.2008.09.002); shares are collected in both passes, and gradients added up:
Rajbhandari 2020, arXiv:1910.02054 section 7. What is sent while the backward pass runs (two thirds of a step) costs nothing.
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
    """Of the time of a process alone with its rows, the share that is left when all talk."""


def layouts(found: Estimate, hardware: Hardware, processes: int, sequence: int = 1) -> list[Layout]:
    """What each way to share the work over so many processes needs. `found`: of one process alone with its rows."""
    if found.seconds is None:
        return []
    weights, gradients = found.memory["weights"], found.memory["gradients"]
    state = found.memory["optimizer state"]
    kept = max(0, found.peak - weights - gradients - state)
    blocks: dict[str, int] = {}
    for row in found.rows:
        head, blocked, rest = row.place.partition(".blocks.")
        unit = f"{head}.{rest.partition('.')[0]}" if blocked else "rest"
        blocks[unit] = blocks.get(unit, 0) + 4 * row.parameters
    keys = sum(row.cached[0] for row in found.rows) * found.rows_a_piece * found.pieces
    share = (processes - 1) / processes
    inside, outside = LINKS.get(hardware.name, CABLE)
    rate = BANDWIDTH_SHARE * (inside if processes <= NODE else outside)
    ways = [
        ("rows", weights + gradients + state + kept, 2 * share * gradients),
        (
            "shard",
            (weights + gradients + state) // processes + 2 * max(blocks.values()) + kept,
            3 * found.pieces * share * gradients,
        ),
    ]
    made = [_layout(processes, way, memory, sent, 0.0, 1, found.seconds, rate) for way, memory, sent in ways]
    if keys and 1 < sequence <= processes and not processes % sequence:
        memory, sent = ways[1][1] - kept + kept // sequence, ways[1][2]
        spread = (sequence - 1) / sequence * keys * ((2 if found.precision != "fp32" else 4) + 8)
        near = BANDWIDTH_SHARE * (inside if sequence <= NODE else outside)
        way = f"shard, sequence {sequence}"
        made.append(
            _layout(processes, way, memory, sent + spread, spread / near, sequence, found.seconds, rate, spread)
        )
    return made


def _layout(
    processes: int, way: str, memory: int, sent: float, waits: float, sequence: int, alone: float, rate: float, apart: float = 0.0
) -> Layout:  # fmt: skip
    compute = alone / sequence
    hidden = compute if way.startswith("shard") else 2 / 3 * compute
    seconds = compute + max(0.0, (sent - apart) / rate - hidden) + waits
    return Layout(processes, way, memory, int(sent), seconds, compute / seconds)
