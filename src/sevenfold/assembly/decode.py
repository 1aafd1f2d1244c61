"""Drawing a stream token by token from a causal trunk: prompts, other streams as conditions, sampling, guidance.

    logits <- l_0 + w (l_c - l_0)      classifier-free guidance, l_c with the given streams, l_0 without them

w = 1 is no guidance, w = 0 ignores what is given (Ho and Salimans 2022, arXiv:2207.12598, whose w is this minus 1).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from sevenfold.assembly.prompt import begin, conditions, drawable, left, prefix, reads, spread, twice
from sevenfold.core.errors import CheckpointError, ConfigError, did_you_mean
from sevenfold.core.types import Hidden, Stream

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model
    from sevenfold.assembly.trunk import Trunk

NEVER = ("pad", "bos", "mask", "unk")
"""Special tokens that are never drawn."""


@torch.inference_mode()
def generate(
    model: Model,
    prompt: Any = None,
    *,
    stream: str | None = None,
    given: dict[str, Sequence[Any]] | None = None,
    count: int = 1,
    length: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    seed: int = 0,
    seconds: float | None = None,
) -> list[Any]:
    """Raw items of `stream` (by default the only one that can be drawn).

    prompt       how each item begins: one raw item, or a list of them; only for streams of free length
    given        other streams, name → a list of raw items, one each (or one item for all)
    count        items per prompt or per given item
    length       most new tokens (by default what the stream's items have)
    temperature  0 takes the likeliest token; top_k, top_p in (0, 1] narrow the choice
    guidance     how strongly to follow `given` (above 1 needs a model trained with the given streams dropped at times)
    seed         the same seed draws the same items
    seconds      stop after this time, with what there is

    Raises ConfigError for settings out of range and for a model that cannot draw the stream.
    """
    _check(count, length, temperature, top_k, top_p, guidance)
    stream, name = drawable(model, stream)
    place = model.config.heads[name].trunk
    trunk = model.trunks[place]
    modality = model.modalities[stream]
    given = dict(given or {})
    known = [other for other in reads(model, place) if other != stream]
    for other in given:
        if other not in known:
            raise ConfigError(f"given: trunk {place!r} does not read {other!r}{did_you_mean(other, known)}")
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    given = {other: list(raws) if isinstance(raws, list | tuple) else [raws] for other, raws in given.items()}
    rows = max([len(prompts), *(len(raws) for raws in given.values())])
    given = {other: spread(list(raws), rows, other) for other, raws in given.items()}
    prompts = spread(prompts, rows, "prompt")

    begun = begin(modality, [item for item in prompts for _ in range(count)])
    total = rows * count
    guided = guidance != 1.0 and bool(given)
    grid = modality.tokenizer.layout()
    longest = length or (len(grid) if grid is not None else modality.config.length or 256)
    if grid is not None:
        longest = min(longest, len(grid))

    was = model.training
    model.eval()
    try:
        items = [{other: raws[row] for other, raws in given.items()} for row in range(rows) for _ in range(count)]
        batch = {other: tokens.to(model.device) for other, tokens in model.tokenize(items).items()} if given else {}
        pieces, memory = conditions(model, place, batch, guided)
        told = trunk.condition(batch, total)
        if told is not None and guided:
            told = torch.cat([told, cast(Tensor, trunk.condition({}, total))])
        if begun is not None:
            tokens = trunk.embed(stream, begun.to(model.device))
            pieces.append(tokens if not guided else twice(tokens))
        nothing = not pieces and trunk.tokens is None
        if pieces:
            hidden = trunk.join(pieces)
            nothing = hidden.valid is not None and not bool(hidden.valid.any(1).all())
        if nothing:
            raise ConfigError(
                f"to draw {stream!r} from nothing, the trunk needs class_token (its start) or the stream needs ends"
            )
        first: Tensor | None = None
        if pieces:
            first = prefix(trunk.config.mask, hidden, stream)
            hidden = left(hidden)
        else:
            assert trunk.tokens is not None
            like = Hidden(trunk.tokens, torch.zeros(1, 1, len(trunk.axes), dtype=torch.long, device=model.device))
            hidden = trunk.extras(total * (2 if guided else 1), like)[0]
        values = _loop(
            model,
            trunk,
            name,
            stream,
            hidden,
            memory,
            told,
            first,
            longest,
            guided,
            guidance,
            begun,
            temperature,
            top_k,
            top_p,
            seed,
            seconds,
        )
    finally:
        model.train(was)
    return [modality.raw(row, None if grid is None else grid[: len(row)]) for row in values]


def _loop(
    model: Model,
    trunk: Trunk,
    head: str,
    stream: str,
    hidden: Hidden,
    memory: Hidden | None,
    told: Tensor | None,
    first: Tensor | None,
    longest: int,
    guided: bool,
    guidance: float,
    begun: Stream | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    seconds: float | None,
) -> list[np.ndarray]:
    modality = model.modalities[stream]
    specials, grid = modality.tokenizer.specials, modality.tokenizer.layout()
    never = [specials[special] for special in NEVER if special in specials]
    stop = specials.get("eos") if modality.config.ends or grid is None else None
    if stop is None and "eos" in specials:
        never.append(specials["eos"])
    generator = torch.Generator(model.device).manual_seed(seed)
    state = trunk.start(len(hidden.x), hidden.x.shape[1] + longest, told)
    total = len(hidden.x) // (2 if guided else 1)
    lengths = torch.zeros(total, dtype=torch.long, device=model.device)
    if begun is not None:
        lengths = begun.valid.sum(1).to(model.device) if begun.valid is not None else lengths + begun.values.shape[1]
    drawn: list[Tensor] = []
    done = torch.zeros(total, dtype=torch.bool, device=model.device)
    end = None if seconds is None else time.monotonic() + seconds
    for place in range(longest):
        hidden, state = trunk.step(hidden, state, memory, first if place == 0 else None)
        logits = model.head(head, hidden.x[:, -1]).float()
        if guided:
            with_given, without = logits.chunk(2)
            logits = without + guidance * (with_given - without)
        if never:
            logits[:, never] = float("-inf")
        ids = choose(logits, temperature, top_k, top_p, generator)
        if stop is not None:
            ids = torch.where(done, stop, ids)
            done = done | (ids == stop)
        drawn.append(ids)
        if bool(done.all()) or place == longest - 1 or (end is not None and time.monotonic() > end):
            break
        if grid is None:
            coords = (lengths + place)[:, None, None].to(torch.long)
        else:
            coords = torch.as_tensor(grid[place], device=model.device).expand(total, 1, -1)
        hidden = trunk.embed(stream, Stream(ids[:, None], coords))
        hidden = twice(hidden) if guided else hidden
    new = torch.stack(drawn, 1).cpu().numpy() if drawn else np.zeros((total, 0), np.int64)
    before = [np.zeros(0, np.int64)] * total
    if begun is not None:
        kept = begun.valid if begun.valid is not None else torch.ones_like(begun.values, dtype=torch.bool)
        before = [row[keep].numpy() for row, keep in zip(begun.values, kept)]
    return [np.concatenate([old, row]) for old, row in zip(before, new)]


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """logits [b v] → ids [b]. top_k keeps the k likeliest (of equal ones, some); top_p the fewest whose probabilities
    reach p."""
    if torch.isnan(logits).any():
        raise CheckpointError("the model gives numbers that are not finite, so nothing can be drawn from it")
    if temperature == 0:
        return logits.argmax(-1)
    logits = (logits - logits.amax(-1, keepdim=True)) / max(temperature, 1e-30)
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1).indices
        logits = torch.full_like(logits, float("-inf")).scatter(1, kept, logits.gather(1, kept))
    if top_p is not None and top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.masked_fill((before >= top_p).scatter(1, index, before >= top_p), float("-inf"))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def _check(count: int, length: Any, temperature: float, top_k: Any, top_p: Any, guidance: float) -> None:
    if count < 1:
        raise ConfigError(f"count: at least 1, not {count}")
    if length is not None and length < 1:
        raise ConfigError(f"length: at least 1, not {length}")
    if not 0 <= temperature <= 100:
        raise ConfigError(f"temperature: from 0 (the likeliest token) to 100, not {temperature}")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k: at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"top_p: above 0 and at most 1, not {top_p}")
    if not abs(guidance) < 100:
        raise ConfigError(f"guidance: a number below 100, not {guidance}")
