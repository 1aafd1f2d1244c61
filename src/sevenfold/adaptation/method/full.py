"""Fine-tuning of all weights, with a new head, at a small learning rate.

    theta <- theta - eta g,  eta 10 times below that of training from scratch

Howard and Ruder 2018, arXiv:1801.06146; Devlin 2018, arXiv:1810.04805 section 3.2.
"""

from __future__ import annotations

from sevenfold.adaptation.method._tuned import Tuned


class Full(Tuned):
    rate = 2e-4
