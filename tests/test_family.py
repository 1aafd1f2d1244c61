"""Families: what every one of them must do (new files are found by themselves), and the errors that a user sees."""

from __future__ import annotations

import pytest
import torch

from sevenfold.assembly.model import Model
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import header, kinds
from sevenfold.family import Family, affine, constant, lead, patches, state_of

KINDS = kinds("family")
SIZES = [(kind, size) for kind in KINDS for size in find("family", kind).sizes]
OBJECTIVES = {"clip": {"kind": "infonce"}, "vit_mae": {"kind": "mae"}}
"""Families part of whose weights an objective holds."""
SMALL = {
    "gpt2": {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 9, "vocab_size": 260},
    "bert": {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 64,
    },
}
PARAMETERS = {
    ("gpt2", "small"): 124_439_808,
    ("gpt2", "medium"): 354_823_168,
    ("gpt2", "large"): 774_030_080,
    ("gpt2", "xl"): 1_557_611_200,
    ("bert", "base"): 109_514_298,
    ("bert", "large"): 335_174_458,
    ("vit", "base_patch16"): 86_567_656,
    ("vit", "base_patch32"): 88_224_232,
    ("vit", "large_patch16"): 304_326_632,
    ("vit", "huge_patch14"): 632_045_800,
    ("vit_mae", "base"): 111_907_840,
    ("dinov2", "small"): 22_056_576,
    ("dinov2", "base"): 86_580_480,
    ("dinov2", "large"): 304_368_640,
    ("dinov2", "giant"): 1_136_480_768,
    ("dinov2", "small_registers"): 22_058_112,
    ("dinov2", "base_registers"): 86_583_552,
    ("dinov2", "large_registers"): 304_372_736,
    ("dinov2", "giant_registers"): 1_136_486_912,
    ("ijepa", "huge_patch14"): 630_762_240,
    ("ijepa", "huge_patch16_448"): 631_668_480,
    ("siglip", "base_patch16_224"): 203_155_970,
    ("siglip", "base_patch16_384"): 203_447_810,
    ("siglip", "large_patch16_256"): 652_150_786,
    ("siglip", "so400m_patch14_384"): 877_960_498,
    ("clip", "base_patch32"): 151_277_313,
    ("clip", "base_patch16"): 149_620_737,
    ("clip", "large_patch14"): 427_616_513,
    ("llama", "llama3.2_1b"): 1_235_814_400,
    ("llama", "llama3.2_3b"): 3_212_749_824,
    ("llama", "llama3.1_8b"): 8_030_261_248,
    ("llama", "mistral_7b"): 7_241_732_096,
    ("llama", "qwen2.5_0.5b"): 494_032_768,
    ("llama", "qwen3_0.6b"): 596_049_920,
    ("llama", "olmo2_1b"): 1_484_916_736,
    ("llama", "olmo2_7b"): 7_298_617_344,
    ("apertus", "8b"): 8_053_338_176 + 32 * 2,  # and the two fixed numbers of each block
}
"""Numbers in the published files."""


def built(family: Family) -> tuple[Model, torch.nn.Module | None]:
    """The model without numbers (on the meta device), and the objective that holds some of its weights."""
    config = family.model()
    modalities = {name: stream.build() for name, stream in config.streams.items()}
    for modality in modalities.values():
        if modality.tokenizer.size is None and modality.kind == "text":
            modality.tokenizer.size = modality.config.tokenizer.size
    with torch.device("meta"):
        model = Model(config, modalities)
        settings = OBJECTIVES.get(family.kind)
        if settings is None:
            return model, None
        return model, decode(find("objective", settings["kind"]).Config, {}).build(model)


def small(kind: str = "gpt2") -> tuple[Family, Model, dict[str, torch.Tensor]]:
    """A small family, its model, and published weights of it."""
    family = find("family", kind).read(SMALL[kind])
    model = built(family)[0].to_empty(device="cpu")
    return family, model, family.to_published({name: torch.zeros(v.shape) for name, v in model.state_dict().items()})


@pytest.mark.parametrize(("kind", "size"), SIZES)
def test_sizes(kind, size):
    """Every tensor of the model has its rule, and the published file has the known number of numbers."""
    family = find("family", kind).of_size(size)
    assert family.read(family.published()).config == family.config
    own = state_of(*built(family))
    theirs = family.to_published(own)
    count = sum(value.numel() for value in theirs.values())
    assert count == PARAMETERS.get((kind, size), count)
    assert len(theirs) == len({name for rule in family.rules() for name in rule.names[1]})


@pytest.mark.parametrize("kind", KINDS)
def test_headers(kind):
    text = header("family", kind)
    assert "arXiv:" in text or "2019" in text
    assert "Objective:" in text and "Weights:" in text


def test_there_and_back():
    family, _, theirs = small()
    theirs = {name: torch.randn(value.shape) for name, value in theirs.items()}
    again = family.to_published(family.from_published(theirs))
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


