"""Autoencoding through codes: an encoder's tokens become codes, a decoder rebuilds the vectors from the codes alone.

    z = W_in enc(x),   L = sum_i ( mean_p (dec(W_out q(z))_ip - x_ip)^2 + penalty_i ) / n

van den Oord 2017 (VQ-VAE), arXiv:1711.00937 eq. 3, with the quantizer of the `quantizer` room; Mentzer 2023 (FSQ),
arXiv:2309.15505. The trunks are those of the recipe: a patch is the step of the grid, blocks of convolution or attention
read around it. A run with it is a tokenizer: `tokenizer: {kind: learned, run: FOLDER}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sevenfold.assembly.cost import Cost, parameters, trained
from sevenfold.assembly.cost.model import head_cost
from sevenfold.assembly.cost.trunk import trunk_costs
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.types import Batch, Hidden, Loss, Stream, wide
from sevenfold.objective import Exhibit, Objective, has_head, the_stream
from sevenfold.objective._example import of_pictures
from sevenfold.objective._two_trunks import streams_of, two_trunks
from sevenfold.objective.quantizer import Quantized, Quantizer

COLLAPSED = 0.1
"""A perplexity below this share of the codes is told aloud."""


class Autoencoder(Objective):
    class Config(Objective.Config):
        encoder: str | None = None
        """The trunk whose tokens become codes; by default the first."""
        decoder: str | None = None
        """The trunk that reads the codes and rebuilds; by default the last."""
        stream: str | None = None
        """The stream of vectors; by default the only one that the encoder reads."""
        quantizer: Quantizer.Config = part.default("vq")
        """What turns vectors into codes."""

    watched = ("perplexity",)

    @classmethod
    def example(cls) -> dict[str, Any]:
        return of_pictures({"kind": cls.kind, "quantizer": {"kind": "vq", "size": 32, "width": 4}}, reader="dec")

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        encoder, decoder = two_trunks(config, model, "encoder", "decoder")
        if decoder == encoder or model.trunks[decoder].inputs != (encoder,):
            raise ConfigError(
                f"objective: autoencoder needs a second trunk that reads the first alone: inputs: [{encoder}]"
            )
        stream = the_stream(model, config.stream, streams_of(model, encoder))
        if model.trunks[encoder].inputs != (stream,):
            raise ConfigError(
                f"objective: autoencoder needs an encoder of one stream: trunks.{encoder}.inputs: [{stream}]"
            )
        for name in (encoder, decoder):
            if model.trunks[name].cross_attends is not None:
                raise ConfigError(
                    f"objective: an autoencoder has nothing beside the codes: remove trunks.{name}.cross_attends"
                )
        if has_head(model, decoder, stream) is not None:
            return {}
        projection: Any = {"kind": "linear", "bias": True}
        return {stream: HeadConfig(trunk=decoder, stream=stream, projection=projection)}

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.encoder, self.decoder = two_trunks(config, model.config, "encoder", "decoder")
        self.stream = model.config.trunks[self.encoder].inputs[0]
        if model.modalities[self.stream].tokenizer.features is None:
            raise ConfigError(
                f"objective: autoencoder rebuilds vectors, and stream {self.stream!r} has ids: choose a tokenizer of "
                "vectors (patch), or for ids masked_token"
            )
        head = has_head(model.config, self.decoder, self.stream)
        assert head is not None
        self.head = head
        width = model.config.trunks[self.encoder].width
        self.quantizer: Quantizer = config.quantizer.build()
        linear, inner = part.find("projection", "linear").Config, self.quantizer.width
        self.inward = linear(bias=True, std=width**-0.5).build(width, inner)
        self.outward = linear(bias=True, std=inner**-0.5).build(inner, width)

    # From vectors to codes, and back
    def quantized(self, stream: Stream, score: Tensor | None = None) -> Quantized:
        """Vectors [b n p] → Quantized [b n …]."""
        hidden = self.model.trunks[self.encoder]({self.stream: stream}).of(self.stream)
        return self.quantizer(self.inward(hidden.x), stream.valid, score)

    def rebuilt(self, x: Tensor, coords: Tensor, valid: Tensor | None, segments: Tensor | None = None) -> Tensor:
        """Vectors [b n p] from those of codes [b n w] at coords [b n c]."""
        spans, decoder = {self.stream: (0, x.shape[1])}, self.model.trunks[self.decoder]
        given = Hidden(self.outward(x), coords, valid, segments, spans)
        placed = decoder.embed(self.encoder, given)
        return self.model.head(self.head, decoder.mix(decoder.join([placed])).of(self.encoder).x)

    @torch.inference_mode()
    def ids(self, stream: Stream) -> Tensor:
        """The codes [b n] of vectors [b n p]."""
        return self.quantized(stream).ids

    @torch.inference_mode()
    def values(self, ids: Tensor, coords: Tensor) -> Tensor:
        """Vectors [b n p] from codes [b n] at coords [b n c]."""
        return self.rebuilt(self.quantizer.vectors()[ids], coords, None)

    # The loss
    def draw(self, batch: Batch) -> dict[str, Tensor]:
        if self.training:
            self.quantizer.forget()
        if self.stream not in batch:
            return {}
        values = batch[self.stream].values
        return {"score": torch.rand(values.shape[:2], device=values.device)}

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if self.stream not in batch:
            return self.nothing()
        stream = batch[self.stream]
        drawn = self.draw(batch) if drawn is None else drawn
        codes = self.quantized(stream, drawn["score"])
        guess = wide(self.rebuilt(codes.x, stream.coords, stream.valid, stream.segments))
        error, penalty = (guess - wide(stream.values)).square().mean(-1), codes.penalty.to(guess.dtype)
        real = torch.ones_like(error) if stream.valid is None else stream.valid.to(error.dtype)
        mse, near, count = (error * real).sum(), (penalty * real).sum(), real.sum()
        used = {"perplexity": self.quantizer.perplexity(), "dead": self.quantizer.dead()}
        terms = {"mse": (mse.detach(), count), "commitment": (near.detach(), count)}
        terms |= {name: (count * value, count) for name, value in used.items()}
        return Loss(mse + near, count, terms, {"guess": guess.detach(), "ids": codes.ids})

    def after_step(self, step: int, steps: int) -> None:
        self.quantizer.after_step()

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        size, found = self.quantizer.size, terms.get("perplexity", 0.0)
        if not found or found >= COLLAPSED * size:
            return []
        return [
            f"the codebook is collapsing: its {size} codes are used as if there were {found:.0f} (perplexity), "
            f"{terms.get('dead', 0):.0f} are dead: choose fewer codes, the quantizer fsq, or more revival (vq)"
        ]

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        n, hides = lengths[self.stream], self.stream in masked
        encoder, decoder = (self.model.trunks[name] for name in (self.encoder, self.decoder))
        around, codes = [self.inward, self.outward], self.quantizer
        flops, kept = sum(part.flops(n) for part in around), n * (self.inward.width_in + 4 * codes.width)
        weights, learned = (sum(map(count, around)) for count in (parameters, trained))
        made = [
            Cost("codes.around", str(self.inward.kind), weights, flops, learned, 2 * flops, kept),
            Cost(
                "codes", str(codes.kind), parameters(codes), codes.flops(n), trained(codes), scratch=2 * n * codes.size
            ),
        ]
        before = trunk_costs(encoder, self.encoder, {self.stream: n}, 0, hides)
        after = trunk_costs(decoder, self.decoder, {self.encoder: n}, 0, hides, {self.encoder: True})
        return [*before, *made, *after, head_cost(self.model, self.head, n)]

    def flops(self, batch: Batch) -> int:
        return super().flops(batch) if self.stream in batch else 0

    @classmethod
    def codecs(cls) -> Any:
        """How autoencoders become tokenizers: the module sevenfold.objective._codec."""
        from sevenfold.objective import _codec

        return _codec

    # What is shown
    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        size, found, dead = self.quantizer.size, self.quantizer.perplexity(), self.quantizer.dead()
        facts = [("codes", f"{size:,}"), ("perplexity of their use, in the last steps", f"{found:.1f}")]
        facts.append(("used less than a hundredth of an even use", f"{dead:,}"))
        told = Exhibit("the codebook", ["", ""], [[(None, a), (None, b)] for a, b in facts])
        raws = [sample[self.stream] for sample in samples if sample.get(self.stream) is not None]
        raws = raws[:: -(-len(raws) // 8) or 1]
        if not raws:
            return [told]
        modality = self.model.modalities[self.stream]
        stream = self.model.tokenize([{self.stream: raw} for raw in raws])[self.stream].to(self.model.device)
        guess = self.rebuilt(self.quantized(stream).x, stream.coords, stream.valid, stream.segments).float()
        lengths = [stream.values.shape[1]] * len(raws) if stream.valid is None else stream.valid.sum(1).tolist()
        rows: list[list[tuple[str | None, Any]]] = [
            [
                (self.stream, modality.raw(values[:n].float().cpu().numpy(), coords[:n].cpu().numpy()))
                for values in versions
            ]
            for n, coords, *versions in zip(lengths, stream.coords, stream.values, guess)
        ]
        return [Exhibit("rebuilt from codes (held out)", ["original", "rebuilt"], rows), told]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        found = [[b[self.stream] for b in batches if self.stream in b] for batches in (train, held_out)]
        lengths = {stream.values.shape[1] for streams in found for stream in streams}
        if len(lengths) != 1 or not all(found) or any(s.valid is not None for streams in found for s in streams):
            return {}
        mean = torch.cat([stream.values for stream in found[0]]).float().mean(0)
        error = torch.cat([stream.values for stream in found[1]]).float() - mean
        return {"mean training item": {"mse": float(error.square().mean())}}
