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
    ("roberta", "base"): 124_697_433,
    ("roberta", "large"): 355_412_057,
    ("roberta", "distil_base"): 82_170_201,
    ("roberta", "xlm_base"): 278_295_186,
    ("roberta", "xlm_large"): 560_142_482,
    ("roberta", "camembert_base"): 110_655_493,
    ("modernbert", "base"): 149_655_232,
    ("modernbert", "large"): 395_881_664,
    ("esm2", "8m"): 7_512_361,
    ("esm2", "35m"): 33_501_165,
    ("esm2", "150m"): 148_139_569,
    ("esm2", "650m"): 651_042_625,
    ("esm2", "3b"): 2_839_004_225,
    ("esm2", "15b"): 15_129_098_337,
    ("esm2", "esm1b"): 652_358_433,
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
    ("t5", "small"): 60_506_624,
    ("t5", "base"): 222_903_552,
    ("t5", "large"): 737_668_096,
    ("t5", "3b"): 2_851_598_336,
    ("t5", "11b"): 11_307_321_344,
    ("t5", "v1_1_small"): 76_961_152,
    ("t5", "v1_1_base"): 247_577_856,
    ("t5", "v1_1_large"): 783_150_080,
    ("t5", "v1_1_xl"): 2_849_757_184,
    ("t5", "v1_1_xxl"): 11_135_332_352,
    ("t5", "mt5_small"): 300_176_768,
    ("t5", "mt5_base"): 582_401_280,
    ("t5", "mt5_large"): 1_229_581_312,
    ("t5", "mt5_xl"): 3_742_619_648,
    ("t5", "mt5_xxl"): 12_921_057_280,
    ("whisper", "tiny"): 8_208_384,
    ("whisper", "base"): 20_590_592,
    ("whisper", "small"): 88_154_112,
    ("whisper", "medium"): 307_216_384,
    ("whisper", "large"): 636_784_640,
    ("whisper", "large_v3"): 636_968_960,
    ("clip", "base_patch32"): 151_277_313,
    ("clip", "base_patch16"): 149_620_737,
    ("clip", "large_patch14"): 427_616_513,
    ("vilt", "b32"): 112_217_658,
    ("llava", "1.5_7b"): 7_063_427_072,
    ("llava", "1.5_13b"): 13_351_494_656,
    ("llama", "llama3.2_1b"): 1_235_814_400,
    ("llama", "llama3.2_3b"): 3_212_749_824,
    ("llama", "llama3.1_8b"): 8_030_261_248,
    ("llama", "mistral_7b"): 7_241_732_096,
    ("llama", "qwen2.5_0.5b"): 494_032_768,
    ("llama", "qwen3_0.6b"): 596_049_920,
    ("llama", "olmo2_1b"): 1_484_916_736,
    ("llama", "olmo2_7b"): 7_298_617_344,
    ("apertus", "8b"): 8_053_338_176 + 32 * 2,  # and the two fixed numbers of each block
    ("mamba", "130m"): 129_135_360,
    ("mamba", "370m"): 371_516_416,
    ("mamba", "790m"): 793_204_224,
    ("mamba", "1.4b"): 1_372_178_432,
    ("mamba", "2.8b"): 2_768_345_600,
}
"""Numbers in the published files, or in that part of them which is ours (Whisper's encoder), but for what is carried along (of
ESM-2, the regression to contacts)."""


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
        ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("roberta", {"model_type": "bert"}, "is of a 'bert', not a 'roberta' or 'xlm-roberta' or 'camembert'"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings: 2 leaves no place for a word"),
        ("roberta", {"pad_token_id": None}, "pad_token_id"),
        ("modernbert", {"hidden_activation": "silu"}, "hidden_activation"),
        ("modernbert", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
        ("modernbert", {"attention_dropout": 0.1}, "attention_dropout"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types: 1 of them, for 22 blocks"),
        ("modernbert", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_scaling.type"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, "'linear' needs a factor"),
        ("modernbert", {"local_attention": 1}, "local_attention"),
        ("esm2", {"vocab_size": 64}, "vocab_size"),
        ("esm2", {"is_folding_model": True}, "is_folding_model"),
        ("esm2", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("esm2", {"hidden_size": 20, "num_attention_heads": 20}, "heads of width 1 hold no pair to turn"),
        ("vit", {"hidden_act": "tanh"}, "hidden_act"),
        ("dinov2", {"drop_path_rate": 0.1}, "drop_path_rate"),
        ("dinov2", {"num_register_tokens": -1}, "num_register_tokens"),
        ("ijepa", {"image_size": [448, 224]}, "image_size"),
        ("siglip", {"vision_config": {"vision_use_head": False}}, "vision_config.vision_use_head"),
        ("siglip", {"architectures": ["SiglipForImageClassification"]}, "architectures"),
        ("t5", {"model_type": "umt5"}, "is of a 'umt5', not a 't5' or 'mt5'"),
        ("t5", {"feed_forward_proj": "gated-swish"}, "feed_forward_proj"),
        ("t5", {"architectures": ["T5ForTokenClassification"]}, "architectures: 'T5ForTokenClassification' is none of"),
        ("whisper", {"activation_function": "relu"}, "activation_function"),
        ("whisper", {"architectures": ["WhisperForCausalLM"]}, "architectures: 'WhisperForCausalLM' is none of"),
        ("clip", {"text_config": {"vocab_size": -1}}, "text_config.vocab_size"),
        ("vilt", {"max_image_length": 200}, "max_image_length"),
        ("vilt", {"modality_type_vocab_size": 1}, "modality_type_vocab_size"),
        ("vilt", {"hidden_act": "relu"}, "hidden_act"),
        ("llava", {"vision_feature_layer": [-2, -5]}, "vision_feature_layer"),
        ("llava", {"vision_feature_layer": 25}, "vision_feature_layer: the tower has 24 blocks"),
        ("llava", {"vision_feature_select_strategy": "cls"}, "vision_feature_select_strategy"),
        ("llava", {"vision_config": {"model_type": "siglip_vision_model"}}, "SigLIP's tower has none: say 'full'"),
        ("llava", {"vision_config": {"model_type": "pixtral"}}, "vision_config.model_type"),
        ("llava", {"text_config": {"model_type": "gemma"}}, "text_config.model_type"),
        ("llava", {"projector_hidden_act": "tanh"}, "projector_hidden_act"),
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
        ("mamba", {"hidden_act": "relu"}, "hidden_act"),
        ("mamba", {"time_step_rank": "many"}, "time_step_rank"),
        ("mamba", {"time_step_rank": 0}, "time_step_rank"),
        ("mamba", {"conv_kernel": 1}, "conv_kernel"),
        ("apertus", {"qk_norm": False}, "qk_norm"),
        ("apertus", {"rope_scaling": {"rope_type": "llama3"}}, "needs a low_freq_factor"),
    ],
)
def test_what_cannot_be_expressed_is_refused(kind, published, told):
    with pytest.raises(ConfigError, match=told) as caught:
        find("family", kind).read(published)
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match="splice.id: 32064 is none of the 32064 ids of 'text'"):
        built(find("family", "llava").read({"image_token_index": 32064}))
    with pytest.raises(ConfigError, match="there is no size 'smal'; did you mean 'small'"):
        find("family", "gpt2").of_size("smal")
    with pytest.raises(ConfigError, match="image_size 30 is not a multiple"):
        find("family", "vit").read({"image_size": 30}).model()
