"""Whisper's encoder against transformers: from a sound or from frames, streams, gradients, and the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import (
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from twins import comes_back, files, layers, same, same_gradients, stirred, twin

import sevenfold as sf
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.core.part import find
from sevenfold.core.types import Hidden, Stream

SHAPES = [
    {"d_model": 32, "encoder_attention_heads": 4, "encoder_layers": 3, "encoder_ffn_dim": 48, "num_mel_bins": 20, "max_source_positions": 50},
    {"d_model": 18, "encoder_attention_heads": 3, "encoder_layers": 2, "encoder_ffn_dim": 13, "num_mel_bins": 7, "max_source_positions": 9},
    {"d_model": 4, "encoder_attention_heads": 1, "encoder_layers": 1, "encoder_ffn_dim": 16, "num_mel_bins": 1, "max_source_positions": 1},
]  # fmt: skip
DECODER = {
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 8,
    "vocab_size": 300,
    "max_target_positions": 8,
}
IDS = {
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
    "begin_suppress_tokens": None,
}
KINDS = [WhisperForConditionalGeneration, WhisperModel, WhisperForAudioClassification]


def made(shape: dict, dtype: torch.dtype = torch.float32, kind: type = WhisperModel, **settings) -> PreTrainedModel:
    return stirred(kind(WhisperConfig(**shape, **DECODER, **IDS, **settings))).to(dtype)


def tiny() -> PreTrainedModel:
    return made(SHAPES[0], kind=WhisperForConditionalGeneration)


def inputs(shape: dict, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, Stream]:
    """Random frames as theirs [b mels frames], and as our tokens."""
    torch.manual_seed(1)
    frames = torch.randn(2, 2 * shape["max_source_positions"], shape["num_mel_bins"])
    tokenizer = find("tokenization", "mel_window").Config(mels=shape["num_mel_bins"]).build()
    tokens = torch.from_numpy(np.stack([tokenizer.windows(item.numpy()) for item in frames]))
    return frames.transpose(1, 2).to(dtype), placed(tokens.to(dtype))


def placed(tokens: torch.Tensor) -> Stream:
    return Stream(tokens, torch.arange(tokens.shape[1]).expand(len(tokens), -1)[..., None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_streams(shape, dtype):
    reference = made(shape, dtype)
    _, model, _ = twin(reference)
    frames, stream = inputs(shape, dtype)
    theirs = reference.encoder(frames, output_hidden_states=True)
    done, seen = layers(model.trunks["enc"], lambda: model({"audio": stream})["enc"])
    assert len(seen) == len(theirs.hidden_states) == shape["encoder_layers"] + 1
    for ours, their in zip([*seen[:-1], done.x], theirs.hidden_states):  # their last one is after the norm
        same(ours, their)
    same(done.x, theirs.last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape, dtype):
    reference = made(shape, dtype)
    family, model, _ = twin(reference)
    frames, stream = inputs(shape, dtype)
    weight = torch.randn(2, shape["max_source_positions"], shape["d_model"], dtype=dtype)
    (reference.encoder(frames).last_hidden_state * weight).sum().backward()
    (model({"audio": stream})["enc"].x * weight).sum().backward()
    for parameter in reference.decoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    same_gradients(reference, family, model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_way_back(shape, kind):
    """With all that is not the encoder's: the decoder, a head for classes, weights of layers."""
    settings = {"use_weighted_layer_sum": True, "num_labels": 3} if kind is WhisperForAudioClassification else {}
    reference = made(shape, kind=kind, **settings)
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert {name.removeprefix("luggage.") for name in model.luggage} <= files(reference)[1].keys() | {
        f"model.{name}" for name in files(reference)[1]
    }
    assert len(model.luggage) > 4


def test_attention_weights():
    reference = made(SHAPES[0])
    reference.set_attn_implementation("eager")
    _, model, _ = twin(reference)
    frames, stream = inputs(SHAPES[0])
    theirs = reference.encoder(frames, output_attentions=True).attentions
    _, seen = layers(model.trunks["enc"], lambda: model({"audio": stream}))
    for block, x, their in zip(model.trunks["enc"].blocks, seen, theirs):
        same(block.mixer.weights(Hidden(block.norms[0](x))), their)


def test_keys_have_no_bias():
    _, model, _ = twin(made(SHAPES[0]))
    assert model.trunks["enc"].blocks[0].mixer.qkv.bias.shape == (2 * 32,)


