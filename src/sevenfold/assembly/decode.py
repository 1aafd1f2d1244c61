"""Drawing a stream token by token from a causal trunk: prompts, other streams as conditions, sampling, guidance.

    logits <- l_0 + w (l_c - l_0)      classifier-free guidance, l_c with the given streams, l_0 without them

w = 1 is no guidance, w = 0 ignores what is given (Ho and Salimans 2022, arXiv:2207.12598, whose w is this minus 1).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.core.types import Hidden, Stream, Tokens
from sevenfold.data.collate import collate

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
    given        other streams, name → raw items, one each (or one for all)
    count        items per prompt or per given item
    length       most new tokens (by default what the stream's items have)
    temperature  0 takes the likeliest token; top_k, top_p in (0, 1] narrow the choice
    guidance     how strongly to follow `given` (above 1 needs a model trained with the given streams dropped at times)
    seed         the same seed draws the same items
    seconds      stop after this time, with what there is

    Raises ConfigError for settings out of range and for a model that cannot draw the stream.
    """
    _check(count, length, temperature, top_k, top_p, guidance)
    stream, name = _drawable(model, stream)
    trunk: Trunk = model.trunks[model.config.heads[name].trunk]  # type: ignore[assignment]
    modality = model.modalities[stream]
    given = dict(given or {})
    for other in given:
        if other not in trunk.config.inputs or other == stream:
            raise ConfigError(f"given: trunk does not read {other!r}{did_you_mean(other, trunk.config.inputs)}")
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    rows = max([len(prompts), *(len(raws) for raws in given.values())])
    conditions = {other: _spread(list(raws), rows, other) for other, raws in given.items()}
    prompts = _spread(prompts, rows, "prompt")

    begun = _begin(modality, [item for item in prompts for _ in range(count)])
    total = rows * count
    guided = guidance != 1.0 and bool(given)
    grid = modality.tokenizer.layout()
    longest = length or (len(grid) if grid is not None else modality.config.length or 256)
    if grid is not None:
        longest = min(longest, len(grid))

    was = model.training
    model.eval()
    try:
        pieces = []
        for other, raws in conditions.items():
            batch = model.tokenize([{other: raw} for raw in raws for _ in range(count)])[other].to(model.device)
            pieces.append(_doubled(trunk.embed(other, batch), guided))
        if begun is not None:
            tokens = trunk.embed(stream, begun.to(model.device))
            pieces.append(tokens if not guided else _twice(tokens))
        if not pieces and trunk.tokens is None:
            raise ConfigError(
                f"to draw {stream!r} from nothing, the trunk needs class_token (its start) or the stream needs ends"
            )
        if pieces:
            hidden = _left(trunk.join(pieces))
        else:
            like = Hidden(trunk.tokens, torch.zeros(1, 1, len(trunk.axes), dtype=torch.long, device=model.device))  # type: ignore[arg-type]
            hidden = trunk.extras(total, like)[0]
        values = _loop(
            model,
            trunk,
            name,
            stream,
            hidden,
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
    state = trunk.start(len(hidden.x), hidden.x.shape[1] + longest)
    total = len(hidden.x) // (2 if guided else 1)
    lengths = torch.zeros(total, dtype=torch.long, device=model.device)
    if begun is not None:
        lengths = begun.valid.sum(1).to(model.device) if begun.valid is not None else lengths + begun.values.shape[1]
    drawn: list[Tensor] = []
    done = torch.zeros(total, dtype=torch.bool, device=model.device)
    end = None if seconds is None else time.monotonic() + seconds
    for place in range(longest):
        hidden, state = trunk.step(hidden, state)
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
        hidden = _twice(hidden) if guided else hidden
    new = torch.stack(drawn, 1).cpu().numpy() if drawn else np.zeros((total, 0), np.int64)
    before = [np.zeros(0, np.int64)] * total
    if begun is not None:
        kept = begun.valid if begun.valid is not None else torch.ones_like(begun.values, dtype=torch.bool)
        before = [row[keep].numpy() for row, keep in zip(begun.values, kept)]
    return [np.concatenate([old, row]) for old, row in zip(before, new)]


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> Tensor:
    """logits [b v] → ids [b]. top_k keeps the k likeliest; top_p the fewest whose probabilities reach p."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
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


def _drawable(model: Model, stream: str | None) -> tuple[str, str]:
    """(stream, head) that a causal trunk can draw."""
    can = {
        head.stream: name
        for name, head in model.config.heads.items()
        if head.stream is not None
        and head.pool == "none"
        and model.config.trunks[head.trunk].mask.causal
        and head.stream in model.config.trunks[head.trunk].inputs
        and model.modalities[head.stream].tokenizer.size is not None
    }
    if not can:
        raise ConfigError("this model draws nothing: it has no causal trunk with a head for one of its streams of ids")
    if stream is None:
        if len(can) > 1:
            raise ConfigError(f"stream: say which of {sorted(map(str, can))} to draw")
        stream = next(iter(can))
    if stream not in can:
        raise ConfigError(f"stream: {stream!r} cannot be drawn{did_you_mean(stream, map(str, can))}")
    return stream, can[stream]


def _spread(items: list[Any], rows: int, name: str) -> list[Any]:
    if len(items) == 1:
        return items * rows
    if len(items) != rows:
        raise ConfigError(f"{name}: {len(items)} items where {rows} are needed (or one for all)")
    return items


def _begin(modality: Any, prompts: list[Any]) -> Stream | None:
    """The tokens that each row of the stream begins with: its begin token and its prompt; None if there are none."""
    rows = []
    for prompt in prompts:
        specials = modality.tokenizer.specials
        ids = [np.array([specials["bos"]])] if modality.config.ends else []
        if prompt is not None and not (isinstance(prompt, str) and not prompt):
            if modality.tokenizer.layout() is not None:
                raise ConfigError("prompt: items of this stream have a fixed size, so they cannot be continued")
            ids.append(modality.tokenizer.encode(modality.check(prompt)).values)
        rows.append(np.concatenate(ids) if ids else np.zeros(0, np.int64))
    if not any(len(row) for row in rows):
        return None
    return collate([{"x": Tokens(row.astype(np.int64), np.arange(len(row))[:, None])} for row in rows])["x"]


def _twice(hidden: Hidden) -> Hidden:
    """The rows, and the same rows again for the unguided half."""
    return Hidden(
        *(None if part is None else torch.cat([part, part]) for part in hidden[:4]),  # type: ignore[arg-type]
        spans=hidden.spans,
    )


def _doubled(hidden: Hidden, guided: bool) -> Hidden:
    """A given stream: there for the guided half, absent for the other."""
    if not guided:
        return hidden
    valid = (
        torch.ones(hidden.x.shape[:2], dtype=torch.bool, device=hidden.x.device)
        if hidden.valid is None
        else hidden.valid
    )
    return _twice(hidden)._replace(valid=torch.cat([valid, torch.zeros_like(valid)]))


def _left(hidden: Hidden) -> Hidden:
    """Padding moved to the front of each row, so that every row's last token is its newest."""
    if hidden.valid is None:
        return hidden
    order = hidden.valid.long().argsort(dim=1, stable=True)

    def moved(part: Tensor | None) -> Tensor | None:
        if part is None:
            return None
        index = order if part.dim() == 2 else order.unsqueeze(-1).expand(-1, -1, part.shape[-1])
        return part.gather(1, index)

    return hidden._replace(x=moved(hidden.x), coords=moved(hidden.coords), valid=moved(hidden.valid), spans=None)  # type: ignore[arg-type]
