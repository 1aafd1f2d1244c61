"""Llama, Mistral, Qwen 2 and 3, OLMo 2 against transformers: streams, logits, loss, gradients, attention weights, drawing,
rotary settings, and the way back."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers
from decoders import greedy, loss_and_gradients, streams_and_logits, texts, way_back
from transformers import AutoConfig, PreTrainedModel
from twins import built, comes_back, family_of, files, layers, precisely, rounded, same, stirred, twin, words

from sevenfold.core.errors import CheckpointError
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Mask

CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "olmo2": "Olmo2"}
SIZES = [
    {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3, "vocab_size": 300},
    {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 3, "num_hidden_layers": 2, "vocab_size": 271},
    {"hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": 263},
]
INNER = [48, 17, 33]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MORE = {
    "llama": [
        {"rope_parameters": LLAMA3, "rms_norm_eps": 1e-3},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"head_dim": 6, "num_key_value_heads": None},
    ],
    "mistral": [
        {"sliding_window": 5},
        {"sliding_window": 1, "tie_word_embeddings": True, "head_dim": 10},
        {"sliding_window": None, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    ],
    "qwen2": [
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        {"tie_word_embeddings": True, "sliding_window": 3},
        {"use_sliding_window": True, "sliding_window": 2, "layer_types": ["sliding_attention"]},
    ],
    "qwen3": [
        {
            "head_dim": 12,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True, "rms_norm_eps": 1e-4},
        {"head_dim": 2, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 77.0}},
    ],
    "olmo2": [{"rms_norm_eps": 1e-3}, {"attention_bias": True, "tie_word_embeddings": True}, {}],
}
CASES = [(kind, case) for kind in CLASSES for case in range(3)]
LENGTH = 19


def made(
    kind: str, case: int, dtype: torch.dtype = torch.float32, head: str = "ForCausalLM", **more
) -> PreTrainedModel:
    shape = {**SIZES[case], "intermediate_size": INNER[case], "max_position_embeddings": 64, **MORE[kind][case], **more}
    with precisely(dtype):
        config = AutoConfig.for_model(kind, **shape, bos_token_id=257, eos_token_id=258, pad_token_id=256)
        reference = getattr(transformers, CLASSES[kind] + head)(config)
        return rounded(stirred(reference).to(dtype))


TINY = {kind: partial(made, kind, 0) for kind in CLASSES}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_streams_and_logits(kind, case, padded, dtype):
    streams_and_logits(made(kind, case, dtype), LENGTH, padded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_loss_and_gradients(kind, case, padded, dtype):
    loss_and_gradients(made(kind, case, dtype), LENGTH, padded)


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_the_way_back(kind, case):
    way_back(made(kind, case))


@pytest.mark.parametrize("kind", CLASSES)
def test_without_a_head_and_with_another(kind):
    """…Model has no head for words; a classifier's head is carried along."""
    bare = made(kind, 1, head="Model")
    family, model, _ = twin(bare)
    assert not model.heads
    ids, _ = texts(LENGTH, False)
    same(model({"text": words(ids)})["lm"].x, bare(ids).last_hidden_state)
    comes_back(bare, family, model)
    if hasattr(transformers, f"{CLASSES[kind]}ForSequenceClassification"):
        judge = made(kind, 0, head="ForSequenceClassification", num_labels=3)
        family, model, _ = twin(judge)
        assert torch.equal(model.luggage["luggage.score.weight"], judge.score.weight)
        assert torch.equal(comes_back(judge, family, model)(ids).logits, judge(ids).logits)


@pytest.mark.parametrize("kind", CLASSES)
def test_attention_weights(kind):
    reference = made(kind, 0)
    reference.set_attn_implementation("eager")
    _, model, _ = twin(reference)
    ids, _ = texts(LENGTH, False)
    theirs = reference(ids, output_attentions=True).attentions
    trunk = model.trunks["lm"]
    _, seen = layers(trunk, lambda: model({"text": words(ids)}))
    width = trunk.blocks[0].mixer.head_width
    angles = {width: trunk.position.angles(words(ids).coords, width)}
    for block, x, their in zip(trunk.blocks, seen, theirs):
        x = x if kind == "olmo2" else block.norms[0](x)
        same(block.mixer.weights(Hidden(x, angles=angles), Mask(causal=True)), their)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("length", [1, 12])
@pytest.mark.parametrize("kind", CLASSES)
def test_greedy_drawing(kind, length, ends):
    """With windows shorter than the texts (Mistral 5, Qwen 4) and prompts of unequal length."""
    reference = made(kind, 0, vocab_size=260)
    with torch.no_grad():
        reference.lm_head.weight[258] *= 2.5  # or the end token would hardly ever be the likeliest
    greedy(reference, length, ends)


