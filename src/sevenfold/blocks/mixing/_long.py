"""Long convolutions: by one FFT, inside segments by many, and their last outputs only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BASE = 16
"""Tokens of a block inside which segments are convolved term by term."""


def length_of(n: int) -> int:
    """A length of at least n that FFTs are fast at: 2^k or 3 2^(k-1)."""
    power = 1 << max(0, n - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= n else power


def convolved(w: Tensor, h: Tensor) -> Tensor:
    """y_i = sum_{j<=i} h_(i-j) w_j: w [b d n], h [d n] → [b d n]. O(n log n); no wrap-around, as the FFT is 2n-1 long."""
    n = w.shape[-1]
    size = length_of(2 * n - 1)
    return torch.fft.irfft(torch.fft.rfft(w, size) * torch.fft.rfft(h[..., :n], size), size)[..., :n]


def convolved_in_runs(w: Tensor, h: Tensor, run: Tensor) -> Tensor:
    """The same sum over j in the segment of i only, `run` [b n] numbering segments in order. O(n log^2 n).

    Two neighbouring blocks of B tokens share one segment at most, that at their border. So its tokens in the left block
    are convolved into its tokens in the right block with lags 1 … 2B-1, by FFTs of 2B; for B = 16, 32, 64 … Inside
    blocks of 16, term by term. Nothing of one segment is ever added to another.
    """
    n = w.shape[-1]
    whole = BASE << max(0, -(-n // BASE) - 1).bit_length()
    w, h = F.pad(w, (0, whole - n)), F.pad(h[..., :n], (0, whole - n))
    run = F.pad(run, (0, whole - n), value=-1)[:, None]
    y = _within(w.unflatten(-1, (-1, BASE)), h, run.unflatten(-1, (-1, BASE))).flatten(-2)
    half = BASE
    while half < whole:
        pairs, runs = w.unflatten(-1, (-1, 2 * half)), run.unflatten(-1, (-1, 2 * half))
        shared = runs == runs[..., half - 1 : half]
        left = torch.fft.rfft((pairs * shared)[..., :half], 2 * half)
        lags = torch.fft.rfft(h[..., : 2 * half]).unsqueeze(-2)
        right = torch.fft.irfft(left * lags, 2 * half)[..., half:] * shared[..., half:]
        y = y + F.pad(right, (half, 0)).flatten(-2)
        half *= 2
    return y[..., :n]


def _within(w: Tensor, h: Tensor, run: Tensor) -> Tensor:
    """Blocks [b d m B] convolved with themselves, inside segments."""
    y = w * h[:, 0, None, None]
    for lag in range(1, w.shape[-1]):
        part = w[..., :-lag] * (run[..., lag:] == run[..., :-lag]) * h[:, lag, None, None]
        y = y + F.pad(part, (lag, 0))
    return y


def last_of(w: Tensor, h: Tensor, run: Tensor, count: int) -> Tensor:
    """The last `count` of n outputs [b d count]: a single one by n products, more by convolving all."""
    if count > 1:
        return convolved_in_runs(w, h, run)[..., -count:]
    n = w.shape[-1]
    same = (run == run[:, -1:])[:, None]
    return (w * same * h[..., :n].flip(-1)).sum(-1, keepdim=True)
