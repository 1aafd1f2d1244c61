"""Masked autoencoding: most tokens are dropped, a light decoder rebuilds their vectors from the visible ones.

    L = sum_{i in M} mean_p (y_ip - t_ip)^2 / |M|,   t = x, or x standardised within its own patch (patch_norm)

He 2021 (MAE), arXiv:2111.06377. The encoder sees the visible tokens only; the decoder gets them and one mask vector per
hidden token, each at its own coordinates, so nothing needs unshuffling and any coordinates serve (pictures, points).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sevenfold.assembly.cost import Cost
from sevenfold.assembly.cost.model import head_cost, model_costs
from sevenfold.assembly.cost.tokens import trunk_tokens
from sevenfold.assembly.cost.trunk import trunk_costs
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.errors import ConfigError
from sevenfold.core.initial import Normal, Rule
from sevenfold.core.types import Batch, Hidden, Loss, Stream, take, wide
from sevenfold.objective import Exhibit, Objective, check_masker, has_head, the_stream
from sevenfold.objective._example import of_pictures
from sevenfold.objective._two_trunks import check_dropping, streams_of, two_trunks
from sevenfold.objective.masker import Masker, all_eligible


class MAE(Objective):
    class Config(Objective.Config):
        encoder: str | None = None
        """The trunk that sees the visible tokens; by default the first."""
        decoder: str | None = None
        """The trunk that reads the encoder and rebuilds; by default the last."""
        stream: str | None = None
        """The stream of vectors; by default the only one that the encoder reads."""
        ratio: float = Field(0.75, gt=0, lt=1)
        """The share of tokens dropped."""
        masker: Masker.Config = part.default("random")
        """Which are dropped: singly, as a block, all but those of a grid …"""
        patch_norm: bool = False
        """Standardise each target patch; not for pictures with empty patches (digits), whose noise it would blow up."""

    @classmethod
    def example(cls) -> dict[str, Any]:
        return of_pictures({"kind": cls.kind}, reader="dec")

    @classmethod
    def heads(cls, config: Any, model: ModelConfig, sizes: dict[str, int]) -> dict[str, HeadConfig]:
        encoder, decoder = two_trunks(config, model, "encoder", "decoder")
        check_dropping("mae", model, encoder, decoder)
        stream = the_stream(model, config.stream, streams_of(model, encoder))
        if has_head(model, decoder, stream) is not None:
            return {}
        projection: Any = {"kind": "linear", "bias": True}
        return {stream: HeadConfig(trunk=decoder, stream=stream, projection=projection)}

    def __init__(self, config: Any, model: Model):
        super().__init__(config, model)
        self.encoder, self.decoder = two_trunks(config, model.config, "encoder", "decoder")
        self.stream = the_stream(model.config, config.stream, streams_of(model.config, self.encoder))
        if model.modalities[self.stream].tokenizer.features is None:
            raise ConfigError(
                f"objective: mae rebuilds vectors, and stream {self.stream!r} has ids: for ids choose masked_token"
            )
        self.masker: Masker = check_masker(config.masker, model.modalities[self.stream]).build()
        head = has_head(model.config, self.decoder, self.stream)
        assert head is not None
        self.head = head
        self.mask_token = nn.Parameter(torch.empty(model.config.trunks[self.decoder].width))

    def rules(self) -> dict[str, Rule]:
        return {"mask_token": Normal(0.02)}

    def split(self, stream: Stream, score: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Indices of the visible tokens [b k] and of the hidden ones [b n-k], n the longest row of the batch.

        A shorter row keeps the share of its own length; its padding fills up both. `score` [b n] in 0…1, drawn unless given:
        the tokens with the lowest stay visible.
        """
        if score is None:
            score = self._scores(stream)
        n = score.shape[1]
        if n < 2:
            raise ConfigError("objective: mae needs items of at least two tokens: choose a smaller patch")
        if stream.valid is not None:
            rank = score.masked_fill(~stream.valid, 2.0).argsort(1).argsort(1)
            own = stream.valid.sum(1, keepdim=True)
            keep = torch.minimum((own.double() * (1 - self.config.ratio)).long(), own - 1).clamp(min=1)
            last = torch.where(rank < keep, score, score + 3.0)
            score = torch.where(stream.valid, last, 2.0)
        order = score.argsort(1)
        seen = min(max(int(n * (1 - self.config.ratio)), 1), n - 1)
        return order[:, :seen], order[:, seen:]

    def _scores(self, stream: Stream) -> Tensor:
        return self.masker.scores(stream.coords, all_eligible(stream.coords, stream.valid))

    def rebuild(self, stream: Stream, visible: Tensor, hidden: Tensor) -> Tensor:
        """What the decoder says of the hidden tokens, [b n-k p]."""
        encoder, decoder = self.model.trunks[self.encoder], self.model.trunks[self.decoder]
        latent = encoder({self.stream: stream.take(visible)})
        known = decoder.embed(self.encoder, latent)
        gone = stream.take(hidden)
        asked = Hidden(self.mask_token.to(known.x.dtype).expand(*hidden.shape, -1), gone.coords, gone.valid)
        placed = decoder.embed(self.encoder, asked, project=False)._replace(spans={"hidden": (0, hidden.shape[1])})
        done = decoder.mix(decoder.join([known, placed]))
        return self.model.head(self.head, done.of("hidden").x)

    def draw(self, batch: Batch) -> dict[str, Tensor]:
        if self.stream not in batch:
            return {}
        return {"score": self._scores(batch[self.stream])}

    def forward(self, batch: Batch, drawn: Mapping[str, Tensor] | None = None) -> Loss:
        if self.stream not in batch:
            return self.nothing()
        stream = batch[self.stream]
        drawn = self.draw(batch) if drawn is None else drawn
        visible, hidden = self.split(stream, drawn["score"])
        guess = wide(self.rebuild(stream, visible, hidden))
        target = self.target(take(stream.values, hidden))
        error = (guess - target).square().mean(-1)
        real = torch.ones_like(error) if stream.valid is None else take(stream.valid, hidden).float()
        total, count = (error * real).sum(), real.sum()
        return Loss(total, count, {"mse": (total.detach(), count)}, {"guess": guess.detach()})

    def target(self, values: Tensor) -> Tensor:
        """What is to be rebuilt, from the tokens' values [… p]."""
        values = wide(values)
        if not self.config.patch_norm:
            return values
        return (values - values.mean(-1, keepdim=True)) / (values.var(-1, keepdim=True) + 1e-6).sqrt()

    def costs(self, lengths: Mapping[str, int], masked: Iterable[str] = ()) -> list[Cost]:
        n = lengths[self.stream]
        seen = min(max(int(n * (1 - self.config.ratio)), 1), n - 1)
        encoder, decoder = self.model.trunks[self.encoder], self.model.trunks[self.decoder]
        extra = trunk_tokens(encoder, {})
        found = model_costs(self.model, {self.stream: seen}, masked)
        inside = [cost for cost in found if not cost.place.startswith((f"{self.decoder}.", "heads."))]
        bridge = f"{self.decoder}.embeds.{self.encoder}"  # crossed by what the encoder saw, not by the mask tokens
        inside += [cost for cost in found if cost.place == bridge]
        again = trunk_costs(
            decoder, self.decoder, {self.encoder: n + extra}, 0, self.stream in masked, {self.encoder: True}
        )
        inside += [cost for cost in again if cost.place != bridge]
        return [*inside, head_cost(self.model, self.head, n - seen), *self.own_costs()]

    @torch.no_grad()
    def exhibits(self, samples: Sequence[dict[str, Any]], seed: int = 0) -> list[Exhibit]:
        raws = [sample[self.stream] for sample in samples if sample.get(self.stream) is not None]
        raws = raws[:: -(-len(raws) // 8) or 1]
        if not raws or self.config.patch_norm:
            return []
        torch.manual_seed(seed)
        modality = self.model.modalities[self.stream]
        stream = self.model.tokenize([{self.stream: raw} for raw in raws])[self.stream].to(self.model.device)
        if stream.valid is not None:
            return []
        visible, hidden = self.split(stream)
        place = hidden.unsqueeze(-1).expand(-1, -1, stream.values.shape[-1])
        guess = self.rebuild(stream, visible, hidden).float()
        rebuilt = stream.values.scatter(1, place, guess)
        masked = stream.values.scatter(1, place, torch.zeros_like(guess))
        rows: list[list[tuple[str | None, Any]]] = [
            [(self.stream, modality.raw(values.cpu().numpy(), coords.cpu().numpy())) for values in versions]
            for *versions, coords in zip(stream.values, masked, rebuilt, stream.coords)
        ]
        return [Exhibit("rebuilt from the visible tokens (held out)", ["original", "visible", "rebuilt"], rows)]

    def baselines(self, train: Sequence[Batch], held_out: Sequence[Batch]) -> dict[str, dict[str, float]]:
        if self.config.patch_norm:
            streams = [batch[self.stream] for batch in held_out if self.stream in batch]
            values = [s.values.flatten(0, 1) if s.valid is None else s.values[s.valid] for s in streams]
            return {"zero": {"mse": float(self.target(torch.cat(values)).square().mean())}} if values else {}
        lengths = {batch[self.stream].values.shape[1] for batch in (*train, *held_out)}
        if len(lengths) != 1 or any(batch[self.stream].valid is not None for batch in (*train, *held_out)):
            return {}
        mean = torch.cat([batch[self.stream].values for batch in train]).float().mean(0)
        error = torch.cat([batch[self.stream].values for batch in held_out]).float() - mean
        return {"mean training item": {"mse": float(error.square().mean())}}
