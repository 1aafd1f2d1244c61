"""The rows of a batch over processes: who has which, what is drawn for all of them, and losses averaged over all."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sevenfold.core import ranks
from sevenfold.core.errors import BadSample
from sevenfold.core.types import Batch, Loss
from sevenfold.objective import Objective

Sums = dict[str, tuple[float, float]]


def stopped_by(noted: Sequence[int]) -> int:
    """The signal that some process got, or 0."""
    return max(number for (number,) in ranks.mesh().every.gather_ints([noted[0] if noted else 0]))


def agree_on_batch(batch: Batch | None, broken: Sequence[BadSample]) -> tuple[Batch | None, list[BadSample]]:
    """(this process's rows, what could not be read by some process).

    Processes that should have the same rows get the same (`same_in_group`). Where a process is left without a row, all rows are
    distributed anew; None for all where there are fewer rows than processes.
    """
    every, others = ranks.mesh().every, ranks.data()
    said = every.gather_ints([_rows(batch), len(broken)])
    if all(rows and not found for rows, found in said):
        return batch, []
    bad = gather_bad(broken)
    batch = same_in_group(batch, broken)
    counts = [count for (count,) in others.gather_ints([_rows(batch)])]
    if not all(counts):
        whole, _ = others.gather_batch(batch)
        low, high = (place * sum(counts) // others.size for place in (others.rank, others.rank + 1))
        enough = sum(counts) >= others.size
        batch = {name: stream.rows(slice(low, high)) for name, stream in whole.items()} if enough else None
    return batch, bad


def same_in_group(batch: Batch | None, broken: Sequence[BadSample]) -> Batch | None:
    """The same rows for all of a tensor-parallel or sequence-parallel group: where they could not read the same samples, those of
    the process that could read most."""
    own: Sequence[str] = [error.where for error in broken]
    for others in (ranks.tensor(), ranks.sequence()):
        said = others.gather_objects(own)
        if any(where != said[0] for where in said):
            best = min(range(others.size), key=lambda rank: len(said[rank]))
            batch, own = others.gather_batch(batch if others.rank == best else None)[0] or None, said[best]
    return batch


def in_company(batch: Batch | None) -> Batch | None:
    """The batch, or where a process has none a row of the others' for it to make the same pass with; None for all where nobody has any."""
    others = ranks.data()
    if all(rows for (rows,) in others.gather_ints([_rows(batch)])):
        return batch
    whole, _ = others.gather_batch(batch)
    return batch or {name: stream.rows(slice(0, 1)) for name, stream in whole.items()} or None


def gather_bad(broken: Sequence[BadSample]) -> list[BadSample]:
    """The samples that could not be read, of all processes."""
    said = ranks.mesh().every.gather_objects([[error.where, error.why] for error in broken])
    return [BadSample(where, why) for each in said for where, why in each]


def _rows(batch: Batch | None) -> int:
    return 0 if batch is None else len(next(iter(batch.values())).values)


def drawn_of(objective: Objective, batch: Batch) -> tuple[Batch, dict[str, Tensor], int]:
    """(this process's rows as long as the longest of all, what is drawn for them, how many rows stand before them)."""
    others = ranks.data()
    if others.alone:
        return batch, objective.draw(batch), 0
    if not objective.alike:
        return batch, objective.draw(batch), sum(n for (n,) in others.gather_ints([_rows(batch)])[: others.rank])
    whole, own = others.gather_batch(batch)
    with ranks.whole_batch():
        drawn = objective.draw(whole)
    mine = {name: stream.rows(own) for name, stream in whole.items()}
    return mine, {name: chosen[own] for name, chosen in drawn.items()}, own.start


def sums(loss: Loss | None) -> Sums:
    """Name → (sum, count) of the loss and its terms, as numbers."""
    if loss is None:
        return {}
    every = {"loss": (loss.total, loss.count), **loss.terms}
    return {name: (float(total), float(count)) for name, (total, count) in every.items()}


def means_of(found: Sums) -> dict[str, float]:
    """Means; those without any target (count 0) are left out."""
    return {name: total / count for name, (total, count) in found.items() if count > 0}


def over_ranks(loss: Loss | None, tokens: int, flops: int) -> tuple[dict[str, float], int, int]:
    """Over all processes: the means of the loss and its terms, the number of tokens, of FLOPs."""
    own = sums(loss)
    said = ranks.data().gather_objects([list(own.items()), tokens, flops])
    every: Sums = {}
    for pairs, _, _ in said:
        for name, (total, count) in pairs:
            before = every.get(name, (0.0, 0.0))
            every[name] = (before[0] + total, before[1] + count)
    return means_of(every), sum(n for _, n, _ in said), sum(n for _, _, n in said)
