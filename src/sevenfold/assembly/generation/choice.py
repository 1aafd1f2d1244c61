"""How the next token is chosen among all: settings, and one pure function on logits [… v] for each.

    seen tokens: l <- l / penalty if l > 0, else l penalty           Keskar 2019 (CTRL), arXiv:1909.05858 section 4.1
    l <- (l - max l) / temperature
    top_k: the k likeliest            top_p: the fewest of mass p     Fan 2018, arXiv:1805.04833; Holtzman 2019, arXiv:1904.09751
    min_p: p_i >= min_p max p         typical: least |-log p_i - H|   Nguyen 2024, arXiv:2407.01082; Meister 2022, arXiv:2202.00666

In this order, as in `transformers`; what is cut gets -inf. Used by the loop, speculative drawing and unmasking.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sevenfold.core import part

COLDEST = 1e-30
"""Temperatures below this are this: logits over it are finite or -inf."""

PROBED = 1024
"""On a CPU so many tokens are put in order first, usually enough, and then more: ordering all takes longer than a small
model's step."""


class Choice(part.Config):
    """How a token is chosen from logits."""

    temperature: float = Field(1.0, ge=0, le=100)
    """Above 1 flattens the distribution, below 1 sharpens it; 0 takes the likeliest token."""
    top_k: int | None = Field(None, ge=1)
    """Choose among the k likeliest tokens."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Choose among the fewest tokens of this probability together."""
    min_p: float | None = Field(None, ge=0, lt=1)
    """Choose among tokens of at least this share of the likeliest token's probability."""
    typical: float | None = Field(None, gt=0, le=1)
    """Choose among the tokens of this probability together whose surprise is nearest to the expected one."""

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0

    def narrowed(self, logits: Tensor) -> Tensor:
        """logits [b v] → [b v], -inf where a token may not be chosen (not for temperature 0)."""
        logits = (logits - logits.amax(-1, keepdim=True)) / max(self.temperature, COLDEST)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = min_p(logits, self.min_p)
        if self.typical is not None:
            logits = typical(logits, self.typical)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """logits [b v] → the distribution [b v] that tokens are drawn from."""
        if self.greedy:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        return self.narrowed(logits).softmax(-1)

    def choose(self, logits: Tensor, uniform: Tensor | None) -> Tensor:
        """logits [b v], uniform numbers [b] in [0, 1) (None for temperature 0) → ids [b]; -1 in rows that hold NaN."""
        if self.greedy or uniform is None:
            top, ids = logits.max(-1)
        else:
            logits = self.narrowed(logits)
            top, ids = logits.amax(-1), drawn(logits.softmax(-1), uniform)
        return ids.masked_fill(top.isnan(), -1)


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Of the tokens `seen` [b v] bool, positive logits over the penalty and negative ones times it."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k(logits: Tensor, k: int) -> Tensor:
    """The k likeliest; of equal ones, some."""
    if k >= logits.shape[-1]:
        return logits
    values, kept = logits.topk(k, dim=-1)
    return torch.full_like(logits, float("-inf")).scatter_(-1, kept, values)


def top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest tokens whose probabilities reach p; of equal ones, some."""
    return logits if p >= 1 else _fewest(logits, logits, p)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Tokens of at least p times the probability of the likeliest."""
    shares = logits.softmax(-1)
    return logits.masked_fill(shares < p * shares.amax(-1, keepdim=True), float("-inf"))


def typical(logits: Tensor, p: float) -> Tensor:
    """The fewest tokens of probability p together, those first whose surprise -log p_i is nearest to the entropy H."""
    if p >= 1:
        return logits
    logs = logits.log_softmax(-1)
    entropy = -(logs.exp() * logs).nansum(-1, keepdim=True)
    return _fewest(logits, -(-logs - entropy).abs(), p)


def _fewest(logits: Tensor, score: Tensor, p: float) -> Tensor:
    """The fewest tokens whose probabilities reach p, those of the greatest score first."""
    size, shares = logits.shape[-1], logits.softmax(-1)
    probed = size if logits.is_cuda else min(PROBED, size)
    while True:
        index = score.topk(probed, dim=-1).indices
        some = shares.gather(-1, index)
        before = some.cumsum(-1) - some
        if probed == size or bool((before[..., -1] >= p).all()):
            break
        probed = min(8 * probed, size)
    kept = logits.gather(-1, index).masked_fill(before >= p, float("-inf"))
    return torch.full_like(logits, float("-inf")).scatter_(-1, index, kept)


def drawn(shares: Tensor, uniform: Tensor) -> Tensor:
    """Probabilities [b v], uniform numbers [b] → ids [b]: where the running sum passes the number. One number a token, so
    a row draws the same whatever the others are."""
    sums = shares.double().cumsum(-1)
    ids = torch.searchsorted(sums, (uniform.double() * sums[:, -1])[:, None], right=True)
    return ids[:, 0].clamp(max=shares.shape[-1] - 1)
