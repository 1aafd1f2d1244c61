"""ModernBERT against transformers: streams, logits, loss, gradients, attention weights, older configs, heads, and the way back."""

from __future__ import annotations

import pytest
import torch
import transformers
from encoders import loss_and_gradients, streams_and_logits, way_back
from transformers import ModernBertConfig, ModernBertForMaskedLM, PreTrainedModel
from twins import comes_back, family_of, files, precisely, ragged, rounded, same, stirred, twin, words

from sevenfold.core.errors import ConfigError
from sevenfold.core.part import find

FAR, NEAR = "full_attention", "sliding_attention"
SHAPES = [
    {
        "hidden_size": 20,
        "num_attention_heads": 5,
        "num_hidden_layers": 5,
        "intermediate_size": 24,
        "vocab_size": 300,
        "local_attention": 6,
    },
    {
        "hidden_size": 18,
        "num_attention_heads": 3,
        "num_hidden_layers": 4,
        "intermediate_size": 13,
        "vocab_size": 271,
        "local_attention": 2,
        "global_attn_every_n_layers": 2,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        "norm_eps": 1e-3,
    },
    {
        "hidden_size": 8,
        "num_attention_heads": 1,
        "num_hidden_layers": 3,
        "intermediate_size": 31,
        "vocab_size": 261,
        "local_attention": 9,
        "decoder_bias": False,
        "layer_types": [NEAR, NEAR, FAR],
        "rope_parameters": {
            FAR: {"rope_type": "default", "rope_theta": 77.0},
            NEAR: {"rope_type": "default", "rope_theta": 5.0},
        },
    },
    {
        "hidden_size": 12,
        "num_attention_heads": 3,
        "num_hidden_layers": 3,
        "intermediate_size": 8,
        "vocab_size": 269,
        "local_attention": 7,
        "layer_types": [FAR, NEAR, FAR],
        "rope_parameters": {
            FAR: {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16},
            NEAR: {"rope_type": "linear", "rope_theta": 9.0, "factor": 3.0},
        },
    },
]
LENGTH = 19


def made(shape: dict, dtype: torch.dtype = torch.float32, head: str = "ForMaskedLM") -> PreTrainedModel:
    special = {"pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258, "cls_token_id": 257, "sep_token_id": 258}
    with precisely(dtype):
        config = ModernBertConfig(**shape, max_position_embeddings=64, **special)
        return rounded(stirred(getattr(transformers, f"ModernBert{head}")(config)).to(dtype))


def tiny() -> ModernBertForMaskedLM:
    return made(SHAPES[0])


def inputs(padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randint(256, (3, LENGTH)), ragged(
        torch.zeros(3, LENGTH), [LENGTH, 2, LENGTH // 2] if padded else [LENGTH] * 3
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams_and_logits(shape, padded, dtype):
    streams_and_logits(made(shape, dtype), *inputs(padded), normed=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients(shape, padded, dtype):
    ids, valid = inputs(padded)
    loss_and_gradients(made(shape, dtype), ids, valid, (torch.rand(ids.shape) < 0.3) & valid, 259)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_way_back(shape):
    ids, _ = inputs(False)
    way_back(made(shape), lambda model: model(ids).logits)


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_weights(shape):
    """Windows and bases, block by block: the positions are made once each, whatever number of blocks."""
    reference = made(shape)
    reference.set_attn_implementation("eager")
    _, model, _ = twin(reference)
    ids, valid = inputs(True)
    theirs = reference(ids, attention_mask=valid.long(), output_attentions=True).attentions
    trunk, given = model.trunks["enc"], []
    for block in trunk.blocks:
        block.mixer.register_forward_pre_hook(lambda _, args: given.append(args))
    model({"text": words(ids, valid)})
    for block, args, their in zip(trunk.blocks, given, theirs, strict=True):
        ours = block.mixer.weights(*args)
        where = (valid[:, :, None] & valid[:, None, :])[:, None].expand_as(their)
        same(ours[where], their[where])
    assert len(trunk.block_positions) == 1 and trunk.block_positions[0].config.base != trunk.position.config.base


@pytest.mark.parametrize(
    "head", ["Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
)
def test_other_heads_are_carried(head):
    reference = made(SHAPES[1], head=head)
    family, model, _ = twin(reference)
    assert not model.heads and bool(model.luggage) == (head != "Model")
    ids, valid = inputs(True)
    base = getattr(reference, "model", reference)
    same(model({"text": words(ids, valid)})["enc"].x, base(ids, attention_mask=valid.long()).last_hidden_state, valid)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_older_configs():
    """Files from before rope_parameters and layer_types: read, and written as they were."""
    config, _ = files(made(SHAPES[0]))
    new = family_of(made(SHAPES[0]))
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "layer_types")}
    old |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    read = find("family", "modernbert").read(old)
    assert read.model() == new.model()
    again = read.published()
    assert again["global_rope_theta"] == 160000.0 and not again.keys() & {"rope_parameters", "layer_types"}
    assert not new.published().keys() & {"global_rope_theta", "local_rope_theta", "global_attn_every_n_layers"}
    assert ModernBertConfig(**again).layer_types == config["layer_types"]
    assert ModernBertConfig(**again).rope_parameters == config["rope_parameters"]
    same_base = find("family", "modernbert").read({**old, "local_rope_theta": None}).model()
    assert {block.position.base for block in same_base.trunks["enc"].blocks if block.position} == {160000.0}
    with pytest.raises(ConfigError, match="layer_types: 2 of them, for 5 blocks"):
        find("family", "modernbert").read({**config, "layer_types": [FAR, NEAR]})
    scaled = find("family", "modernbert").read({**old, "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert scaled.published()["rope_scaling"] == {"type": "linear", "factor": 2.0}
    trunk = scaled.model().trunks["enc"]
    assert trunk.position.scaling.factor == trunk.blocks[1].position.scaling.factor == 2.0
