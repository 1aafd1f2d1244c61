"""What a model costs: every trunk and head, for one row of the batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sevenfold.assembly.cost import Cost, cost_of, trained
from sevenfold.assembly.cost.tokens import known_tokens
from sevenfold.assembly.cost.trunk import trunk_costs
from sevenfold.assembly.pool import WIDER

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model


def model_costs(
    model: Model,
    lengths: Mapping[str, int],
    masked: Iterable[str] = (),
    asked: Mapping[str, int] | None = None,
) -> list[Cost]:
    """One row of the batch through every trunk and head, part by part.

    lengths   stream → tokens
    masked    streams whose rows have masks of their own
    asked     head → how many tokens it is asked about, where these are not all of its stream
    """
    known, found, shaded = known_tokens(model, lengths), [], set(masked)
    flowing: dict[str, bool] = {}
    for name, trunk in model.trunks.items():
        config, memory = trunk.config, trunk.config.cross_attends or ""
        reads = {given: flowing[given] for given in (*config.inputs, memory) if given in flowing}
        hides = any(given in shaded for given in config.inputs) or trunk.splice is not None
        found += trunk_costs(trunk, name, known, known.get(memory, 0), hides, reads)
        flowing[name] = bool(trained(trunk)) or any(reads.values())
        shaded |= {name} if hides else set()
    for name, head in model.heads.items():
        config = head.config
        number = 1 if config.pool != "none" else known.get(config.stream or "", known[config.trunk])
        found.append(head_cost(model, name, (asked or {}).get(name, number), flowing[config.trunk]))
    return found


def head_cost(model: Model, name: str, tokens: int, flows: bool = True) -> Cost:
    """A head that is asked about so many tokens. It keeps its input; what the loss keeps (a softmax, or a difference) is not counted
    here."""
    head = model.heads[name]
    width = int(model.config.trunks[head.config.trunk].width) * WIDER.get(head.config.pool, 1)
    flops = 2 * tokens * width * head.outputs + (2 * tokens * width**2 if head.dense is not None else 0)
    given = tokens * width * (4 if head.dense is not None else 1)
    learns = flows or bool(trained(head))
    cost = cost_of(f"heads.{name}", head.config.projection.kind, [head], flops, flows, learns, kept=given)
    if head.config.projection.part.reads_table and learns:
        table: Any = model.trunks[head.config.trunk].embeds[head.config.stream or ""]
        cost = cost._replace(backward=flops * (bool(table.weight.requires_grad) + flows))
    return cost._replace(outputs=tokens * head.outputs, each=head.outputs)
