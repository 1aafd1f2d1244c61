"""Microscopy of many channels (stains, markers): an array [height width channels] of intensities, or a Micrograph that
names its markers, becomes ids along three axes.

By default `intensity`: the brightness of each marker in each patch. Multiplexed imaging, cell painting, spatial proteomics.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any, ClassVar

import numpy as np
from PIL import Image as Pillow

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.blocks.tokenization.intensity import micrograph_of
from sevenfold.core import part
from sevenfold.core.cell import Micrograph
from sevenfold.modality import Augmentation, Modality, Suggestion
from sevenfold.modality._features import Features, areas, statistics
from sevenfold.modality._strings import spread

SHOWN = 8
"""Channels of one picture that are shown."""
SIDE = 96
"""Pixels of the longer side of a shown channel."""
SHADES = " ░▒▓█"
WIDEST = 32


class Microscopy(Modality):
    class Config(Modality.Config):
        tokenizer: Tokenizer.Config = part.default("intensity")
        """How raw items become tokens."""

    axes = ("row", "column", "marker")
    error_unit: ClassVar[str] = "mean |difference|, as a share of the range of each channel"

    def check(self, raw: Any) -> Any:
        """An array [H W C] of numbers that are finite and not negative, or a Micrograph of one; unchanged."""
        micrograph_of(raw)
        return raw

    def error(self, raw: Any, back: Any) -> float:
        (markers, pixels), (others, found) = micrograph_of(raw), micrograph_of(back)
        if markers is not None and others is not None and set(markers) == set(others):
            found = found[:, :, [others.index(marker) for marker in markers]]
        if found.shape != pixels.shape:
            raise ValueError(f"a picture of {list(found.shape)} is none of {list(pixels.shape)}")
        spans = np.ptp(pixels, axis=(0, 1))
        return float((np.abs(pixels - found).mean((0, 1)) / np.where(spans > 0, spans, 1.0)).mean())

    def features(self, train: Sequence[Any]) -> tuple[Features, ...]:
        """Statistics of each channel, and its mean in each of 4 x 4 fields; channels by their names, where they have some."""
        found = [micrograph_of(raw) for raw in train]
        names = sorted({marker for markers, _ in found for marker in markers or ()})
        channels = len(names) or max((pixels.shape[2] for _, pixels in found), default=1)

        def told(raws: Sequence[Any]) -> np.ndarray:
            rows = np.zeros((len(raws), channels, 7 + 16), np.float32)
            for row, raw in zip(rows, raws):
                markers, pixels = micrograph_of(raw)
                for place in range(pixels.shape[2]):
                    at = (
                        place
                        if not names
                        else names.index(markers[place])
                        if markers and markers[place] in names
                        else -1
                    )
                    if 0 <= at < channels:
                        one = pixels[:, :, place]
                        row[at] = np.concatenate([statistics(one.ravel()), areas(areas(one, 4, 0), 4, 1).ravel()])
            return rows.reshape(len(raws), -1)

        return (Features("intensities of the channels", told),)

    def edits(self, raw: Any, draw: np.random.Generator) -> dict[str, Any]:
        markers, pixels = micrograph_of(raw)
        spot = pixels.copy()
        row, column = draw.integers(pixels.shape[0]), draw.integers(pixels.shape[1])
        spot[row, column] = pixels.max((0, 1))
        made = {"one pixel saturated": spot, "1 % brighter": pixels * 1.01}
        return made if markers is None else {name: Micrograph(markers, item) for name, item in made.items()}

    def content(self, raw: Any) -> bytes:
        return (raw.pixels if isinstance(raw, Micrograph) else raw).tobytes()

    def summary(self, raws: Sequence[Any]) -> dict[str, Any]:
        if not raws:
            return {"items": 0}
        read = [micrograph_of(raw) for raw in raws]
        panels = Counter(
            ", ".join(markers) if markers else f"{pixels.shape[2]} without names" for markers, pixels in read
        )
        return {
            "items": len(read),
            "height, least / median / most": spread([pixels.shape[0] for _, pixels in read]),
            "width, least / median / most": spread([pixels.shape[1] for _, pixels in read]),
            "channels": "; ".join(f"{panel} in {times}" for panel, times in panels.most_common(4)),
            "brightest pixel, least / median / most": spread([float(pixels.max()) for _, pixels in read]),
        }

    def html(self, raw: Any) -> str:
        """Each channel as a grey PNG, scaled to its own range."""
        markers, pixels = micrograph_of(raw)
        height, width, channels = pixels.shape
        scale = max(1, SIDE // max(height, width))
        shown = []
        for channel in range(min(channels, SHOWN)):
            file = io.BytesIO()
            Pillow.fromarray(_grey(pixels[:, :, channel])).save(file, "png")
            data = base64.b64encode(file.getvalue()).decode("ascii")
            name = escape(markers[channel] if markers else f"channel {channel}")
            shown.append(
                f'<figure style="display:inline-block;margin:2px"><img src="data:image/png;base64,{data}" '
                f'width="{width * scale}" height="{height * scale}" style="image-rendering:pixelated" alt="{name}">'
                f"<figcaption>{name}</figcaption></figure>"
            )
        more = f"<small>and {channels - SHOWN} more channels</small>" if channels > SHOWN else ""
        return f"<div>{''.join(shown)}{more}</div>"

    def plain(self, raw: Any) -> str:
        """The first channel in block characters."""
        markers, pixels = micrograph_of(raw)
        step = max(1, -(-max(pixels.shape[:2]) // WIDEST))
        levels = _grey(pixels[::step, ::step, 0]).astype(float) * (len(SHADES) - 1) / 255
        title = f"{markers[0] if markers else 'channel 0'} (of {pixels.shape[2]} channels)"
        return "\n".join([title, *("".join(SHADES[level] * 2 for level in row) for row in levels.round().astype(int))])

    def typed(self, text: str) -> np.ndarray:
        """The array [H W C] in the .npy file of that name."""
        try:
            return self.check(np.load(text, allow_pickle=False))
        except FileNotFoundError:
            raise ValueError(f"there is no file {text}") from None
        except (OSError, EOFError) as error:
            raise ValueError(f"{text} is not an array that can be read: {str(error).splitlines()[0]}") from None

    def file(self, raw: Any) -> tuple[str, bytes]:
        """(".npy", the array)."""
        file = io.BytesIO()
        np.save(file, raw.pixels if isinstance(raw, Micrograph) else raw, allow_pickle=False)
        return ".npy", file.getvalue()

    def augmentation(self) -> Augmentation:
        """Mirrored, each marker brighter or darker, with noise; pieces are enlarged."""
        light = {"kind": "gain"}, {"kind": "noise", "deviation": 0.05}
        flip = {"kind": "flip", "horizontal": 0.5, "vertical": 0.5}
        return Augmentation((flip, *light), ({"kind": "resized_crop", "scale": (0.15, 0.4)}, flip, *light))

    def within(self, raw: Any) -> Any:
        """Intensities not below 0."""
        if isinstance(raw, Micrograph):
            return Micrograph(raw.markers, self.within(raw.pixels))
        return raw.clip(0) if raw.dtype.kind == "f" else raw

    @classmethod
    def suggest(cls, name: str, raws: Sequence[Any], items: int) -> Suggestion | None:
        """Patches that make about 128 tokens of a picture, hidden ones filled in from place and other markers."""
        shapes = [micrograph_of(raw)[1].shape for raw in raws]
        if not shapes:
            return None
        common = int(np.gcd.reduce([side for height, width, _ in shapes for side in (height, width)]))
        height, width, channels = max(shapes)
        fitting = [size for size in range(1, common + 1) if common % size == 0]
        patch = min(fitting, key=lambda size: abs(np.log(height * width * channels / size**2 / 128)))
        tokens = height * width * channels / patch**2
        return Suggestion(
            stream={"kind": "microscopy", "tokenizer": {"kind": "intensity", "patch": patch}},
            trunks={"enc": {"inputs": [name], "position": {"kind": "learned", "size": max(height, width, channels)}}},
            objective={"kind": "masked_token"},
            train={"batch": 32},
            tokens=tokens,
            why=[
                f"{name}: the brightness of each marker in patches of {patch} x {patch} pixels, {tokens:.0f} tokens a picture",
                f"{name}: hidden ones are filled in from what is near and from the other markers",
            ],
        )


def _grey(channel: np.ndarray) -> np.ndarray:
    """A channel [H W] as uint8, its own range stretched to 0…255."""
    low, high = float(channel.min()), float(channel.max())
    return ((channel - low) * (255 / (high - low) if high > low else 0)).round().astype(np.uint8)
