"""Whisper's encoder: frames of sound, two convolutions, fixed sines and cosines, pre-norm blocks whose keys have no bias.

    x <- gelu(conv_2(gelu(conv_1(mel)))) + T;  x <- x + attention(LN(x));  x <- x + W gelu(U LN(x));  LN at the end

Radford 2022, arXiv:2212.04356 section 2.2, sizes from table 1. Weights: huggingface.co/openai/whisper-tiny. Objective:
supervised. What it was trained with (the decoder, or a head for classes) is carried along. LayerDrop and masks on the
input belong to a training, and are not taken over.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Stream
from sevenfold.family import Family, Op, Rule, affine, repeat, stacked

STRIDE = 2
"""Frames from one token to the next."""
KNOWN = ("WhisperForConditionalGeneration", "WhisperModel", "WhisperForAudioClassification")
SOUND: dict[str, Any] = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
}
"""What a published `preprocessor_config.json` says, beside lengths."""


class Frames(part.Config):
    """How sounds become frames, in the names of `preprocessor_config.json`."""

    feature_extractor_type: Literal["WhisperFeatureExtractor"] = "WhisperFeatureExtractor"
    """What makes them."""
    feature_size: int | None = None
    """Bands of a frame, as the model's."""
    sampling_rate: Literal[16000] = 16000
    """Samples a second."""
    hop_length: int = Field(160, ge=1, le=1 << 16)
    """Samples from one frame to the next."""
    n_fft: int = Field(400, ge=2, le=1 << 16)
    """Samples of a frame."""
    chunk_length: int | None = None
    """Seconds of every sound, as many as the model has places for."""
    padding_side: Literal["right"] = "right"
    """Shorter sounds end in silence."""
    padding_value: float = Field(0.0, ge=0, le=0)
    """Silence."""
    dither: float = Field(0.0, ge=0, le=0)
    """No noise is added."""
    do_normalize: Literal[False] = False
    """Sounds are taken as loud as they are."""


def convolution(channels: int) -> Op:
    """The weight of a convolution over three tokens, [d c 3], as ours on three laid end to end, [d 3 c]."""
    return Op(
        lambda theirs: [theirs[0].movedim(1, -1).reshape(-1, 3 * channels)],
        lambda ours: [ours[0].reshape(-1, 3, channels).movedim(1, -1)],
    )


def size(width: int, depth: int, heads: int) -> dict[str, int]:
    """A published size, whose encoder and decoder are alike."""
    both = {"layers": depth, "attention_heads": heads, "ffn_dim": 4 * width}
    return {
        "d_model": width,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in both.items()},
    }


