"""All tokens of one channel hidden together: those with one value on the last axis.

    s_i = u_{k(i)},   k(i) = which value of the last coordinate token i has,   u_k ~ U(0, 1)

The frequency masks of SpecAugment, Park 2019, arXiv:1904.08779 section 2, turned to any channel: channels are learned from one
another. The last axis is the marker in microscopy and the column of an observation in actions; a modality with one axis has no
channel to hide.
"""

from __future__ import annotations

from sevenfold.objective.masker._axis import Slices


class Channel(Slices):
    axes, axis = 2, -1
