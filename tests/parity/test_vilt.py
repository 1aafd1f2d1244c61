"""ViLT against transformers: streams, logits of hidden words, loss, gradients, pictures of other sizes, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltForTokenClassification,
    ViltModel,
)
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil
from twins import (
    built,
    comes_back,
    family_of,
    files,
    layers,
    patches,
    ragged,
    same,
    same_gradients,
    stirred,
    twin,
    way_back,
    words,
)

from sevenfold.assembly.pieces import reading_order
from sevenfold.core.types import Stream, take
from sevenfold.exchange.load import load_published
from sevenfold.exchange.publish import publish
from sevenfold.family import state_of

SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 64, "vocab_size": 300},
    {
        "hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 13, "vocab_size": 271,
        "image_size": 20, "patch_size": 5, "num_channels": 1, "modality_type_vocab_size": 3, "qkv_bias": False,
    },
    {
        "hidden_size": 9, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 36, "vocab_size": 261,
        "image_size": 3, "patch_size": 3, "type_vocab_size": 1,
    },
]  # fmt: skip
LENGTH = 11
GRIDS = {"native": None, "other": [(4, 2), (1, 1), (3, 5)]}
"""Rows and columns of patches of each picture."""


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = ViltForMaskedLM):
    settings = {"image_size": 12, "patch_size": 4, **shape}
    return stirred(kind(ViltConfig(**settings, max_position_embeddings=LENGTH + 1, num_labels=3))).to(dtype)


def tiny():
    return made(SHAPES[0])


def pictures(c, grids, dtype: torch.dtype) -> tuple[Tensor, Tensor, Stream]:
    """(pixels, their mask, the same as our stream), of grids of that many patches."""
    torch.manual_seed(2)
    native = c.image_size // c.patch_size
    grids = grids or [(native, native)] * 3
    rows, columns = (max(sides) for sides in zip(*grids))
    size, most = c.patch_size, max(h * w for h, w in grids)
    pixels = torch.randn(3, c.num_channels, rows * size, columns * size).to(dtype)
    mask = torch.zeros(3, rows * size, columns * size, dtype=torch.long)
    values, coords = torch.zeros(3, most, size * size * c.num_channels, dtype=dtype), torch.zeros(3, most, 2).long()
    for row, (h, w) in enumerate(grids):
        mask[row, : h * size, : w * size] = 1
        stream = patches(pixels[row : row + 1, :, : h * size, : w * size], size)
        values[row, : h * w], coords[row, : h * w] = stream.values[0], stream.coords[0]
    return pixels, mask, Stream(values, coords, ragged(coords[..., 0], [h * w for h, w in grids]))


def inputs(c, grids, dtype):
    torch.manual_seed(1)
    ids = torch.randint(256, (3, LENGTH))
    valid = ragged(ids, [LENGTH] * 3 if grids is None else [LENGTH, 2, LENGTH // 2])
    pixels, mask, image = pictures(c, grids, dtype)
    batch = {"text": words(ids, valid), "image": image}
    if grids is None:
        batch = {name: stream._replace(valid=None) for name, stream in batch.items()}
    return ids, valid, {"pixel_values": pixels, "pixel_mask": mask, "attention_mask": valid.long()}, batch


def watched(reference, seen: list):
    """The reference shuffles patches: note where each is from."""
    embeddings = (reference.vilt if hasattr(reference, "vilt") else reference).embeddings
    embed = embeddings.visual_embed

    def visual_embed(*args, **kwargs):
        x, mask, place = embed(*args, **kwargs)
        seen[:] = [mask.bool(), place[0]]
        return x, mask, place

    embeddings.visual_embed = visual_embed


def matched(noted: list, valid: Tensor, image: Stream) -> tuple[Tensor, Tensor]:
    """(place in ours of each of their tokens, which of theirs are valid)."""
    mask, place = noted
    where = torch.zeros(mask.shape[0], mask.shape[1] - 1, dtype=torch.long)
    for row in range(len(where)):
        ours = {tuple(at.tolist()): index for index, at in enumerate(image.coords[row]) if mask_of(image)[row, index]}
        for index, at in enumerate(place[row]):
            if mask[row, index + 1]:
                where[row, index] = ours[tuple(at.tolist())]
    text = torch.arange(valid.shape[1] + 1).expand(len(where), -1)
    return torch.cat([text, where + valid.shape[1] + 1], 1), torch.cat([valid, mask], 1)


def mask_of(image: Stream) -> Tensor:
    return torch.ones(image.coords.shape[:2], dtype=torch.bool) if image.valid is None else image.valid


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, grids, dtype):
    reference = made(shape, dtype)
    _, model, _ = twin(reference)
    ids, valid, given, batch = inputs(reference.config, GRIDS[grids], dtype)
    noted: list = []
    watched(reference, noted)
    theirs = reference(ids, **given, output_hidden_states=True)
    done, seen = layers(model.trunks["both"], lambda: model(batch)["both"])
    where, there = matched(noted, valid, batch["image"])
    back = reading_order(done).argsort(1)
    assert len(seen) == len(theirs.hidden_states)
    for ours, their in zip(seen, theirs.hidden_states):
        same(take(take(ours, back), where), their, there)
    assert int(there.sum()) == int(torch.ones_like(there).sum() if done.valid is None else done.valid.sum())
    normed = reference.vilt.layernorm(theirs.hidden_states[-1])
    same(take(done.x, where), normed, there)
    same(model.head("text", done.of("text").x), theirs.logits, valid)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, grids, dtype):
    reference = made(shape, dtype)
    reference.vilt.pooler.requires_grad_(False)  # of another task
    family, model, objective = twin(reference, "masked_token", stream="text")
    ids, valid, given, batch = inputs(reference.config, GRIDS[grids], dtype)
    chosen = (torch.rand(ids.shape) < 0.4) & valid
    corrupted = torch.where(chosen, 259, ids)
    theirs = reference(corrupted, **given, labels=ids.masked_fill(~chosen, -100))
    ours = objective(batch, {"chosen": chosen, "seen": corrupted})
    same(ours.mean, theirs.loss)
    theirs.loss.backward()
    ours.mean.backward()
    same_gradients(reference, family, model)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    reference = made(shape)
    way_back(reference)


@pytest.mark.parametrize(
    "kind", [ViltModel, ViltForQuestionAnswering, ViltForImageAndTextRetrieval, ViltForTokenClassification]
)
def test_without_a_head_and_with_other_heads(kind):
    """What another task has on top is carried along, and comes back."""
    reference = made(SHAPES[0], kind=kind)
    family, model, _ = twin(reference)
    assert not model.heads
    ids, valid, given, batch = inputs(reference.config, None, torch.float32)
    noted: list = []
    watched(reference, noted)
    vilt = reference if kind is ViltModel else reference.vilt
    theirs = vilt(ids, **given).last_hidden_state
    same(take(model(batch)["both"].x, matched(noted, valid, batch["image"])[0]), theirs)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_model_that_began_here():
    """It has no pooler, no second text and no further picture: the published file has them all the same."""
    reference = made(SHAPES[1])
    family = family_of(reference)
    model = built(family.model())
    state = family.to_published(state_of(model))
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in files(reference)[1].items()
    }
    comes_back(reference, family, model)
    assert not state["vilt.pooler.dense.weight"].any()
    table = state["vilt.embeddings.token_type_embeddings.weight"]
    assert torch.equal(table[2], table[1]) and not torch.equal(table[1], table[0])


def test_old_spellings():
    """The first published files name the head's bias by itself, and hold a table of places."""
    reference = made(SHAPES[0])
    family, state = family_of(reference), files(reference)[1]
    old = {name.replace("decoder.bias", "bias"): value for name, value in state.items()}
    old["vilt.embeddings.text_embeddings.position_ids"] = torch.arange(LENGTH + 1)[None]
    old["mlm_score.decoder.weight"] = state["vilt.embeddings.text_embeddings.word_embeddings.weight"]
    family.load(old, built(family.model()))
    assert family.from_published(old).keys() == family.from_published(state).keys()


