"""What a position scheme looks like, and the four properties that are wanted of one, as measured figures.

    T(p)     the code of place p: what is added; or cos and sin of its angles; or its biases towards all places
    S(p, q)  what two places make of each other: <T(p), T(q)>; or the mean cosine of the difference of angles; or the bias

    unique         share of pairs of places whose codes differ
    bounded        max |T| over 0 … 16 L  /  max |T| over 0 … L; 1 is bounded
    relative       share of the variance of S(p, q) that the difference p - q explains; 1 is wholly relative
    extrapolating  beyond L: whether it answers; share of code values within the range seen below L; share of attention (by
                   S alone, from place 4 L backwards) on distances that were seen

Everything is computed from the scheme as it begins (learned tables are random then). The four properties: Wang 2021,
openreview.net/forum?id=onxoVA9FxMw asks for such measures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sevenfold.core.errors import ConfigError, SevenfoldError
from sevenfold.core.part import find
from sevenfold.core.rooms import kinds

FURTHER = 16
"""How many times further out boundedness is measured."""
HEADS = 4


class Profile(NamedTuple):
    """One scheme at one length: its table [n k], its similarities [n n], and the four properties.

    refused     why it does not answer beyond the length, or nothing
    in_range    share of code values at L … 2L within what was seen at 0 … L; None where it refuses
    near        share of attention at place 4L on distances below L; None where it refuses
    """

    kind: str
    what: str
    table: Tensor
    similarity: Tensor
    unique: float
    bounded: float | None
    relative: float | None
    refused: str
    in_range: float | None
    near: float | None


def profiles(
    names: list[str] | None = None, length: int = 64, width: int = 64, axes: int = 1
) -> tuple[list[Profile], list[str]]:
    """The profile of each position kind (all by default) on a line of `length` places, or a square or cube of about as
    many; and one line for each kind that does not take so many axes."""
    if not 4 <= length <= 4096 or not 1 <= axes <= 3 or not 4 <= width <= 4096:
        raise ConfigError("positions: a length in 4 … 4096, a width in 4 … 4096, and 1, 2 or 3 axes")
    found, left = [], []
    for kind in names or kinds("position"):
        cls = find("position", kind)
        settings: dict[str, Any] = {}
        if "size" in cls.Config.model_fields:
            settings["size"] = side(length, axes)
        try:
            found.append(profile(cls.Config(**settings), length, width, axes))
        except SevenfoldError as error:
            left.append(f"{kind}: {error}")
    return found, left


def side(length: int, axes: int) -> int:
    """Places along each axis of a line, square or cube of about `length` places."""
    return max(2, round(length ** (1 / axes)))


def profile(config: Any, length: int = 64, width: int = 64, axes: int = 1) -> Profile:
    """The profile of one scheme, its first weights the same every time. ConfigError if it does not take so many axes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scheme = config.build(width, axes, HEADS)
    places = grid(side(length, axes), axes)
    with torch.no_grad():
        what, table = _codes(scheme, places, places)
        similarity = _similarity(scheme, places, places)
        gaps = torch.cdist(table, table) if table.shape[1] else torch.zeros(len(places), len(places))
        apart = gaps[~torch.eye(len(places), dtype=torch.bool)]
        unique = float((apart > 1e-6 * max(1.0, float(table.abs().max() if table.numel() else 0))).double().mean())
        far, refused = None, ""
        try:
            far = _beyond(scheme, side(length, axes), axes, places)
        except SevenfoldError as error:
            refused = str(error)
    bounded, in_range, near = far or (None, None, None)
    explained = _explained(similarity, places)
    return Profile(config.kind, what, table, similarity, unique, bounded, explained, refused, in_range, near)


def grid(many: int, axes: int, start: int = 0) -> Tensor:
    """Every place of a grid with `many` places a side, [n axes]."""
    line = torch.arange(start, start + many)
    return torch.cartesian_prod(*[line] * axes).reshape(-1, axes)


def _codes(scheme: Any, places: Tensor, against: Tensor) -> tuple[str, Tensor]:
    """(what the scheme does, the code of each place [n k])."""
    coords = places[None]
    added = scheme.embed(coords)
    if added is not None:
        return "added", added[0].double()
    head = scheme.turned_width or scheme.width // HEADS * 2
    turned = scheme.angles(coords, head)
    if turned is not None:
        return "turns", torch.cat([turned[0][0], turned[1][0]], -1).double()
    if scheme.biased:
        return "bias", scheme.bias(coords, against[None], HEADS)[0].permute(1, 0, 2).flatten(1).double()
    return "nothing", torch.zeros(len(places), 0, dtype=torch.float64)


