"""Imported once by the process that others are forked from: everything that a training loads late is loaded, with one thread."""

import contextlib
import importlib.util
import io

import sklearn.datasets  # noqa: F401
import torch

from sevenfold.conformance.fault import _kit

if importlib.util.find_spec("tensorboard") is not None:
    import torch.utils.tensorboard

torch.set_num_threads(1)
with contextlib.redirect_stdout(io.StringIO()):
    _kit.fitted(_kit.small(steps=1), None)
