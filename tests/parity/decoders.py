"""What the parity tests of causal decoders share: the checks, each of one reference model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from twins import comes_back, family_of, files, layers, precisely, ragged, same, same_gradients, twin, words

from sevenfold.assembly.model import Model
from sevenfold.core.part import find

PAD, BEGIN, END = 256, 257, 258
"""Ids of the `bytes` tokenizer."""
PROMPTS = ["a", "Once upon a time", "seven rooms", "é", "xyz", "to be or not", "0", "the end"]


def texts(length: int, padded: bool) -> tuple[Tensor, Tensor | None]:
    """Ids [3 length], and which of them are no padding."""
    torch.manual_seed(1)
    ids = torch.randint(256, (3, length))
    return ids, ragged(ids, [length, 1, length // 2]) if padded else None


def streams_and_logits(reference: Any, length: int, padded: bool, first: bool = True) -> None:
    """The stream before and after every block, and the logits. `first`: theirs begins with the embeddings."""
    _, model, _ = twin(reference)
    ids, valid = texts(length, padded)
    with precisely(reference.dtype):
        mask = None if valid is None else valid.long()
        theirs = reference(ids, attention_mask=mask, output_hidden_states=True)
    done, seen = layers(model.trunks["lm"], lambda: model({"text": words(ids, valid)})["lm"])
    ours = [*seen[:-1], done.x] if first else [*seen[1:], done.x]  # their last one is after the norm
    assert len(ours) == len(theirs.hidden_states)
    for our, their in zip(ours, theirs.hidden_states):
        same(our, their, valid)
    if model.heads:
        same(model.head("text", done.x), theirs.logits, valid)


def loss_and_gradients(reference: Any, length: int, padded: bool) -> None:
    """The loss, and the gradient of every parameter."""
    family, model, objective = twin(reference, "next_token")
    ids, valid = texts(length, padded)
    labels = ids if valid is None else ids.masked_fill(~valid, -100)
    with precisely(reference.dtype):
        theirs = reference(ids, attention_mask=None if valid is None else valid.long(), labels=labels)
        theirs.loss.backward()
    ours = objective({"text": words(ids, valid)})
    same(ours.mean, theirs.loss)
    same(ours.mean, F.cross_entropy(theirs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))
    ours.mean.backward()
    same_gradients(reference, family, model)


def way_back(reference: Any) -> None:
    """What we write is what was read: every number, and what the reference makes of it."""
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    ids, _ = texts(7, False)
    assert torch.equal(again(ids)[0], reference(ids)[0])


def greedy(reference: Any, length: int, ends: bool) -> None:
    """Prompts of unequal length in one batch, to the same ids: as a batch and one by one, until the end token."""
    family = family_of(reference)
    config = family.model()
    text = config.streams["text"].replace(tokenizer=find("tokenization", "bytes").Config(), ends=ends)
    config = config.replace(streams={"text": text})
    model = Model(config, {"text": text.build()}).eval()
    family.load(files(reference)[1], model)
    model.modalities["text"].raw = lambda values, coords: values.tolist()  # ids, not text
    ours = model.generate(PROMPTS, temperature=0, length=length)
    rows = [([BEGIN] if ends else []) + list(prompt.encode()) for prompt in PROMPTS]
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    settings = {"do_sample": False, "max_new_tokens": length, "suppress_tokens": [256, 257, 259]}
    special = {"eos_token_id": END, "pad_token_id": PAD}
    theirs = reference.generate(ids, attention_mask=(ids != PAD).long(), **settings, **special)
    stopped = 0
    for row, prompt, our, their in zip(rows, PROMPTS, ours, theirs.tolist()):
        alone = model.generate([prompt], temperature=0, length=length)[0]
        assert our[: len(row)] == row
        ours_new, theirs_new, alone_new = (
            until_end(ids) for ids in (our[len(row) :], their[longest:], alone[len(row) :])
        )
        assert ours_new == theirs_new == alone_new
        stopped += ours_new[-1] == END
    assert length == 1 or 0 < stopped < len(PROMPTS)


def until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(END) + 1] if END in ids else ids
