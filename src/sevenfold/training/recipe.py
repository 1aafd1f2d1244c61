"""A recipe: data, streams, trunks, objective, how to train, seed; read from a file, a run folder or plain data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field

from sevenfold.assembly.adapter import Adapter
from sevenfold.assembly.head import HeadConfig
from sevenfold.assembly.initialisation import Initialisation
from sevenfold.assembly.model import ModelConfig
from sevenfold.assembly.trunk import Trunk
from sevenfold.core import notation, part
from sevenfold.core.errors import ConfigError
from sevenfold.data.source import Source
from sevenfold.family import Family
from sevenfold.modality import Modality
from sevenfold.objective import Objective
from sevenfold.training.guard import GuardConfig
from sevenfold.training.optimizer import Optimizer
from sevenfold.training.parallel import Parallel, local
from sevenfold.training.precision import Precision
from sevenfold.training.prepared import with_streams
from sevenfold.training.schedule import Schedule
from sevenfold.training.wiring import filled


class TrainConfig(part.Config):
    """How to train."""

    steps: int = Field(1000, ge=1)
    """Optimizer steps."""
    batch: int | None = Field(None, ge=1)
    """Items (or windows) per step; by default 32, or what batch_tokens makes."""
    batch_tokens: int | None = Field(None, ge=1)
    """Tokens per step, instead of batch; for windows of one length."""
    accumulate: int = Field(1, ge=1)
    """Split each step's batch into this many pieces, to save memory. The loss is that of the whole batch, also where the
    objective compares the items of one (by gradient caching: one more forward pass); it is said where it is not."""
    optimizer: Optimizer.Config = part.default("adamw")
    """What makes the steps."""
    schedule: Schedule.Config = part.default("cosine")
    """How the learning rate moves."""
    clip: float = Field(1.0, gt=0)
    """The largest gradient norm."""
    guard: GuardConfig = GuardConfig()
    """What is done about steps that would harm the weights."""
    precision: Precision = "auto"
    """bf16, fp32, or auto: bf16 where the processor multiplies it; fp8: bf16, with 8-bit products in the linear layers of blocks,
    which is quicker on GPUs that have them (from Ada and Hopper on)."""
    compile: bool = False
    """Compile the blocks (torch.compile), once: what is compiled is kept for later runs. It pays for long runs."""
    recompute: bool = False
    """Compute blocks again in the backward pass instead of keeping what is inside of them: far less memory, one more forward
    pass."""
    workers: int = Field(0, ge=0, le=256)
    """Loader processes; 0 loads in the training process. The results do not depend on it."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps between looks at the held-out loss; by default a tenth of the run."""
    evaluate_batches: int = Field(8, ge=1)
    """At most this many held-out batches on the way (all of them at the end)."""
    save_every: int | None = Field(None, ge=1)
    """Steps between checkpoints; by default a quarter of the run."""
    keep: int = Field(2, ge=1)
    """Checkpoints to keep."""
    device: str | None = None
    """cpu, cuda, cuda:1; by default cuda where there is one."""


class Recipe(part.Config):
    """Everything that a run is made from."""

    data: Source.Config
    """Where samples come from."""
    start: str | None = None
    """A run folder, a published one, or the id of one: its streams, trunks and heads are those of the recipe, where it does not
    say others; its tokenizers and weights are begun from."""
    family: Family.Config | None = None
    """A published architecture, by its published settings: its trunks and heads are those of the recipe, where it does not say
    others, and the trained model can be published as such."""
    streams: dict[part.Name, Modality.Config] = Field(min_length=1)
    """Name → modality."""
    trunks: dict[part.Name, Trunk.Config] = Field(min_length=1)
    """Name → trunk, in order."""
    heads: dict[part.Name, HeadConfig] = {}
    """Name → head, besides those that the objective adds."""
    init: Initialisation.Config = part.default("standard")
    """The scheme of the first weights."""
    adapter: Adapter.Config | None = None
    """A few new weights, which are trained instead of the model's own; null for none. Of a `start` that has another one, it is
    merged first."""
    objective: Objective.Config
    """What is learned."""
    train: TrainConfig = TrainConfig()
    """How."""
    parallel: Parallel = Parallel()
    """How several processes share the work, where there are several (torchrun). Nothing of what is learned depends on it."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of everything random."""

    @property
    def wiring(self) -> ModelConfig:
        """The model that it describes."""
        return ModelConfig(
            streams=self.streams, trunks=self.trunks, heads=self.heads, init=self.init, adapter=self.adapter
        )


def read_recipe(source: str | Path | dict | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file, a run folder, plain data, or a Recipe; `overrides` are `dotted.field=value`."""
    where = ""
    if isinstance(source, Recipe):
        data = part.encode(source)
    elif isinstance(source, dict):
        data = source
    else:
        path = Path(source)
        path = path / "recipe.yaml" if path.is_dir() else path
        if not path.exists() and path.suffix == "" and (named := shipped(str(source))) is not None:
            path = named
        where, data = str(path), notation.read(path)
    for change in overrides:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise ConfigError(f"{change!r}: an override is written dotted.field=value")
        data = part.override(data, name, notation.parse(value, change))
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: a recipe is a mapping with data, streams, trunks and objective")
    if not isinstance(source, Recipe):
        data = filled(with_streams(data), where)
    return part.decode(Recipe, data, where)


def shipped_folder() -> Path:
    """Where the recipes that come with the package are."""
    installed = Path(__file__).parents[1] / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def shipped(name: str) -> Path | None:
    """A recipe that comes with the package, by its name."""
    path = shipped_folder() / f"{name}.yaml"
    return path if path.is_file() and "/" not in name else None


def device_of(name: str | None) -> torch.device:
    """The device asked for, or the best there is."""
    try:
        device = local(torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu")))
    except RuntimeError as error:
        raise ConfigError(f"train.device: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device: no CUDA device is visible here: leave it out, or say cpu")
    return device
