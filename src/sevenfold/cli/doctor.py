"""Look at this machine: versions, processors, precision, speed, kernels, missing extras, disk.

sevenfold doctor
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
from typing import Any

from sevenfold import __version__
from sevenfold.cli._table import short
from sevenfold.core.rooms import kinds

SHOWN = ("torch", "numpy", "pydantic", "safetensors", "tokenizers", "pillow", "scikit-learn", "matplotlib", "rich")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print plain data")


def run(args: argparse.Namespace) -> int:
    found = facts()
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for title, values in found.items():
        print(title)
        for name, value in values.items():
            print(f"  {name:<22} {value}")
    return 0


def facts() -> dict[str, dict[str, str]]:
    """What is said, group → name → value."""
    return {
        "versions": _versions(),
        "compute": _compute(),
        "kernels of the mixers": _kernels(),
        "engines": _engines(),
        "extras": _extras(),
        "disk": _disk(),
    }


def _versions() -> dict[str, str]:
    found = {"sevenfold": __version__, "python": f"{platform.python_version()} on {platform.platform()}"}
    for name in SHOWN:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing: pip install sevenfold again"
    return found


def _engines() -> dict[str, str]:
    """What encodes byte pairs: the extra `fast` brings a faster engine, used where it gives the same ids."""
    from sevenfold.blocks.tokenization._fast import engine_name

    return {"byte pairs": engine_name()}


def _compute() -> dict[str, str]:
    import torch

    from sevenfold.training.precision import fast_bf16, peak_flops, resolve
    from sevenfold.training.recipe import device_of

    device = device_of(None)
    found = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} processors",
        "bf16 instructions": "yes" if fast_bf16(device) else "no (bf16 works, slowly)",
        "precision: auto": resolve("auto", device),
    }
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found["device memory"] = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    for precision in ("fp32", "bf16"):
        found[f"matrix product, {precision}"] = f"{short(peak_flops(device, precision))}FLOP/s (measured)"
    return found


def _kernels() -> dict[str, str]:
    """Which kernels each mixer's forward pass runs here, as PyTorch dispatches it."""
    from sevenfold.core.part import find

    found = {}
    for kind in kinds("mixing"):
        mixer: Any = find("mixing", kind)
        try:
            found[kind] = _kernel(mixer)
        except Exception as error:  # a part of another package may need anything
            why = (str(error).splitlines() or [type(error).__name__])[0]
            if mixer.needs:
                found[kind] = (
                    f"not tried: works only with the {' and the '.join(sorted(mixer.needs))} that a trunk gives"
                )
            else:
                found[kind] = f"cannot be tried here: {why}"
    return found


def _kernel(mixer: Any) -> str:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from sevenfold.core.types import Hidden, Mask
    from sevenfold.training.precision import autocast, resolve
    from sevenfold.training.recipe import device_of

    seen: dict[str, None] = {}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen[op.overloadpacket.__name__] = None
            return op(*args, **(kwargs or {}))

    device = device_of(None)
    built = mixer.Config().build(64).to(device)
    x = torch.randn(2, 128, 64, device=device)
    coords = torch.arange(128, device=device).expand(2, 128)[..., None]
    hidden = Hidden(x, coords, memory=Hidden(x, coords))
    with Watch(), autocast(resolve("auto", device), device):
        built(hidden, Mask(causal=True)).sum()
    fused = [name.strip("_") for name in seen if "scaled_dot_product" in name or "flash" in name]
    if fused:
        return f"fused: {fused[0]}"
    return "PyTorch: " + ", ".join(
        name for name in seen if any(word in name for word in ("mm", "conv", "fft", "scan", "solve"))
    )


def _extras() -> dict[str, str]:
    """Each extra: there, or how to get it."""
    found: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("sevenfold") or []:
        wanted = re.match(r"([\w.-]+)[^;]*;.*extra == ['\"](\w+)['\"]", line)
        if wanted and wanted[1] != "sevenfold":
            missing = found.setdefault(wanted[2], [])
            try:
                importlib.metadata.version(wanted[1])
            except importlib.metadata.PackageNotFoundError:
                missing.append(wanted[1])
    return {
        name: "installed" if not missing else f"{', '.join(missing)} missing: pip install 'sevenfold[{name}]'"
        for name, missing in found.items()
    }


def _disk() -> dict[str, str]:
    free = shutil.disk_usage(".").free
    return {"here": f"{free / 1e9:.1f} GB free in {os.getcwd()}"}