def test_a_picture_that_is_missing():
    """Words without a picture: neither its patches nor its class token are there."""
    reference = made(SHAPES[0])
    _, model, _ = twin(reference)
    _, _, _, batch = inputs(reference.config, GRIDS["other"], torch.float32)
    valid = batch["image"].valid.clone()
    valid[1] = False
    some = model({**batch, "image": batch["image"]._replace(valid=valid)})["both"].of("text").x
    alone = model({"text": batch["text"].rows([1])})["both"].of("text").x
    same(some[1:2], alone, batch["text"].valid[1:2])


def test_a_folder_with_pictures_of_unequal_size(tmp_path):
    """Bytes of any size through both processors, and hidden words filled in alike; the file of the processor comes back."""
    reference = made(SHAPES[0])
    processor = ViltImageProcessorPil(size={"shortest_edge": 12}, size_divisor=4)
    reference.save_pretrained(tmp_path / "in")
    processor.save_pretrained(tmp_path / "in")
    model = load_published(tmp_path / "in")
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((30, 31), (20, 28), (50, 37))]
    given = processor(pictures, return_tensors="pt")
    image = model.tokenize([{"image": picture} for picture in pictures])["image"]
    assert image.valid.sum(1).tolist() == [9, 12, 12]
    torch.manual_seed(1)
    ids = torch.randint(256, (3, LENGTH))
    done = model({"text": words(ids), "image": image})["both"].of("text")
    same(model.head("text", done.x), reference(ids, **given).logits)
    publish(model, tmp_path / "out")
    again = ViltImageProcessorPil.from_pretrained(tmp_path / "out")(pictures, return_tensors="pt")
    assert torch.equal(again["pixel_values"], given["pixel_values"])
    assert torch.equal(again["pixel_mask"], given["pixel_mask"])
