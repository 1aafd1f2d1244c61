"""What the checks are written with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from sevenfold.core.seeds import seed_of

WIDTH, TOKENS = 32, 12
M = TypeVar("M", bound=nn.Module)


class Failed(Exception):
    """A check that does not hold. The message is one line."""


class Skipped(Exception):
    """A check that does not apply, and why."""


def expect(holds: Any, message: str) -> None:
    """Failed unless it holds."""
    if not holds:
        raise Failed(message)


def near(found: Tensor, wanted: Tensor, what: str, within: float | None = None) -> None:
    """Failed unless two tensors agree: to 1e-10 in float64, 1e-5 in float32, relative to the larger of 1 and the wanted."""
    expect(found.shape == wanted.shape, f"{what}: shape {list(found.shape)} instead of {list(wanted.shape)}")
    if within is None:
        within = 1e-10 if wanted.dtype == torch.float64 else 1e-5
    found, wanted = found.detach(), wanted.detach()
    scale = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
    error = float((found - wanted).abs().max()) / scale if wanted.numel() else 0.0
    expect(error <= within, f"{what}: off by {error:.1e}, more than {within:.0e}")


def finite(value: Tensor, what: str) -> None:
    """Failed if there is a NaN or an infinity."""
    expect(torch.isfinite(value).all(), f"{what}: not finite")


def lively(module: M, scale: float = 0.15) -> M:
    """The module with noise added to every parameter, so that what starts at 0 or 1 does something."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return module


def gradients(module: nn.Module, output: Tensor) -> None:
    """Failed unless every trainable parameter gets a finite gradient that is not all 0."""
    module.zero_grad()
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.numel():
            if parameter.grad is None:
                raise Failed(f"{name} gets no gradient")
            finite(parameter.grad, f"the gradient of {name}")
            expect(parameter.grad.any(), f"the gradient of {name} is 0")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, traced whole (fullgraph) and run without code generation. Shapes may depend on data, as in fit."""
    torch._dynamo.reset()
    whole = torch.compile(function, fullgraph=True, backend="eager", dynamic=False)
    return torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)(whole)


def counted(function: Callable[[], Any]) -> int:
    """FLOPs as PyTorch's counter sees them (attention by its formula in products, which the counter knows)."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        function()
    return counter.get_total_flops()


def saved_numbers(function: Callable[[], Tensor], exclude: Sequence[Tensor] = ()) -> float:
    """How many float32 numbers (bytes / 4) autograd keeps for the backward pass of what a function gives: each storage
    once and whole, without those of `exclude` (parameters, what the function is given)."""
    given = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:  # returned as it is, so that no storage is freed and its place used again
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    expect(result.requires_grad, "has nothing to differentiate")
    return sum(kept.values()) / 4


def in_bf16(function: Callable[[], Tensor], what: str = "bf16") -> None:
    """Failed unless the result under autocast is within 2 % (of its size) of that in float32."""
    with torch.no_grad():
        wanted = function().float()
        with torch.autocast("cpu", torch.bfloat16):
            found = function().float()
    finite(found, what)
    error = float((found - wanted).norm() / wanted.norm().clamp(min=1e-6))
    expect(error < 0.02, f"{what}: {100 * error:.1f} % away from float32")


def refusal(action: Callable[[], Any], kind: type[Exception]) -> str:
    """The message of the error that an action raises, which must be of this kind and one line."""
    try:
        action()
    except kind as error:
        expect("\n" not in str(error) and str(error).strip(), f"an error of more or less than one line: {error!r}")
        return str(error)
    raise Failed(f"no {kind.__name__} was raised")


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


class RowNoise(TorchFunctionMode):
    """Random tensors whose rows depend on the row's number and on how many were drawn before, not on the batch around
    them: a batch sees the same noise whatever padding is added to it."""

    DRAWS = (torch.rand, torch.randn, torch.rand_like, torch.randn_like, torch.randint, torch.bernoulli)

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        whole = func(*args, **kwargs)
        if func not in self.DRAWS or whole.dim() == 0:
            return whole
        self.calls += 1
        rows = []
        for row in range(len(whole)):
            torch.manual_seed(seed_of(self.calls, row))
            rows.append(func(*_one_row(list(args), row), **kwargs))
        return torch.cat(rows) if rows else whole


def _one_row(args: list[Any], row: int) -> list[Any]:
    """The arguments of a draw, for one row instead of all."""
    for place, given in enumerate(args):
        if isinstance(given, Tensor):
            return [given[row : row + 1], *args[1:]]
        if isinstance(given, tuple | list):
            return [*args[:place], (1, *given[1:]), *args[place + 1 :]]
    return [1, *args[1:]]
