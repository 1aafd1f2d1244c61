"""Imported once by the process that others are forked from: everything that a training loads late is loaded, with one thread."""

import contextlib
import importlib
import importlib.util
import io

import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo

from sevenfold.conformance.fault import _kit
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds

for package, module in {
    "tensorboard": "torch.utils.tensorboard",
    "anndata": "anndata",
    "pyarrow": "pyarrow.parquet",
    "pyfaidx": "pyfaidx",
    "biotite": "biotite.structure.io.pdbx",
    "soundfile": "soundfile",
}.items():
    if importlib.util.find_spec(package) is not None:
        importlib.import_module(module)

for room in ("source", "family", "tokenization", "modality", "objective", "optimizer", "schedule"):
    for kind in kinds(room):
        find(room, kind)
torch.set_num_threads(1)
with contextlib.redirect_stdout(io.StringIO()):
    _kit.fitted(_kit.small(steps=1), None)
