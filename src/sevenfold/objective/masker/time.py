"""All tokens of one moment hidden together: those with one value on the first axis.

    s_i = u_{k(i)},   k(i) = which value of the first coordinate token i has,   u_k ~ U(0, 1)

Tube masking turned round (Tong 2022, VideoMAE, arXiv:2203.12602 section 3.3, hides the same place at all times); by time:
SpecAugment, Park 2019, arXiv:1904.08779 section 2. The first axis is time in sounds, series and actions, rows in pictures.
Neighbouring moments tell much of one another; `span` hides runs of them where a moment is one token.
"""

from __future__ import annotations

from sevenfold.objective.masker._axis import Slices


class Time(Slices):
    axes, axis = 1, 0
