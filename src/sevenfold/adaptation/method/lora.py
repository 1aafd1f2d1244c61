"""Low-rank adaptation of the blocks, and a new head.

    y = W x + s B A x                    W frozen, B = 0 at the start

Hu 2021, arXiv:2106.09685 (see the adapter of the same name). Of a model of a published family, the adapter is also written in
the layout that `peft` loads, in the folder `peft`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sevenfold.adaptation.method import Asked
from sevenfold.adaptation.method._tuned import Tuned, head_of
from sevenfold.adaptation.peft import save_peft
from sevenfold.assembly.adapter.lora import LoRA as Adapter
from sevenfold.training.recipe import Recipe
from sevenfold.training.run import Run


class LoRA(Tuned):
    class Config(Tuned.Config):
        rank: int = Field(8, ge=1, le=1 << 14)
        """r."""
        alpha: float = Field(16.0, gt=0)
        """What the product is scaled by, times r."""
        rslora: bool = False
        """Scale by alpha / sqrt(r) instead of alpha / r."""
        dropout: float = Field(0.0, ge=0, lt=1)
        """Share of x dropped on its way into A in training."""
        targets: tuple[str, ...] = ()
        """Which projections: whole names or their ends, as patterns (`qkv`, `feed.*`); by default every one in the blocks."""

    rate = 2e-3

    def changed(self, recipe: Recipe, asked: Asked) -> Mapping[str, Any]:
        c = self.config
        return {
            "adapter": Adapter.Config(
                rank=c.rank, alpha=c.alpha, rslora=c.rslora, dropout=c.dropout, targets=c.targets, train=(head_of(recipe),)
            )
        }  # fmt: skip

    def after(self, done: Run, asked: Asked) -> None:
        if done.model.published:
            asked.say(save_peft(done.model, asked.folder / "peft"))
