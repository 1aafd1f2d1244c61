"""A low-rank adapter in the layout that the library `peft` loads, for models of a published family.

    ours: one A, B on qkv      theirs: lora_A of q, k and v each a copy of A, lora_B the rows of B that are theirs

adapter_config.json and adapter_model.safetensors; a tensor is called base_model.model.<module as published>.lora_A.weight. Which
published modules a projection of ours became is read off the family's rules, by sending B through them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sevenfold.assembly.adapter.lora import LoRA, Low, lows
from sevenfold.assembly.model import Model
from sevenfold.core.errors import ConfigError
from sevenfold.core.files import write_atomic
from sevenfold.exchange.origin import family_of
from sevenfold.exchange.publish import extra_heads
from sevenfold.family import Rule

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_peft(model: Model, folder: str | Path) -> str:
    """Write a model's low-rank adapter as `peft` has it; returns a line that says what was written.

    ConfigError for a model without one, of no published family, or with one on a projection that the published model has not as
    a plain layer.
    """
    adapter: Any = model.adapter
    if not isinstance(adapter, LoRA):
        raise ConfigError("peft: this model has no low-rank adapter")
    if not model.published:
        raise ConfigError("peft: this model is of no published family, so there is nothing that peft could put it on")
    tensors, turned = published_pairs(model)
    config = adapter.config
    record = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": model.published["origin"], "revision": None,
        "r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout, "use_rslora": config.rslora,
        "target_modules": sorted({name.removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name}),
        "fan_in_fan_out": turned, "bias": "none", "inference_mode": True, "modules_to_save": None,
    }  # fmt: skip
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {f"base_model.model.{name}": value.contiguous().clone() for name, value in tensors.items()}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})
    write_atomic(folder / CONFIG, json.dumps(record, indent=2) + "\n")
    return f"{folder}: the adapter as peft loads it, on {len(tensors) // 2} modules of {model.published['origin']}"


def published_pairs(model: Model) -> tuple[dict[str, Tensor], bool]:
    """(`module.lora_A.weight` and `module.lora_B.weight` of each published module, whether these keep W as [in out])."""
    family = family_of(model.published["config"], model.published.get("preprocessor"))
    rules = {rule.names[0][0]: rule for rule in family.rules() if len(rule.names[0]) == 1}
    found: dict[str, Tensor] = {}
    turned: set[bool] = set()
    extra = extra_heads(family.model(), model.config)
    for name, low in lows(model).items():
        if any(name.startswith(f"heads.{head}.") for head in extra):
            continue  # of our own
        rule = rules.get(f"{name}.weight")
        if rule is None:
            raise ConfigError(f"peft: {name} is made of several published tensors: leave it out (targets)")
        flips, pairs = _pairs(rule, low, name)
        turned.add(flips)
        for theirs, (a, b) in pairs.items():
            found[f"{theirs}.lora_A.weight"], found[f"{theirs}.lora_B.weight"] = a, b
    if len(turned) > 1:
        raise ConfigError(
            "peft: some of the published layers keep W as [in out] and some as [out in]: choose among them (targets)"
        )
    return found, turned == {True}


def _pairs(rule: Rule, low: Low, name: str) -> tuple[bool, dict[str, tuple[Tensor, Tensor]]]:
    """(whether W is [in out], published module → (A, B)) of one projection; checked against what becomes of B A."""
    a, b = low.A.detach(), low.B.detach()
    lively = torch.randn(b.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    try:
        wanted, plain, moved = rule.op.give([lively @ a.double()]), rule.op.give([lively]), rule.op.give([b])
    except (RuntimeError, ValueError, IndexError):
        wanted, plain, moved = [], [], []
    found, turned = {}, set()
    for theirs, whole, there, own in zip(rule.names[1], wanted, plain, moved):
        module = theirs.removesuffix(".weight")
        for flips in (False, True):
            rows, kept = (there.T, own.T) if flips else (there, own)
            if rows.shape[-1] == len(a) and (rows @ a.double()).shape == (whole.T if flips else whole).shape:
                if torch.allclose(rows @ a.double(), whole.T if flips else whole):
                    found[module] = a, kept
                    turned.add(flips)
                    break
    if len(found) != len(rule.names[1]) or len(turned) != 1:
        raise ConfigError(f"peft: {name} is no plain layer as published ({rule.names[1][0]}): leave it out (targets)")
    return turned == {True}, found
