"""What the parity tests share: a reference model of `transformers` made from a config, and ours with its weights.

Weights cross as files, in the published layout: what `save_pretrained` writes is what a family reads, and what a family
writes is what `from_pretrained` reads.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from sevenfold.assembly.model import Model, ModelConfig
from sevenfold.core import part
from sevenfold.core.types import Stream
from sevenfold.exchange import origin
from sevenfold.family import LUGGAGE, OBJECTIVE, Family, state_of

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest absolute difference. Never loosened."""
GRADIENT = {torch.float32: 1e-4, torch.float64: 1e-9}
"""The same, of gradients."""


def stirred(model: Any, seed: int = 0) -> Any:
    """The reference with every trained number random: biases and norms too, which start at 0 and 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dim() >= 2:
                embedding = "embed" in name or "wte" in name or "wpe" in name
                fan_in = parameter.shape[0] if "c_" in name else parameter[0].numel()
                parameter.normal_(std=0.5 if embedding and "patch" not in name else fan_in**-0.5)
            elif parameter.dim() == 1:
                norm = name.endswith(".weight")
                parameter.normal_(mean=float(norm), std=0.2)
    return model.eval()


class Exact(TorchFunctionMode):
    """The reference's code in float64 also where it says float32 (norms, tables of angles, losses), so that ours can be
    held against it in float64; of a rotary table what is left is the rounding to float32, which ours has as well."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(lambda x: torch.float64 if x is torch.float32 else x, (args, kwargs or {}))
        return (torch.Tensor.double if func is torch.Tensor.float else func)(*args, **kwargs)


def precisely(dtype: torch.dtype) -> Any:
    """A context for the reference: in float64 all of it is."""
    return Exact() if dtype == torch.float64 else contextlib.nullcontext()


def _rounded(_: Any, __: Any, tables: Any) -> Any:
    with torch._C.DisableTorchFunction():
        return tuple(table.float().to(table.dtype) for table in tables)


def rounded(model: Any) -> Any:
    """The reference with the cosines and sines of its rotary positions rounded to float32."""
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.register_forward_hook(_rounded)
    return model


def files(model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config.json, the tensors of model.safetensors) that the reference writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        return config, load_file(Path(folder) / "model.safetensors")


def family_of(reference: Any) -> Family:
    config, _ = files(reference)
    return origin.family_of(config)


def built(config: ModelConfig, tokenizer: str | None = "bytes") -> Model:
    """Our model. Words come from the `bytes` tokenizer, given as many ids as the family has; labels are 0, 1, 2 …"""
    modalities = {name: stream.build() for name, stream in config.streams.items()}
    for modality in modalities.values():
        if modality.kind == "text" and tokenizer is not None:
            size = modality.config.tokenizer.size
            modality.tokenizer = part.find("tokenization", tokenizer).Config().build()
            modality.tokenizer.size = size
        if modality.kind == "label":
            modality.fit(range(5))
    return Model(config, modalities).eval()


def objective_of(model: Model, kind: str, **settings: Any) -> Any:
    return part.decode(part.find("objective", kind).Config, settings).build(model)


def twin(reference: Any, kind: str | None = None, **settings: Any) -> tuple[Family, Model, Any]:
    """Our family, model and objective (of that kind) with the reference's weights and its type of numbers."""
    family = family_of(reference)
    model = built(family.model())
    objective = None if kind is None else objective_of(model, kind, **settings)
    dtype = next(reference.parameters()).dtype
    (objective or model).to(dtype)
    family.load(files(reference)[1], model, objective)
    return family, model, objective


def comes_back(reference: Any, family: Family, model: Model, objective: Any = None) -> Any:
    """A reference read from what our model writes: nothing missing, nothing left over, every number as it was."""
    state = family.to_published(state_of(model, objective))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(over(files(reference)[0], family.published())))
        save_file(state, Path(folder) / "model.safetensors", {"format": "pt"})
        dtype = next(reference.parameters()).dtype
        again, report = type(reference).from_pretrained(folder, output_loading_info=True, dtype=dtype)
    problems = {key: value for key, value in report.items() if value}
    assert not problems, problems
    return again.eval()


