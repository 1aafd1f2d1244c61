"""What is asked for when a stream is drawn: which stream by which head, how each item begins, what is given; checked, and
turned into tokens, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sevenfold.assembly.prompt import begin, drawable, end, given_rows, never, room
from sevenfold.modality import Modality

if TYPE_CHECKING:
    from sevenfold.assembly.generation.settings import Settings
    from sevenfold.assembly.model import Model
    from sevenfold.assembly.trunk import Trunk

USUAL = 256
"""Most new tokens where neither the settings nor the stream says how many."""


class Request(NamedTuple):
    """One stream to draw.

    begun   the ids [n] that each prompt's row begins with
    given   other streams, name → a raw item per prompt
    grid    coordinates [n axes] of an item's tokens, where all items have the same
    limits  most new tokens of each prompt's row
    fixed   whether these were asked for (or items have one length), and not only usual
    never   ids that are never drawn
    end     the id that ends an item, if any does
    """

    model: Model
    stream: str
    head: str
    place: str
    begun: list[np.ndarray]
    given: dict[str, list[Any]]
    grid: np.ndarray | None
    limits: list[int]
    fixed: bool
    never: Tensor
    end: int | None

    @property
    def trunk(self) -> Trunk:
        return self.model.trunks[self.place]

    @property
    def modality(self) -> Modality:
        return self.model.modalities[self.stream]

    def of(self, prompts: Sequence[int]) -> Request:
        """Of these prompts only."""
        given = {name: [raws[place] for place in prompts] for name, raws in self.given.items()}
        begun, limits = [self.begun[place] for place in prompts], [self.limits[place] for place in prompts]
        return self._replace(begun=begun, given=given, limits=limits)


def asked(model: Model, prompt: Any, stream: str | None, given: dict[str, Any] | None, settings: Settings) -> Request:
    """The request. Raises ConfigError for a stream that cannot be drawn and prompts that do not fit, DataError for raw
    items that are none."""
    stream, head = drawable(model, stream)
    place = model.config.heads[head].trunk
    modality, trunk = model.modalities[stream], model.trunks[place]
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    prompts, raws = given_rows(model, place, stream, prompts, given, "prompt")
    begun = [begin(modality, one) for one in prompts]
    grid = modality.tokenizer.layout()
    if grid is None:
        reach = None if trunk.config.index else trunk.position.reach
        usual = modality.config.length or USUAL
        limits = [room(reach, len(ids), settings.length, usual) for ids in begun]
    else:
        limits = [min(settings.length or len(grid), len(grid))] * len(begun)
    away = torch.tensor(never(modality), dtype=torch.long, device=model.device)
    fixed = grid is not None or settings.length is not None
    return Request(model, stream, head, place, begun, raws, grid, limits, fixed, away, end(modality))
