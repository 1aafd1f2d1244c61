"""For all tests: one thread each, here and in the processes that they start."""

from __future__ import annotations

import os

import torch

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