def test_its_table_is_kept_as_published_and_never_trained():
    """What was published may be rounded: the numbers are the file's. A model that begins here has the closed form."""
    reference = made(SHAPES[0])
    with torch.no_grad():
        reference.encoder.embed_positions.weight.copy_(reference.encoder.embed_positions.weight.half())
    family, model, _ = twin(reference)
    assert torch.equal(model.trunks["enc"].position.table, reference.encoder.embed_positions.weight)
    assert not any("position" in name for name, _ in model.named_parameters())
    begun = find("position", "sinusoidal_table").Config(size=50).build(32, 1)
    assert (begun.table - made(SHAPES[0]).encoder.embed_positions.weight).abs().max() < 1e-5


@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.3])
def test_from_a_sound(seconds):
    """Shorter ones end in silence, longer ones are cut, as theirs."""
    shape = {**SHAPES[0], "num_mel_bins": 80}
    reference = made(shape)
    _, model, _ = twin(reference)
    sound = _voice(seconds)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    same_states(reference, model, sound, extractor)


def test_thirty_seconds():
    """The length of published models."""
    shape = {**SHAPES[1], "d_model": 12, "num_mel_bins": 80, "max_source_positions": 1500}
    reference = made(shape)
    _, model, _ = twin(reference)
    same_states(reference, model, _voice(7.3), WhisperFeatureExtractor())


def same_states(reference, model, sound, extractor) -> None:
    """From samples to what the encoder gives."""
    frames = extractor(sound, sampling_rate=16000, return_tensors="pt").input_features
    same(model(model.tokenize([sound]))["enc"].x, reference.encoder(frames).last_hidden_state)


def _voice(seconds: float) -> np.ndarray:
    """A gliding tone with overtones, swelling, over a little noise."""
    time, draw = np.arange(round(16000 * seconds)) / 16000, np.random.default_rng(0)
    pitch = 2 * np.pi * np.cumsum(120 + 60 * np.sin(2 * np.pi * 1.7 * time)) / 16000
    tone = sum(np.sin(k * pitch) / k for k in range(1, 20))
    return (0.2 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)) + 0.01 * draw.standard_normal(len(time))).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"feature_size": 128}, "feature_size: 128, and the model has num_mel_bins 80"),
        ({"chunk_length": 20}, "chunk_length: 20 seconds, and the model has 1500 places of 0.02 seconds"),
        ({"sampling_rate": 8000}, "sampling_rate"),
        ({"do_normalize": True}, "do_normalize"),
        ({"dither": 0.1}, "dither"),
        ({"padding_side": "left"}, "padding_side"),
        ({"hop_length": 0}, "hop_length"),
        ({"n_fft": "wide"}, "n_fft"),
        ({"feature_extractor_type": "ASTFeatureExtractor"}, "feature_extractor_type"),
    ],
)
def test_a_preprocessor_that_does_otherwise_is_refused(said, told):
    whisper = find("family", "whisper")
    assert whisper.read({}, WhisperFeatureExtractor().to_dict()).model() == whisper.read({}).model()
    with pytest.raises(ConfigError, match=told) as caught:
        whisper.read({}, {**WhisperFeatureExtractor().to_dict(), **said}).model()
    assert "\n" not in str(caught.value)


def test_a_preprocessor_comes_of_a_model_that_begins_here(tmp_path):
    family = find("family", "whisper").of_size("large_v3")
    extractor = WhisperFeatureExtractor(**family.preprocessor_published(None))
    assert (extractor.feature_size, extractor.nb_max_frames, extractor.n_fft) == (128, 3000, 400)


def test_a_folder_with_its_processor(tmp_path):
    """Loaded, verified and published; the settings of its frames may stand in either of two files."""
    reference = made(SHAPES[0], kind=WhisperForConditionalGeneration)
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=1, n_fft=320)
    for name in ("preprocessor", "processor"):
        folder = tmp_path / name
        reference.save_pretrained(folder)
        whole = extractor.to_dict() if name == "preprocessor" else {"feature_extractor": extractor.to_dict()}
        (folder / f"{name}_config.json").write_text(json.dumps(whole))
        model = sf.load_published(folder)
        assert model.modalities["audio"].tokenizer.width == 320
        same_states(reference.model, model, _voice(0.7), extractor)
        sf.publish(model, tmp_path / f"{name}_back")
        again = WhisperFeatureExtractor.from_pretrained(tmp_path / f"{name}_back")
        assert again.to_dict() == extractor.to_dict()
    (folder / "processor_config.json").write_text('{"feature_extractor": 3}')
    with pytest.raises(CheckpointError, match="processor_config.json: its processor is not a record"):
        sf.load_published(folder)
