"""LLaVA against transformers: the tower, the joined stream, logits of the text, loss, gradients, greedy answers, the way
back, and a folder with its tokenizer and processor."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
import torch
import torch.nn.functional as F
from decoders import until_end
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from twins import (
    built,
    comes_back,
    family_of,
    files,
    layers,
    patches,
    precisely,
    rounded,
    same,
    same_gradients,
    stirred,
    twin,
    words,
)

from sevenfold.assembly.model import Model
from sevenfold.assembly.pieces import reading_order
from sevenfold.core.part import find
from sevenfold.core.types import take
from sevenfold.exchange.load import load_published
from sevenfold.exchange.publish import publish
from sevenfold.exchange.verify import verify
from sevenfold.family import state_of

PLACE = 260
VISION = {"intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 12, "patch_size": 4}
WORDS = {"intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
SHAPES = {
    "clip": (
        CLIPVisionConfig(hidden_size=24, **VISION),
        LlamaConfig(hidden_size=32, num_key_value_heads=2, **WORDS),
        {},
    ),
    "all_of_the_tower": (
        CLIPVisionConfig(**{**VISION, "hidden_size": 20, "hidden_act": "gelu", "patch_size": 3, "num_channels": 1}),
        Qwen2Config(hidden_size=24, num_key_value_heads=4, **{**WORDS, "vocab_size": 271, "tie_word_embeddings": True}),
        {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "multimodal_projector_bias": False},
    ),
    "one_block": (
        CLIPVisionConfig(**{**VISION, "hidden_size": 12, "num_attention_heads": 3, "layer_norm_eps": 1e-3}),
        MistralConfig(hidden_size=24, num_key_value_heads=1, head_dim=6, sliding_window=7, **WORDS),
        {"vision_feature_layer": 1, "projector_hidden_act": "quick_gelu"},
    ),
    "siglip": (
        SiglipVisionConfig(hidden_size=16, **VISION),
        LlamaConfig(hidden_size=16, num_key_value_heads=4, attention_bias=True, mlp_bias=True, **WORDS),
        {"vision_feature_layer": -2, "vision_feature_select_strategy": "full", "projector_hidden_act": "relu"},
    ),
}
TEXTS = ([2, 7, 0], [9, 4, 6])
"""Of three rows: words before the picture, and behind it."""


def made(name: str, dtype: torch.dtype = torch.float32) -> LlavaForConditionalGeneration:
    vision, text, more = SHAPES[name]
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=PLACE, **more)
    with precisely(dtype):
        return rounded(stirred(LlavaForConditionalGeneration(config)).to(dtype))


def tiny():
    return made("clip")


def inputs(reference, once: bool):
    """(their arguments, our batch, which of our words are no placeholder): a picture somewhere in each of three texts of
    unequal length; in ours the placeholder stands once, or as often as in theirs."""
    torch.manual_seed(3)
    vision, config = reference.config.vision_config, reference.config
    pixels = torch.randn(3, vision.num_channels, vision.image_size, vision.image_size).to(reference.dtype)
    image = patches(pixels, vision.patch_size)
    tokens = image.values.shape[1]
    if config.vision_feature_select_strategy == "full" and "clip" in vision.model_type:
        tokens += 1
    theirs, ours = [], []
    for before, behind in zip(*TEXTS):
        first, last = torch.randint(256, (before,)).tolist(), torch.randint(256, (behind,)).tolist()
        theirs.append([*first, *[PLACE] * tokens, *last])
        ours.append([*first, *[PLACE] * (1 if once else tokens), *last])
    ids, mask = padded(theirs)
    mine, valid = padded(ours)
    batch = {"text": words(mine, valid), "image": image}
    return {"input_ids": ids, "attention_mask": mask.long(), "pixel_values": pixels}, batch, valid & (mine != PLACE)


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return ids, torch.tensor([[place < len(row) for place in range(longest)] for row in rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_streams_and_logits(name, once, dtype):
    reference = made(name, dtype)
    _, model, _ = twin(reference)
    given, batch, spoken = inputs(reference, once)
    with precisely(dtype):
        theirs = reference(**given, output_hidden_states=True)
    tower, lm = model.trunks["v"], model.trunks["lm"]
    (done, seen_v), seen = layers(lm, lambda: layers(tower, lambda: model(batch)["lm"]))
    tower_theirs = theirs.image_outputs.hidden_states
    assert 1 < len(seen_v) <= len(tower_theirs)
    for our, their in zip(seen_v, tower_theirs):
        same(our, their)
    mask = given["attention_mask"].bool()
    assert int(mask.sum()) == int(done.valid.sum())
    order, length = reading_order(done), mask.shape[1]
    ours = [*seen[:-1], take(done.x, order)]  # their last one is after the norm
    assert len(ours) == len(theirs.hidden_states)
    for our, their in zip(ours, theirs.hidden_states):
        same(our[:, :length], their, mask)
    logits = model.head("text", done.of("text").x)[spoken]
    same(logits, theirs.logits[mask & (given["input_ids"] != PLACE)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradients(name, once, dtype):
    reference = made(name, dtype)
    for place, parameter in reference.named_parameters():
        unread = "post_layernorm" in place or "vision_tower.head" in place
        unread |= any(f"encoder.layers.{above}." in place for above in range(family_of(reference).depth, 3))
        parameter.requires_grad_(not unread)
    family, model, objective = twin(reference, "next_token", trunk="lm", stream="text")
    given, batch, _ = inputs(reference, once)
    labels = given["input_ids"].masked_fill((given["input_ids"] == PLACE) | (given["attention_mask"] == 0), -100)
    with precisely(dtype):
        theirs = reference(**given, labels=labels)
        theirs.loss.backward()
    ours = objective(batch)
    assert int(ours.count) == int((labels[:, 1:] != -100).sum())
    same(ours.mean, theirs.loss)
    same(ours.mean, F.cross_entropy(theirs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))
    ours.mean.backward()
    same_gradients(reference, family, model)


@pytest.mark.parametrize("name", SHAPES)
def test_the_way_back(name):
    reference = made(name)
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for place, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[place], value), place
    given, _, _ = inputs(reference, once=True)
    assert torch.equal(again(**given).logits, reference(**given).logits)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_model_that_began_here(name):
    """Above the block that it reads its tower has nothing: the published file has it all the same."""
    reference = made(name)
    family = family_of(reference)
    model = built(family.model())
    state = family.to_published(state_of(model))
    assert {place: value.shape for place, value in state.items()} == {
        place: value.shape for place, value in files(reference)[1].items()
    }
    comes_back(reference, family, model)


@pytest.mark.parametrize(
    ("pattern", "spelled"),
    [
        ("language_model.model.", "model.language_model."),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.", "model.vision_tower.vision_model."),
        ("vision_tower.", "vision_tower.vision_model."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
    ],
)
def test_other_spellings(pattern, spelled):
    reference = made("clip")
    family, state = family_of(reference), files(reference)[1]
    other = {spelled + name.removeprefix(pattern) if name.startswith(pattern) else name: v for name, v in state.items()}
    assert other.keys() != state.keys()
    assert family.from_published(other).keys() == family.from_published(state).keys()


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_answers(name):
    """Prompts of unequal length with their pictures in one batch, and each by itself, against generate."""
    reference = made(name)
    family = family_of(reference)
    config = family.model()
    tokenizer = find("tokenization", "placed").Config()
    text = config.streams["text"].replace(tokenizer=tokenizer, ends=True)
    modalities = {"text": text.build(), "image": config.streams["image"].build()}
    modalities["text"].tokenizer.size = reference.config.text_config.vocab_size
    model = Model(config.replace(streams={**config.streams, "text": text}), modalities).eval()
    family.load(files(reference)[1], model)
    modalities["text"].raw = lambda values, coords: values.tolist()  # ids, not text
    vision = reference.config.vision_config
    side, channels = vision.image_size, vision.num_channels
    pictures = np.random.default_rng(0).integers(0, 256, (3, side, side, channels), dtype=np.uint8)
    prompts = ["USER: <image> what? ", "<image>", "See, and say: <image>"]
    ours = model.generate(prompts, given={"image": list(pictures)}, stream="text", temperature=0, length=9)
    image = model.tokenize([{"image": picture} for picture in pictures])["image"]
    grid, size = side // vision.patch_size, vision.patch_size
    pixels = (
        image.values.view(3, grid, grid, size, size, channels)
        .permute(0, 5, 1, 3, 2, 4)
        .reshape(3, channels, side, side)
    )
    tokens = len(image.values[0]) + (
        reference.config.vision_feature_select_strategy == "full" and "clip" in vision.model_type
    )
    barred = {"do_sample": False, "max_new_tokens": 9, "suppress_tokens": [256, 257, 259, PLACE], "eos_token_id": 258}
    for row, (prompt, our) in enumerate(zip(prompts, ours)):
        ids = [257]
        for number, piece in enumerate(prompt.split("<image>")):
            ids += [*([PLACE] * tokens if number else []), *piece.encode()]
        whole = torch.tensor([ids])
        theirs = reference.generate(
            whole, attention_mask=torch.ones_like(whole), pixel_values=pixels[row : row + 1], pad_token_id=256, **barred
        )[0, len(ids) :]
        begun = len(ids) - tokens + 1
        alone = model.generate([prompt], given={"image": pictures[row]}, stream="text", temperature=0, length=9)[0]
        assert until_end(our[begun:]) == until_end(alone[begun:]) == until_end(theirs.tolist())


def folder_of(path, reference) -> LlavaProcessor:
    """A published folder: weights, a tokenizer that knows <image>, a processor of pictures."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    letters = [chr(code) for code in range(32, 127)]
    special = ["<s>", "</s>", "<unk>", "<image>"]
    texts = ["USER: what is in the picture? ASSISTANT: a cat on a mat"] * 3
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=250, special_tokens=special, initial_alphabet=letters)
    )
    inner.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    size = {"height": 12, "width": 12}
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 12}, crop_size=size)
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    reference.save_pretrained(path)
    processor.save_pretrained(path)
    return processor