def test_operations():
    x = torch.randn(5, 3, 4, 4)
    op = patches(4, 3)
    assert torch.equal(op.take([x])[0][2].view(4, 4, 3)[1, 2], x[2, :, 1, 2])
    assert torch.equal(op.give(op.take([x]))[0], x)
    assert lead(2).take([x[None, None]])[0].shape == x.shape and lead(-1).take([x])[0].shape == (1, *x.shape)
    with pytest.raises(ValueError, match="does not begin with"):
        lead(1).take([x])
    assert constant(lambda: x).take([x]) == [] and torch.equal(constant(lambda: x).give([])[0], x)
    assert [rule.names for rule in affine("a", ("b", "c"))][1] == (("a.bias",), ("b.bias", "c.bias"))


# Errors


def test_a_name_too_few_or_too_many():
    family, model, theirs = small()
    for name in theirs:
        fewer = {key: value for key, value in theirs.items() if key != name}
        with pytest.raises(CheckpointError, match=f"lack '{name}'"):
            family.load(fewer, model)
    with pytest.raises(CheckpointError, match="hold 'transformer.h.1.ln_1.weight', which has no place"):
        family.load({**theirs, "h.1.ln_1.weight": torch.zeros(8)}, model)
    with pytest.raises(CheckpointError, match="twice, in two spellings"):
        family.load({**theirs, "wte.weight": torch.zeros(260, 8)}, model)
    with pytest.raises(CheckpointError, match="the model lacks 'trunks.lm.norm.weight'"):
        family.to_published({k: v for k, v in model.state_dict().items() if k != "trunks.lm.norm.weight"})
    with pytest.raises(CheckpointError, match="the model has 'extra', which has no place"):
        family.to_published({**model.state_dict(), "extra": torch.zeros(1)})


def test_a_wrong_shape_changes_nothing():
    family, model, theirs = small()
    before = {name: value.fill_(7.0).clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"embeds.text.weight has shape \[261, 8\] as published, and \[260, 8\]"):
        family.load({**theirs, "transformer.wte.weight": torch.zeros(261, 8)}, model)
    with pytest.raises(CheckpointError, match="lm.norm.bias"):
        family.load({**theirs, "transformer.ln_f.bias": torch.zeros(9)}, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_model_is_refused():
    family, _, theirs = small()
    other = built(find("family", "gpt2").read({**SMALL["gpt2"], "n_layer": 2}))[0].to_empty(device="cpu")
    with pytest.raises(CheckpointError, match="the published weights lack 'trunks.lm.blocks.1"):
        family.load(theirs, other)


@pytest.mark.parametrize(
    ("kind", "published", "told"),
    [
        ("gpt2", {"model_type": "llama"}, "is of a 'llama', not a 'gpt2'"),
        ("gpt2", {"n_layer": 10**9}, "n_layer"),
        ("gpt2", {"n_embd": "wide"}, "n_embd"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("bert", {"hidden_act": "relu"}, "hidden_act"),
        ("vit", {"hidden_act": "tanh"}, "hidden_act"),
        ("dinov2", {"drop_path_rate": 0.1}, "drop_path_rate"),
        ("dinov2", {"num_register_tokens": -1}, "num_register_tokens"),
        ("ijepa", {"image_size": [448, 224]}, "image_size"),
        ("siglip", {"vision_config": {"vision_use_head": False}}, "vision_config.vision_use_head"),
        ("siglip", {"architectures": ["SiglipForImageClassification"]}, "architectures"),
        ("clip", {"text_config": {"vocab_size": -1}}, "text_config.vocab_size"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"model_type": "gemma"}, "is of a 'gemma', not a 'llama' or 'mistral'"),
        ("llama", {"num_key_value_heads": 5}, "num_key_value_heads: 5 do not divide 32 heads"),
        ("llama", {"num_attention_heads": 0}, "num_attention_heads"),
        ("llama", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_scaling.type"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope_parameters: 'linear' needs a factor"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "rope_parameters.full_attention: unknown field"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "needs a low_freq_factor"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "factor": 8.0}}, "needs a short_factor"),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "short_factor": [1.0],
                    "long_factor": [2.0],
                    "original_max_position_embeddings": 512,
                }
            },
            "turns a text by its length",
        ),
        ("llama", {"model_type": "qwen2", "layer_types": ["full_attention"]}, "layer_types: 1 of them, for 32 blocks"),
        (
            "llama",
            {"model_type": "qwen3", "layer_types": ["sliding_attention"], "num_hidden_layers": 1},
            "'sliding_attention' needs use_sliding_window",
        ),
        ("llama", {"model_type": "mistral", "sliding_window": 0}, "sliding_window"),
        ("apertus", {"hidden_act": "silu"}, "hidden_act"),
        ("apertus", {"qk_norm": False}, "qk_norm"),
        ("apertus", {"rope_scaling": {"rope_type": "llama3"}}, "needs a low_freq_factor"),
    ],
)
def test_what_cannot_be_expressed_is_refused(kind, published, told):
    with pytest.raises(ConfigError, match=told) as caught:
        find("family", kind).read(published)
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match="there is no size 'smal'; did you mean 'small'"):
        find("family", "gpt2").of_size("smal")
    with pytest.raises(ConfigError, match="image_size 30 is not a multiple"):
        find("family", "vit").read({"image_size": 30}).model()
