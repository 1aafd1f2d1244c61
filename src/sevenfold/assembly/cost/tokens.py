"""How many tokens every stream and trunk has, from the lengths of the streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sevenfold.assembly.model import Model
    from sevenfold.assembly.trunk import Trunk


def trunk_tokens(trunk: Trunk, lengths: Mapping[str, int]) -> int:
    """Tokens inside a trunk, class and register tokens and prompts included."""
    own = sum(len(given) for given in (trunk.tokens, trunk.prompts) if given is not None)
    return own + sum(entering(trunk, name, lengths) for name in trunk.embeds)


def entering(trunk: Trunk, name: str, lengths: Mapping[str, int]) -> int:
    """Tokens of one input inside a trunk: with its class token, without the class and register tokens that are dropped."""
    tokens = lengths.get(name, 0)
    return tokens + trunk.fronts[name] - trunk.dropped[name] if tokens else 0


def known_tokens(model: Model, lengths: Mapping[str, int]) -> dict[str, int]:
    """Tokens of every stream and trunk, from those of the streams."""
    known = dict(lengths)
    for name, trunk in model.trunks.items():
        known[name] = trunk_tokens(trunk, known)
    return known


def full_lengths(model: Model, otherwise: int = 256) -> dict[str, int]:
    """Tokens of an item of full length in every stream; `otherwise` where a stream knows no length."""
    found = {}
    for name, modality in model.modalities.items():
        layout = modality.tokenizer.layout()
        free = modality.config.length or otherwise
        found[name] = len(layout) if layout is not None else free
    return found
