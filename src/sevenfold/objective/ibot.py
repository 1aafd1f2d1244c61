"""A slow teacher names whole looks and hidden tokens alike; the student, which sees part of them, has to agree.

    L = mean over u != v of H(P(u), s(v))  +  patch · mean (1/|M|) sum_{i in M} H(P(u_i), s(u~_i))

Zhou 2021 (iBOT), arXiv:2111.07832 eq. 2-3; the first term is that of Caron 2021 (DINO), arXiv:2104.14294 eq. 2, which is left
alone by `masked: 0`. Names are soft: prototypes, centred and sharpened. The centre of patches is over the hidden ones, as in
DINOv2's code; iBOT's is over all.
"""

from __future__ import annotations

from sevenfold.objective._dino import SelfDistillation


class IBOT(SelfDistillation):
    class Config(SelfDistillation.Config):
        pass
