"""New words in the vocabulary of a trained model: every old id keeps its number, its row and what the model says of it.

    row(new) = mean of the rows of the pieces that the word was cut into until now

Hewitt 2021 (nlp.stanford.edu/~johnhew/vocab-expansion.html) shows why a mean: rows drawn at random can take all probability from the old words. For
tokenizers that are files of the `tokenizers` library: bpe, wordpiece, published. A word is read as one token where it stands
by itself, not inside other words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tokenizers
import torch
from torch import Tensor

from sevenfold.assembly.adapter import merged
from sevenfold.assembly.model import Model
from sevenfold.blocks.tokenization._text import TrainedText
from sevenfold.core.errors import ConfigError
from sevenfold.modality import Modality


@torch.no_grad()
def extend_vocabulary(model: Model, words: Sequence[str], stream: str | None = None) -> Model:
    """A model that knows some more words; the one that is given stays as it is.

    stream   the stream of text; by default the only one whose tokenizer can be extended

    ConfigError for a tokenizer that cannot, a word that is there already, and one that would not be read back as it is written.
    """
    model = merged(model)
    can = [name for name, modality in model.modalities.items() if isinstance(modality.tokenizer, TrainedText)]
    name = stream or (can[0] if len(can) == 1 else "")
    if name not in can:
        what = (
            f"say which of {', '.join(can)}"
            if can and stream is None
            else "its tokenizer cannot be extended (bpe, wordpiece, published can)"
        )
        raise ConfigError(f"extend_vocabulary: stream {stream or '?'!r}: {what}")
    old: Any = model.modalities[name].tokenizer
    pieces = [_pieces(old, word) for word in words]
    if len(set(words)) != len(words) or not words:
        raise ConfigError("extend_vocabulary: give one word or more, each once")
    inner = tokenizers.Tokenizer.from_str(old.inner.to_str())
    if inner.get_vocab_size() != old.size:
        raise ConfigError(
            f"extend_vocabulary: the model has {old.size} ids, of which {old.size - inner.get_vocab_size()} stand for nothing: use these"
        )
    inner.add_tokens([tokenizers.AddedToken(word, single_word=True, normalized=False) for word in words])
    alike = [other for other, modality in model.modalities.items() if modality.tokenizer is old]
    streams, modalities = dict(model.config.streams), dict(model.modalities)
    settings = (
        old.config.replace(size=old.size + len(words)) if old.kind == "published" and old.config.size else old.config
    )
    tokenizer = settings.build()
    if old.kind == "published":
        tokenizer.settings = old.settings
    tokenizer._adopt(inner)
    for other in alike:
        streams[other] = streams[other].replace(tokenizer=settings)
        made: Modality = streams[other].build()
        made.tokenizer = tokenizer
        modalities[other] = made
    for word in words:
        ids = tokenizer.encode(word).values
        if len(ids) != 1 or tokenizer.decode(ids) != word:
            raise ConfigError(f"extend_vocabulary: {word!r} would not be read back as it is written: leave it out")
    with torch.random.fork_rng(devices=[]):
        longer = Model(model.config.replace(streams=streams), modalities)
    own = model.state_dict()
    state = {}
    for key, value in longer.state_dict().items():
        before = own[key]
        if before.shape == value.shape:
            state[key] = before
        elif before.shape[0] == old.size and value.shape[0] == tokenizer.size and before.shape[1:] == value.shape[1:]:
            state[key] = torch.cat([before, *(_mean(before, ids) for ids in pieces)])
        else:
            raise ConfigError(f"extend_vocabulary: {key} depends on the number of ids in a way that is not known here")
    longer.to(model.device, next(model.parameters()).dtype).load_state_dict(state)
    return longer.train(model.training)


def _pieces(tokenizer: Any, word: str) -> Tensor:
    """The ids that a word is cut into until now."""
    if not word or word != word.strip():
        raise ConfigError(f"extend_vocabulary: {word!r} is no word: it is empty, or has a space at an end")
    if tokenizer.inner.token_to_id(word) is not None:
        raise ConfigError(
            f"extend_vocabulary: {word!r} is in the vocabulary already, with the id {tokenizer.inner.token_to_id(word)}"
        )
    return torch.as_tensor(tokenizer.encode(word).values)


def _mean(rows: Tensor, ids: Tensor) -> Tensor:
    return rows[ids.to(rows.device)].double().mean(0, keepdim=True).to(rows.dtype)