def test_a_folder_with_its_tokenizer(tmp_path):
    """Text with <image> and a picture go in, an answer comes out, as processor and generate make it; and back again."""
    vision, text, _ = SHAPES["clip"]
    reference = stirred(
        LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=3))
    )
    processor = folder_of(tmp_path / "in", reference)
    model = load_published(tmp_path / "in")
    picture = np.random.default_rng(1).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    prompt = "USER: <image> what is in the picture? ASSISTANT:"
    given = processor(images=picture, text=prompt, return_tensors="pt")
    batch = model.tokenize([{"text": prompt, "image": picture}])
    same(batch["image"].values, patches(given["pixel_values"], 4).values)
    mine, theirs = batch["text"].values[0].tolist(), given["input_ids"][0].tolist()
    assert mine.count(3) == 1 and [id for id in theirs if id != 3] == [id for id in mine if id not in (1, 3)]
    settings = {
        "do_sample": False,
        "max_new_tokens": 8,
        "suppress_tokens": [0, 2, 3, *range(processor.tokenizer.vocab_size, 300)],
    }
    answer = reference.generate(**given, eos_token_id=1, pad_token_id=1, **settings)[0, len(theirs) :]
    ours = model.generate(prompt, given={"image": picture}, stream="text", temperature=0, length=8)[0]
    assert ours.startswith(prompt)
    assert ours.removeprefix(prompt) == model.modalities["text"].raw(np.array([*mine, *answer.tolist()])).removeprefix(
        prompt
    )
    publish(model, tmp_path / "out")
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert torch.equal(again(**given).logits, reference(**given).logits)
    both = LlavaProcessor.from_pretrained(tmp_path / "out")(images=picture, text=prompt, return_tensors="pt")
    assert both.keys() == given.keys() and all(torch.equal(both[key], given[key]) for key in both)
    differences = verify(tmp_path / "in", model, family_of(reference))
    assert len(differences["lm"]) == 3 and max(differences["lm"]) < 1e-5


def test_the_published_config_of_1_5():
    """As its file says it, which leaves most of the language model to Llama's defaults."""
    text = {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    }
    vision = {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    }
    published = {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": 32000,
        "model_type": "llava",
        "pad_token_id": 32001,
        "projector_hidden_act": "gelu",
        "text_config": text,
        "vision_config": vision,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    family = find("family", "llava").read(published)
    assert family.model() == find("family", "llava").of_size("1.5_7b").model()
    assert family.depth == 23 and family.model().trunks["lm"].depth == 32
    with torch.device("meta"):
        reference = LlavaForConditionalGeneration(LlavaConfig.from_dict(published))
    ours = {name for rule in family.rules() for name in rule.names[1]}
    assert len(ours) == len(reference.state_dict())
