"""Several processes that work on one thing: which one this is, and the collective operations between them.

    all_reduce(x) = sum_r x_r                gradient: the all-reduce of the ranks' gradients
    all_gather(x) = x_0, x_1, … end to end   gradient: of each rank's own rows, summed over ranks
    reduce_backward(x) = x, the same on all  gradient: the all-reduce of the ranks' gradients     (Megatron's f)
    reduce_forward(x) = sum_r x_r            gradient: as it is                                   (Megatron's g)

With these, what is computed on some rows of a batch is what would be computed on all of them: statistics of a batch norm,
prototypes in balance, neighbours to be kept apart. One process alone is a group of one, for which all of it is nothing. f and g:
Shoeybi 2019, arXiv:1909.08053 section 3.

Nothing is pickled: objects go as JSON, in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from sevenfold.core.collective import AllGather, AllReduce, ReduceBackward, ReduceForward, parts, summed
from sevenfold.core.errors import SevenfoldError
from sevenfold.core.types import Batch, Stream


class Ranks(NamedTuple):
    """This process among those of a group."""

    rank: int = 0
    size: int = 1
    group: Any = None
    device: torch.device = torch.device("cpu")
    """On which its processes talk."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    # With gradients
    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.alone:
            return x
        found: Tensor = AllReduce.apply(x, self)
        return found

    def all_gather(self, x: Tensor, axis: int = 0) -> Tensor:
        """The tensors of all ranks end to end along an axis, in the order of ranks; how long each is along it may differ."""
        if self.alone:
            return x
        if axis:
            return self.all_gather(x.movedim(axis, 0).contiguous()).movedim(0, axis)
        found: Tensor = AllGather.apply(x, self)
        return found

    def reduce_backward(self, x: Tensor) -> Tensor:
        """x, the same on all ranks, of which each computes its part of something. Gradient: the sum over ranks."""
        if self.alone:
            return x
        found: Tensor = ReduceBackward.apply(x, self)
        return found

    def reduce_forward(self, x: Tensor) -> Tensor:
        """The sum of the parts of all ranks, the same on all. Gradient: that of the sum, for each."""
        if self.alone:
            return x
        found: Tensor = ReduceForward.apply(x, self)
        return found

    # Without
    def all_reduce_no_grad(self, x: Tensor) -> Tensor:
        """The sum over ranks, without a gradient."""
        return x if self.alone else summed(x.detach(), self)

    def max(self, x: Tensor) -> Tensor:
        """The largest over ranks, each number for itself; without a gradient."""
        if self.alone:
            return x
        whole = x.detach().clone()
        dist.all_reduce(whole, dist.ReduceOp.MAX, group=self.group)
        return whole

    def any(self, said: bool) -> bool:
        """Whether any rank says so."""
        return said if self.alone else bool(self.max(torch.tensor(int(said), device=self.device)))

    def all(self, said: bool) -> bool:
        """Whether all ranks say so."""
        return not self.any(not said)

    def gather_ints(self, own: list[int]) -> list[list[int]]:
        """Some whole numbers of each rank; all ranks give equally many."""
        if self.alone:
            return [own]
        given = torch.tensor(own, dtype=torch.long, device=self.device)
        found = [torch.empty_like(given) for _ in range(self.size)]
        dist.all_gather(found, given, group=self.group)
        return [each.tolist() for each in found]

    def gather_objects(self, said: Any) -> list[Any]:
        """What each rank says: anything that JSON can hold."""
        if self.alone:
            return [said]
        given = torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8).to(self.device)
        return [json.loads(bytes(part.tolist())) for part in parts(given, self)]

    def once(self, do: Callable[[], Any]) -> Any:
        """Done by the first rank, while the others wait; where it fails, it fails everywhere. What it gives, on all: nothing, or
        anything that JSON can hold."""
        if self.alone:
            return do()
        found, why, code = None, None, 2
        if self.first:
            try:
                found = do()
            except SevenfoldError as error:
                why, code = str(error), error.code
                failed: SevenfoldError = error
            except Exception as error:
                self.gather_objects([f"{type(error).__name__}: {error}", 1, None])
                raise
        said = self.gather_objects([why, code, found])[0]
        if said[0] is not None:
            raise failed if self.first else Elsewhere(said[0], said[1])
        return said[2]

    def each(self, do: Callable[[], Any]) -> list[Any]:
        """Done by every rank; what each gives (anything that JSON can hold), on all. Where it fails on one, it fails everywhere."""
        if self.alone:
            return [do()]
        found, failed = None, None
        try:
            found = do()
        except Exception as error:
            failed = error
        said = self.gather_objects([None if failed is None else str(failed), found])
        if failed is not None:
            raise failed
        why = next((why for why, _ in said if why is not None), None)
        if why is not None:
            raise OSError(why)
        return [given for _, given in said]

    def all_gather_named(self, found: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
        """Named tensors [b …] of all ranks, end to end, with gradients; a rank that has none takes part. None where no rank
        has any."""
        if self.alone:
            return None if found is None else dict(found)
        kinds = (
            None
            if found is None
            else [[n, list(x.shape[1:]), str(x.dtype)[6:], x.requires_grad] for n, x in found.items()]
        )
        known = next((each for each in self.gather_objects(kinds) if each is not None), None)
        if known is None:
            return None
        own = {
            name: torch.empty(0, *shape, dtype=getattr(torch, kind), device=self.device).requires_grad_(learns)
            for name, shape, kind, learns in known
        }
        return {name: self.all_gather((found or own)[name]) for name in own}

    def gather_batch(self, batch: Batch | None) -> tuple[Batch, slice]:
        """(the batch of all ranks, padded to the longest row; which rows of it are this rank's)."""
        shape = {} if batch is None else {n: _shape(stream) for n, stream in batch.items()}
        rows = 0 if batch is None or not batch else len(next(iter(batch.values())).values)
        said = self.gather_objects([rows, shape])
        names = list(dict.fromkeys(name for _, shapes in said for name in shapes))
        whole = {}
        for name in names:
            kinds = [shapes[name] for _, shapes in said if name in shapes]
            whole[name] = _widened(batch, name, rows, kinds, self)
        begin = sum(count for count, _ in said[: self.rank])
        return whole, slice(begin, begin + rows)

    def barrier(self) -> None:
        """Wait until all others come here."""
        if not self.alone:
            dist.barrier(group=self.group)


class Elsewhere(SevenfoldError):
    """An error of another rank, which says it; this one only ends with it."""

    elsewhere = True

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Mesh(NamedTuple):
    """The groups that a process is in."""

    data: Ranks = Ranks()
    """Those that have other rows."""
    sequence: Ranks = Ranks()
    """Those that have other tokens of the same rows."""
    tensor: Ranks = Ranks()
    """Those that have other heads and channels, and the same tokens."""
    copies: Ranks = Ranks()
    """Those that have the same heads and channels: whose weights are the same."""
    every: Ranks = Ranks()


_WITHIN = [Mesh()]
"""The groups that what is computed now is computed on; the last one holds (no context variable: compiled blocks read it)."""


def mesh() -> Mesh:
    """All groups of this process."""
    return _WITHIN[-1]


def data() -> Ranks:
    """Those that have other rows of the batch."""
    return _WITHIN[-1].data


def sequence() -> Ranks:
    """Those that have other tokens of the same rows."""
    return _WITHIN[-1].sequence


def tensor() -> Ranks:
    """Those that have other heads and channels of the same tokens."""
    return _WITHIN[-1].tensor


def own(x: Any) -> Tensor:
    """What this process has of a tensor that is in shares (a DTensor); of another, all."""
    found: Tensor = x.to_local() if hasattr(x, "placements") else x
    return found


@contextmanager
def within(mesh: Mesh) -> Iterator[Mesh]:
    """Inside of it, what is computed is computed on these."""
    _WITHIN.append(mesh)
    try:
        yield mesh
    finally:
        _WITHIN.pop()


@contextmanager
def whole_batch() -> Iterator[None]:
    """Inside of it this process has all rows of the batch, whatever others have."""
    with within(mesh()._replace(data=Ranks())):
        yield


def _shape(stream: Stream) -> list[Any]:
    """What another rank must know to have no rows of it: tokens, and of each tensor its shape behind them, its kind."""
    parts = [None if part is None else [list(part.shape[2:]), str(part.dtype)[6:]] for part in stream]
    return [stream.values.shape[1], parts]


def _widened(batch: Batch | None, name: str, rows: int, kinds: list[Any], ranks: Ranks) -> Stream:
    """A stream of all ranks: own rows padded to the longest, or only padding, and then the others'."""
    longest = max(tokens for tokens, _ in kinds)
    own = None if batch is None else batch.get(name)
    padded = own is None or any(tokens < longest for tokens, _ in kinds) or any(parts[2] for _, parts in kinds)
    padded = ranks.any(padded)
    found: list[Tensor | None] = []
    for place in range(len(Stream._fields)):
        kind = next((parts[place] for _, parts in kinds if parts[place] is not None), None)
        if place == Stream._fields.index("valid"):
            kind = [[], "bool"] if padded else None
        if kind is None:
            found.append(None)
            continue
        part = None if own is None else own[place]
        if part is None and place == Stream._fields.index("valid") and own is not None:
            part = torch.ones(own.values.shape[:2], dtype=torch.bool, device=own.values.device)
        made = torch.zeros(rows, longest, *kind[0], dtype=getattr(torch, kind[1]), device=ranks.device)
        if part is not None:
            made[:, : part.shape[1]] = part
        found.append(ranks.all_gather(made))
    return Stream._make(found)