ROPES = {
    "plain": {"rope_type": "default", "rope_theta": 123.0},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 500.0},
    "llama3": LLAMA3,
    "yarn": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5000.0, "original_max_position_embeddings": 24},
    "yarn, told": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 128,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "attention_factor": 1.4,
        "truncate": False,
    },
    "yarn, mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 200,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.5, 2.0, 7.0],
        "long_factor": [1.0, 1.5, 2.0, 7.0],
        "original_max_position_embeddings": 16,
    },
    "longrope, short": {
        "rope_type": "longrope",
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.3, 2.0],
        "long_factor": [1.0, 1.5, 2.0, 7.0],
        "original_max_position_embeddings": 64,
    },
    "longrope, told": {
        "rope_type": "longrope",
        "attention_factor": 1.2,
        "short_factor": [1.0, 1.5, 2.0, 7.0],
        "long_factor": [1.0, 1.5, 2.0, 7.0],
        "original_max_position_embeddings": 16,
    },
}


@pytest.mark.parametrize("name", ROPES)
def test_rotary_settings(name):
    """In float64, as they are written now and as they were, and written back as they were read."""
    reference = made("llama", 0, torch.float64, rope_parameters=dict(ROPES[name]))
    streams_and_logits(reference, 40, True)
    config, _ = files(reference)
    family = family_of(reference)
    rope = config.pop("rope_parameters")
    theta = rope.pop("rope_theta")
    old = {**config, "rope_theta": theta, "rope_scaling": None if rope["rope_type"] == "default" else rope}
    again = family.read(old)
    assert again.model() == family.model()
    assert "rope_parameters" not in again.published() and "rope_theta" not in family.published()
    spelled = {**old, "rope_scaling": {("type" if key == "rope_type" else key): value for key, value in rope.items()}}
    assert family.read(spelled).model() == family.model()
    for told in (family, again):
        reread = AutoConfig.for_model(**{**config, **told.published()})
        assert {**ROPES[name], **reread.rope_parameters} == reread.rope_parameters == reference.config.rope_parameters


def test_the_length_of_training_beside_the_settings():
    """Where a config has original_max_position_embeddings, it stands above what the rotary settings say."""
    reference = made("llama", 0, torch.float64, rope_parameters=dict(LLAMA3), original_max_position_embeddings=30)
    streams_and_logits(reference, 40, False)
    assert family_of(reference).model().trunks["lm"].position.scaling.trained == 30


def test_what_a_config_leaves_out():
    """Defaults are those of its model_type: a config with nothing but sizes is read as the reference reads it."""
    for kind in CLASSES:
        theirs = AutoConfig.for_model(kind)
        ours = find("family", "llama").read({"model_type": kind})
        assert ours.config.architectures == (f"{CLASSES[kind]}ForCausalLM",)
        for field, value in ours.published().items():
            if field not in ("architectures", "sliding_window", "layer_types"):
                assert getattr(theirs, field, value) == value, (kind, field)
        assert set(ours.config.windows) == {getattr(theirs, "sliding_window", None)}
        base = theirs.rope_parameters["rope_theta"]
        assert ours.model().trunks["lm"].position.base == base


def test_what_a_model_type_does_not_have_is_not_heeded():
    """Qwen 2 has no attention_bias, Mistral no layer_types: the reference takes no notice either, and nothing is written."""
    reference = made("qwen2", 0, attention_bias=True, mlp_bias=True)
    streams_and_logits(reference, LENGTH, False)
    assert not {"attention_bias", "mlp_bias"} & family_of(reference).published().keys()


def test_old_files():
    """They hold the frequencies of every block, and a tied head once more, which must be the embedding."""
    reference = made("llama", 1)
    family, state = family_of(reference), files(reference)[1]
    wanted = family.from_published(state)
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    assert all(torch.equal(wanted[name], value) for name, value in family.from_published(state).items())
    state["lm_head.weight"][3, 4] += 1
    with pytest.raises(CheckpointError, match="'lm_head.weight' is not a copy of 'model.embed_tokens.weight'"):
        family.from_published(state)


def test_layers_of_other_shapes_are_named():
    """Queries, keys and values of a wrong number of heads, and a head that is not there."""
    reference = made("llama", 0)
    family, state = family_of(reference), files(reference)[1]
    narrow = {**state, "model.layers.1.self_attn.k_proj.weight": torch.zeros(8, 32)}
    model = built(family.model())
    with pytest.raises(
        CheckpointError, match=r"blocks.1.mixer.qkv.weight has shape \[56, 32\] as published, and \[64, 32\]"
    ):
        family.load(narrow, model)
    del state["lm_head.weight"]
    with pytest.raises(CheckpointError, match="lack 'lm_head.weight'"):
        family.load(state, model)