class Whisper(Family):
    class Config(Family.Config):
        model_type: Literal["whisper"] = "whisper"
        """Which published config this is."""
        architectures: tuple[str, ...] | None = None
        """What it is the encoder of: WhisperForConditionalGeneration (the default), WhisperModel, WhisperForAudioClassification."""
        num_mel_bins: int = Field(80, ge=1, le=1024)
        """Bands of a frame."""
        d_model: int = Field(384, ge=4, le=1 << 16)
        """Width."""
        encoder_layers: int = Field(4, ge=1, le=4096)
        """Blocks."""
        encoder_attention_heads: int = Field(6, ge=1, le=4096)
        """Heads."""
        encoder_ffn_dim: int = Field(1536, ge=1)
        """Inner width of the feed-forward part."""
        max_source_positions: int = Field(1500, ge=1, le=1 << 20)
        """Tokens of every sound, each of two frames."""
        activation_function: Literal["gelu"] = "gelu"
        """The exact GELU."""
        dropout: float = 0.0
        """Dropout of each part's output and of the embedded tokens."""
        attention_dropout: float = 0.0
        """Dropout of attention weights."""
        decoder_layers: int = Field(4, ge=1, le=4096)
        """Blocks of the decoder, which is carried along."""
        decoder_attention_heads: int = Field(6, ge=1, le=4096)
        """Its heads."""
        decoder_ffn_dim: int = Field(1536, ge=1)
        """Its inner width of the feed-forward part."""
        vocab_size: int = Field(51865, ge=1, le=1 << 22)
        """Its ids."""

    sizes = {
        "tiny": {},
        "base": size(512, 6, 8),
        "small": size(768, 12, 12),
        "medium": size(1024, 24, 16),
        "large": size(1280, 32, 20),
        "large_v3": {**size(1280, 32, 20), "num_mel_bins": 128, "vocab_size": 51866},
    }
    spellings = [(r"^(encoder|decoder)\.", r"model.\1.")]
    carried = [r"model\.decoder\..*", r"proj_out\..*", r"(projector|classifier)\..*", r"layer_weights"]
    objective = {"kind": "supervised", "trunk": "enc", "pool": "mean"}

    def __init__(self, config: Any):
        super().__init__(config)
        self.named = (config.architectures or KNOWN)[0]
        if self.named not in KNOWN:
            raise ConfigError(f"architectures: {self.named!r} is none of {', '.join(KNOWN)}")
        self.states = {"enc": "hidden_states" if self.named == KNOWN[2] else "encoder_hidden_states"}

    def published(self) -> dict[str, Any]:
        return {name: value for name, value in super().published().items() if value is not None}

    def model(self) -> ModelConfig:
        c = self.config
        norms = {"kind": "layer", "eps": 1e-5}
        keys = {"kind": "partial_bias", "without": (c.d_model, 2 * c.d_model)}
        block = {
            "mixer": {
                "kind": "attention",
                "heads": c.encoder_attention_heads,
                "qkv": keys,
                "dropout": c.attention_dropout,
            },
            "nonlinearity": {"kind": "gelu", "inner": c.encoder_ffn_dim},
            "norm": norms,
            "projection": {"kind": "linear", "bias": True},
            "dropout": c.dropout,
        }
        trunk = {
            "inputs": ["audio"],
            "width": c.d_model,
            "depth": c.encoder_layers,
            "position": {"kind": "sinusoidal_table", "size": c.max_source_positions},
            "block": block,
            "dropout": c.dropout,
        }
        audio = {"kind": "audio", "tokenizer": self._tokenizer(), "projection": "conv_stem"}
        return part.decode(ModelConfig, {"streams": {"audio": audio}, "trunks": {"enc": trunk}}, str(self.kind))

    def _tokenizer(self) -> dict[str, Any]:
        """What turns a sound into tokens, as the preprocessor says; ConfigError for what it does otherwise."""
        c, place = self.config, "preprocessor config"
        given = {name: value for name, value in self.preprocessor.items() if name in Frames.model_fields}
        said = part.decode(Frames, given, place)
        frames, rate = STRIDE * c.max_source_positions, said.sampling_rate
        if said.feature_size not in (None, c.num_mel_bins):
            raise ConfigError(
                f"{place}.feature_size: {said.feature_size}, and the model has num_mel_bins {c.num_mel_bins}"
            )
        if said.chunk_length is not None and said.chunk_length * rate != frames * said.hop_length:
            places = f"{c.max_source_positions} places of {STRIDE * said.hop_length / rate:g} seconds"
            raise ConfigError(f"{place}.chunk_length: {said.chunk_length} seconds, and the model has {places}")
        return {
            "kind": "mel_window",
            "rate": rate,
            "mels": c.num_mel_bins,
            "window": said.n_fft / rate,
            "hop": said.hop_length / rate,
            "stack": STRIDE,
            "frames": frames,
        }

    def preprocessor_published(self, model: Model) -> dict[str, Any]:
        c, said = self.config, {**SOUND, **self.preprocessor}
        frames = STRIDE * c.max_source_positions
        length = {"feature_size": c.num_mel_bins, "chunk_length": frames * said["hop_length"] // said["sampling_rate"]}
        return {**length, "nb_max_frames": frames, "n_samples": frames * said["hop_length"], **said}

    def rules(self) -> list[Rule]:
        c, stem, encoder = self.config, "trunks.enc.embeds.audio", "model.encoder"
        ours, theirs = "trunks.enc.blocks.{i}", f"{encoder}.layers.{{i}}"
        q, k, v = (f"{theirs}.self_attn.{name}_proj" for name in "qkv")
        block = [
            *affine(f"{ours}.norms.0", f"{theirs}.self_attn_layer_norm"),
            Rule(f"{ours}.mixer.qkv.weight", (f"{q}.weight", f"{k}.weight", f"{v}.weight"), stacked(3)),
            Rule(f"{ours}.mixer.qkv.bias", (f"{q}.bias", f"{v}.bias"), stacked(2)),
            *affine(f"{ours}.mixer.out", f"{theirs}.self_attn.out_proj"),
            *affine(f"{ours}.norms.1", f"{theirs}.final_layer_norm"),
            *affine(f"{ours}.feed.up", f"{theirs}.fc1"),
            *affine(f"{ours}.feed.out", f"{theirs}.fc2"),
        ]
        return [
            *affine(f"{stem}.first", f"{encoder}.conv1", convolution(c.num_mel_bins)),
            *affine(f"{stem}.second", f"{encoder}.conv2", convolution(c.d_model)),
            Rule("trunks.enc.position.table", f"{encoder}.embed_positions.weight"),
            *repeat(c.encoder_layers, block),
            *affine("trunks.enc.norm", f"{encoder}.layer_norm"),
        ]

    def trial(self, model: Model) -> tuple[Batch, dict[str, Any]]:
        c = self.config
        frames = np.random.default_rng(0).standard_normal(
            (2, STRIDE * c.max_source_positions, c.num_mel_bins), np.float32
        )
        tokenizer: Any = model.modalities["audio"].tokenizer
        tokens = np.stack([tokenizer.windows(item) for item in frames])
        places = torch.arange(tokens.shape[1]).expand(2, -1)[..., None]
        given: dict[str, Any] = {"input_features": torch.from_numpy(frames).transpose(1, 2)}
        if self.named != KNOWN[2]:
            given["decoder_input_ids"] = torch.zeros(2, 1, dtype=torch.long)
        return {"audio": Stream(torch.from_numpy(tokens), places)}, given