def _similarity(scheme: Any, query: Tensor, key: Tensor) -> Tensor:
    """S [n m]."""
    what, codes = _codes(scheme, query, key)
    if what == "bias":
        return scheme.bias(query[None], key[None], HEADS)[0].mean(0).double()
    other = _codes(scheme, key, key)[1]
    if not codes.shape[1]:
        return torch.zeros(len(query), len(key), dtype=torch.float64)
    return codes @ other.T / (codes.shape[1] / 2 if what == "turns" else codes.shape[1] ** 0.5)


def _explained(similarity: Tensor, places: Tensor) -> float | None:
    """Share of the variance of S that the difference of places explains; None where S is constant."""
    difference = (places[:, None] - places[None]).flatten(0, 1)
    values = similarity.flatten()
    total = values.var(correction=0)
    if total < 1e-12:
        return None
    _, group = torch.unique(difference, dim=0, return_inverse=True)
    count = torch.bincount(group).double()
    means = torch.zeros(len(count), dtype=torch.float64).index_add_(0, group, values) / count
    return float(1 - (values - means[group]).square().mean() / total)


def _beyond(scheme: Any, many: int, axes: int, places: Tensor) -> tuple[float, float, float]:
    """(growth at FURTHER times the length, share of codes within the seen range, attention on seen distances)."""
    seen = _codes(scheme, places, places)[1]
    if not seen.shape[1]:
        return 1.0, 1.0, 0.25
    line = torch.zeros(4 * many, axes, dtype=torch.long)
    line[:, 0] = torch.arange(4 * many)
    edge = torch.zeros(64, axes, dtype=torch.long)
    edge[:, 0] = torch.linspace(0, FURTHER * many, 64).long()
    if not scheme.biased:
        growth = float(_codes(scheme, edge, edge)[1].abs().max() / seen.abs().max().clamp(min=1e-9))
        low, high = seen.min(0).values - 1e-6, seen.max(0).values + 1e-6
        new = _codes(scheme, line[many : 2 * many], places)[1]
        in_range = float(((new >= low) & (new <= high)).double().mean())
    else:
        by_distance = scheme.bias(line[:1][None], line[None], HEADS)[0, :, 0].double()  # [heads 4L]
        inside, new = by_distance[:, :many], by_distance[:, many : 2 * many]
        growth = float(scheme.bias(edge[:1][None], edge[None], HEADS).abs().max() / inside.abs().max().clamp(min=1e-9))
        low, high = inside.min(1, keepdim=True).values - 1e-6, inside.max(1, keepdim=True).values + 1e-6
        in_range = float(((new >= low) & (new <= high)).double().mean())
    scores = _similarity(scheme, line[-1:], line)[0]
    if scheme.biased:
        weights = scheme.bias(line[-1:][None], line[None], HEADS)[0, :, 0].double().softmax(-1).mean(0)
    else:
        weights = scores.softmax(-1)
    return max(1.0, growth), in_range, float(weights[-many:].sum())


def draw(found: list[Profile], axes: int) -> Any:
    """A matplotlib figure: of each scheme its table, and how the place in the middle sees all others."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.9 * len(found)), layout="constrained")
    for row, one in enumerate(found):
        left, right = figure.add_subplot(len(found), 2, 2 * row + 1), figure.add_subplot(len(found), 2, 2 * row + 2)
        n = len(one.similarity)
        if one.table.shape[1]:
            most = float(one.table.abs().max()) or 1.0
            left.imshow(one.table.T, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        left.set_title(f"{one.kind}: {one.what}", loc="left", fontsize=10)
        left.set_xlabel("place", fontsize=8)
        left.set_yticks([])
        seen = one.similarity[_middle(n, axes)]
        if axes == 1:
            right.plot(seen, color="#1f4e79")
            right.set_xlim(0, n - 1)
            right.axvline(n // 2, color="#cccccc", linewidth=0.8)
        else:
            many = round(n ** (1 / axes))
            plane = seen.reshape([many] * axes) if axes == 2 else seen.reshape([many] * axes)[many // 2]
            right.imshow(plane, cmap="RdBu_r", interpolation="nearest")
        right.set_title("seen from the place in the middle", loc="left", fontsize=9, color="#666666")
        for panel in (left, right):
            panel.tick_params(labelsize=7)
            for edge in panel.spines.values():
                edge.set_visible(False)
    return figure


def _middle(n: int, axes: int) -> int:
    """The number of the place in the middle of a line, square or cube."""
    many = round(n ** (1 / axes))
    return sum((many // 2) * many**axis for axis in range(axes))
