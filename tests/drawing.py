"""Tiny models to draw from, with weights large enough that what they draw depends on what they read."""

from __future__ import annotations

from typing import Any

import torch

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core.part import decode


def lively(model: Model, std: float = 0.4, seed: int = 0) -> Model:
    """Its matrices redrawn."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std, generator=generator)
    return model.eval()


def built(streams: dict[str, Any], trunks: dict[str, Any], heads: dict[str, Any], raws: Any = (), **more: Any) -> Model:
    """A model in float64; tokenizers that learn, learn from `raws`."""
    config = decode(ModelConfig, {"streams": streams, "trunks": trunks, "heads": heads})
    modalities = {name: stream.build() for name, stream in config.streams.items()}
    for modality in modalities.values():
        modality.fit(raws)
    return lively(Model(config, modalities), **more).double()


def speaker(
    mixer: Any = "attention", text: dict[str, Any] | None = None, raws: Any = (), std=0.4, seed=0, **trunk: Any
):
    """A causal trunk over text (bytes, with ends, unless `text` says else)."""
    stream = {"kind": "text", **(text or {})}
    lm = {"inputs": ["text"], "width": 16, "depth": 2, "mask": {"causal": True}, "block": {"mixer": mixer}, **trunk}
    return built({"text": stream}, {"lm": lm}, {"text": {"trunk": "lm", "stream": "text"}}, raws, std=std, seed=seed)


def translator(seed: int = 0) -> Model:
    """An encoder, and a decoder that reads it by cross-attention."""
    streams = {"source": {"kind": "text"}, "target": {"kind": "text"}}
    trunks = {
        "enc": {"inputs": ["source"], "width": 16, "depth": 1},
        "dec": {"inputs": ["target"], "cross_attends": "enc", "width": 16, "depth": 2, "mask": {"causal": True}},
    }
    return built(streams, trunks, {"target": {"trunk": "dec", "stream": "target"}}, seed=seed)


def filler(text: dict[str, Any] | None = None, raws: Any = (), seed: int = 0, **trunk: Any) -> Model:
    """A trunk over text that sees both sides."""
    enc = {"inputs": ["text"], "width": 16, "depth": 2, "position": "sinusoidal", **trunk}
    stream = {"kind": "text", "ends": False, **(text or {})}
    return built({"text": stream}, {"enc": enc}, {"text": {"trunk": "enc", "stream": "text"}}, raws, std=0.7, seed=seed)


def by_hand(model: Model, ids: list[int], stream: str = "text", trunk: str = "lm") -> torch.Tensor:
    """Logits [n v] of what comes behind each of these ids, in one pass over all of them."""
    from sevenfold.core.types import Stream

    places = torch.arange(len(ids))[None, :, None]
    with torch.no_grad():
        hidden = model.trunks[trunk]({stream: Stream(torch.tensor([ids]), places)})
        return model.head(stream, hidden.of(stream).x)[0]