def way_back(reference: Any) -> Any:
    """A reference read from what our twin of it writes, every tensor as it was."""
    family, model, _ = twin(reference)
    again = comes_back(reference, family, model)
    for name, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    return again


def over(config: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A reference's config.json with what our family says in it: special ids and the like are left as they are."""
    inner = {key: over(config[key], value) for key, value in ours.items() if isinstance(config.get(key), dict)}
    return {**config, **ours, **inner}


def published(reference: Any, folder: Path, processor: Any = None) -> Path:
    """A folder as the reference (and its processor) writes it."""
    reference.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


def layers(trunk: Any, run: Any) -> tuple[Any, list[Tensor]]:
    """What `run()` gives, and the stream [b n d] before the first and after every block of a trunk."""
    seen: list[Tensor] = []

    def before(_: Any, inputs: Any) -> None:
        seen.append(inputs[0].x)

    hooks = [trunk.blocks[0].register_forward_pre_hook(before)]
    hooks += [block.register_forward_hook(lambda _, __, output: seen.append(output.x)) for block in trunk.blocks]
    try:
        return run(), seen
    finally:
        for hook in hooks:
            hook.remove()


def same(ours: Tensor, theirs: Tensor, where: Tensor | None = None, tolerance: float | None = None) -> None:
    """Equal within the tolerance of their type of numbers; `where` [b n]: only these tokens."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    difference = (ours - theirs).abs()
    if where is not None:
        difference = difference[where]
    assert torch.isfinite(difference).all()
    assert theirs.abs().max() > 1e-3, "nothing is compared"
    assert difference.max() <= (tolerance or TOLERANCE[theirs.dtype]), difference.max()


def same_gradients(reference: Any, family: Family, model: Model, objective: Any = None) -> None:
    """Every parameter's gradient, ours against theirs: gradients are put in the weights' place, and cross as these do."""
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, name
        with torch.no_grad():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    carried = LUGGAGE if objective is not None else (LUGGAGE, OBJECTIVE)
    theirs = {k: v for k, v in family.from_published(files(reference)[1]).items() if not k.startswith(carried)}
    theirs = {k: v for k, v in theirs.items() if k not in dict(model.named_buffers())}  # nothing learns there
    ours = {f"model.{name}": value for name, value in model.named_parameters()}
    if objective is not None:
        ours = {name: value for name, value in objective.named_parameters() if not name.startswith("model.")} | ours
    named = {
        name.removeprefix("model.") if name.startswith("model.") else f"objective.{name}": p for name, p in ours.items()
    }
    assert named.keys() == theirs.keys()
    assert max(float(value.abs().max()) for value in theirs.values()) > 1e-2, "nothing is compared"
    for name, parameter in named.items():
        assert parameter.grad is not None, name
        difference = float((parameter.grad - theirs[name]).abs().max())
        assert difference <= GRADIENT[parameter.dtype], (name, difference)


def words(ids: Tensor, valid: Tensor | None = None) -> Stream:
    """Ids [b n] as a stream of text."""
    return Stream(ids, torch.arange(ids.shape[1]).expand(ids.shape).unsqueeze(-1), valid)


def patches(pixels: Tensor, size: int) -> Stream:
    """Pictures [b C H W] as a stream of patches, each by row, column, channel."""
    b, channels, height, width = pixels.shape
    rows, columns = height // size, width // size
    values = pixels.reshape(b, channels, rows, size, columns, size).permute(0, 2, 4, 3, 5, 1)
    coords = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return Stream(values.reshape(b, rows * columns, -1), coords.expand(b, -1, -1))


def ragged(ids: Tensor, lengths: list[int]) -> Tensor:
    """[b n] bool: the first of each row, as many as `lengths` says."""
    return torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
