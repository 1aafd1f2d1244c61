"""Showing what was drawn: text as it comes, items when they are whole, files, log-probabilities."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sevenfold.core.files import write_atomic

if TYPE_CHECKING:
    from sevenfold.assembly.generation import Drawn
    from sevenfold.assembly.model import Model

FOLDER = Path("generated")
"""Where files go unless somebody says where."""
MEASURED = 100_000
"""Letters of a text that perplexity is measured on."""


def stream(
    model: Model,
    name: str,
    prompt: Sequence[str] | None,
    given: dict[str, Any],
    draft: Model | None,
    settings: dict[str, Any],
    out: Path | None,
) -> None:
    """Print one text as it is drawn, prompt first."""
    from sevenfold.assembly.prompt import encoded

    modality, accepted = model.modalities[name], None
    pieces = model.stream(prompt, stream=name, given=given, draft=draft, **settings)
    begun = encoded(modality, prompt[0] if prompt else None)
    text = modality.raw(begun) if len(begun) else ""
    print(text, end="", flush=True)
    for piece in pieces:
        print(piece.text, end="", flush=True)
        text, accepted = text + piece.text, piece.accepted
    print()
    _tell(accepted)
    if out is not None:
        print(saved(out, name, *modality.file(text)))


def show(model: Model, name: str, drawn: Sequence[Drawn], out: Path | None, logprobs: bool) -> None:
    """Print whole items, and save those that are no text (or all, with a folder)."""
    modality = model.modalities[name]
    for one in drawn:
        print(modality.plain(one.raw))
        if logprobs:
            for id, value in zip(one.ids, one.logprobs):
                print(f"{value:9.4f}  {modality.tokenizer.piece(id)}")
            print(f"{one.logprob:9.4f}  in all, {len(one.ids)} tokens; it stopped by {one.stopped}")
        ending, content = modality.file(one.raw)
        if out is not None or ending != ".txt":
            print(saved(out or FOLDER, name, ending, content))
        _tell(one.accepted)


def fill(
    model: Model, items: list[str] | None, name: str | None, given: dict[str, Any], settings: dict[str, Any]
) -> tuple[str, list[Drawn]]:
    """(stream, items with what was hidden filled in)."""
    from sevenfold.assembly import generation
    from sevenfold.assembly.generation.unmasking import fillable

    name = fillable(model, name)[0]
    return name, generation.fill(model, items, stream=name, given=given, **settings)


def pack(model: Model, kind: str, name: str | None, measured: tuple[str, str] | None) -> None:
    """Keep a model's weights in fewer bytes; what that costs is told, where there is a text that it draws to measure on."""
    from sevenfold.assembly.generation.told import writes
    from sevenfold.assembly.packing import perplexity
    from sevenfold.assembly.prompt import drawable, drawables

    text, place = measured or ("", "")
    stream = drawable(model, name)[0] if drawables(model) else None
    if stream is None or not writes(model.modalities[stream]):
        model.quantize(kind)
        print(f"{kind}: not measured, as perplexity is of models that draw text", file=sys.stderr)
        return
    text = text[:MEASURED]
    count = len(model.modalities[stream].tokenizer.encode(text).values) if text else 0
    if count < 2:
        model.quantize(kind)
        print(f"{kind}: not measured: give a text as --data", file=sys.stderr)
        return
    before = perplexity(model, text, stream)
    after = perplexity(model.quantize(kind), text, stream)
    print(f"{kind}: perplexity {before:.5g} before, {after:.5g} after, on {count:,} tokens of {place}", file=sys.stderr)


def _tell(accepted: float | None) -> None:
    if accepted is not None:
        print(f"guessed ahead: {100 * accepted:.0f} % kept", file=sys.stderr)


def saved(folder: Path, stream: str, ending: str, content: bytes) -> Path:
    """Write under the next free number, so that nothing drawn before is lost."""
    number = 1
    while (path := folder / f"{stream}-{number}{ending}").exists():
        number += 1
    write_atomic(path, content)
    return path
