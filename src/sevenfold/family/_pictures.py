"""What the families of pictures share: `preprocessor_config.json` both ways, and the stream, position and activation of
their encoders.

    published: resize, middle, (f x - m) / s, x in 0…255       ours: streams.….resize, then (x/255 - m') / s'
    m' = m / 255f,  s' = s / 255f
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from sevenfold.assembly.model import Model
from sevenfold.core import part
from sevenfold.core.errors import ConfigError, did_you_mean
from sevenfold.family import Family, Op, Rule, blocks

FILE = "preprocessor_config.json"
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Ours, in the order of the published numbers."""

Colours = tuple[float, ...]
HALF: Colours = (0.5, 0.5, 0.5)
IMAGENET: tuple[Colours, Colours] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's red, green and blue."""
OPENAI: tuple[Colours, Colours] = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue in the pictures that CLIP was trained on."""

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "gelu": {"kind": "gelu"},
    "gelu_new": {"kind": "gelu", "tanh": True},
    "gelu_pytorch_tanh": {"kind": "gelu", "tanh": True},
    "quick_gelu": {"kind": "quick_gelu"},
    "relu": {"kind": "relu"},
    "silu": {"kind": "silu"},
}
"""Published names of activations → ours."""


class Preprocessor(part.Config):
    """What a published processor of pictures does; the defaults are those of ViT's."""

    do_resize: bool = True
    """Whether pictures are scaled."""
    size: int | tuple[int, int] | dict[str, int | None] = {"height": 224, "width": 224}
    """The size after that: height and width, or shortest_edge."""
    resample: int = Field(2, ge=0, le=5)
    """The number of a filter of Pillow's."""
    do_center_crop: bool = False
    """Whether the middle is cut out."""
    crop_size: int | tuple[int, int] | dict[str, int | None] = {"height": 224, "width": 224}
    """The size of the middle."""
    do_rescale: bool = True
    """Whether bytes are multiplied by rescale_factor."""
    rescale_factor: PositiveFloat = 1 / 255
    """f."""
    do_normalize: bool = True
    """Whether m is subtracted, and s divided by."""
    image_mean: float | tuple[float, ...] = HALF
    """m of each channel."""
    image_std: PositiveFloat | tuple[PositiveFloat, ...] = HALF
    """s of each channel."""
    do_convert_rgb: bool = False
    """Whether grey and transparent pictures become red, green and blue."""
    size_divisor: int | None = Field(None, ge=1)
    """Both sides are cut down to a multiple of it, and the longer one to 1333/800 of the shorter one's size (ViLT)."""
    default_to_square: bool = True
    """Whether a size that is one number means both sides, not the shorter one."""


WHOLE = {"do_center_crop": True, "do_convert_rgb": True, "resample": 3, "size": {"shortest_edge": 224}}
SHARED = {"image_mean": OPENAI[0], "image_std": OPENAI[1], **WHOLE}
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {},
    "Siglip": {"resample": 3, "do_convert_rgb": True, "default_to_square": False},
    "CLIP": {**SHARED, "default_to_square": False},
    "Llava": {**SHARED, "default_to_square": False},
    "Bit": SHARED,
    "Vilt": {"size": {"shortest_edge": 384}, "resample": 3, "size_divisor": 32, "default_to_square": False},
}
"""Published processors → where their defaults are others than ViT's."""
BY_SHORTER = {"CLIP", "Llava", "Bit", "Vilt"}
"""Processors that scale by the shorter side."""
PADDED = {"Vilt"}
"""Processors that pad a batch of pictures, and say what is padding."""


class Pictures(Family):
    """A family with a stream of pictures, `image`."""

    processor: ClassVar[str] = "ViT"
    """The processor that folders mean which name none."""
    colours: ClassVar[tuple[Colours, Colours]] = (HALF, HALF)
    """Mean and deviation of red, green and blue, where a folder has no preprocessor_config.json."""

    @classmethod
    def read(cls, published: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> Any:
        if "architectures" in published and "id2label" not in published and "id2label" in cls.Config.model_fields:
            published = {**published, "id2label": {0: "LABEL_0", 1: "LABEL_1"}}  # two are not written
        return super().read(published, preprocessor)

    def stream(self, config: Any, bias: bool = True) -> dict[str, Any]:
        """The stream of pictures, as the folder's preprocessor says, for the image_size, patch_size and num_channels of a
        config."""
        if self.preprocessor:
            resize, mean, std = prepared(self.preprocessor, self.processor)
        else:
            side = {"height": config.image_size, "width": config.image_size}
            plain = {"size": side, "crop_size": side, "image_mean": self.colours[0], "image_std": self.colours[1]}
            if self.processor in BY_SHORTER:
                plain["size"] = {"shortest_edge": config.image_size}
            if PROCESSORS[self.processor].get("size_divisor"):
                plain["size_divisor"] = config.patch_size
            resize, mean, std = prepared(plain, self.processor)
            if config.num_channels != 3:
                resize, mean, std = {**resize, "colours": False}, 0.5, 0.5
        made = image(config, mean, std, bias)
        grid = self.grid(config)
        if grid is not None:
            made["tokenizer"]["cells"] = grid
        made["tokenizer"]["trim"] = True
        return {**made, "resize": resize} if resize else made

    def grid(self, config: Any) -> tuple[int, int] | None:
        """Rows and columns of patches of every picture; None where they differ."""
        if not self.preprocessor:
            return (config.image_size // config.patch_size,) * 2
        resize, _, _ = prepared(self.preprocessor, self.processor)
        sides = resize.get("crop") or resize.get("size")
        if sides is None:
            return None
        if min(sides) < config.patch_size:
            raise ConfigError(
                f"{FILE}: pictures of {sides[0]} by {sides[1]} pixels have no patch of {config.patch_size}"
            )
        return sides[0] // config.patch_size, sides[1] // config.patch_size

    def position(self, config: Any, class_row: bool = False, antialias: bool = False) -> dict[str, Any]:
        """A table over the grid of patches of image_size, stretched to the grid that pictures have."""
        side = config.image_size // config.patch_size
        grid = self.grid(config)
        other = {} if grid in (None, (side, side)) else {"grid": grid}
        return {"kind": "learned_grid", "table": (side, side), "class_row": class_row, "antialias": antialias, **other}

    stretches: ClassVar[bool] = True
    """Whether the reference has to be asked for a table that is stretched to other pictures."""

    def seen(self, vision: Any) -> tuple[tuple[int, int], dict[str, Any]]:
        side, own = vision.patch_size, (vision.image_size // vision.patch_size,) * 2
        grid = self.grid(vision) or own
        asked = {"interpolate_pos_encoding": True} if self.stretches and grid != own else {}
        return (grid[0] * side, grid[1] * side), asked

    def preprocessor_published(self, model: Model) -> dict[str, Any] | None:
        wanted = model.config.streams.get("image")
        if wanted is None or "mean" not in type(wanted.tokenizer).model_fields:
            return None
        own = self.model().streams["image"]
        if self.preprocessor and _told(wanted) == _told(own):
            return dict(self.preprocessor)
        return written(part.encode(wanted), self.processor)


def _told(stream: Any) -> list[Any]:
    return [part.encode(stream).get("resize"), stream.tokenizer.mean, stream.tokenizer.std]


def prepared(preprocessor: Mapping[str, Any], processor: str) -> tuple[dict[str, Any], Any, Any]:
    """(settings of `resize`, none where nothing is done; m'; s') of a preprocessor_config.json."""
    named = preprocessor.get("image_processor_type") or preprocessor.get("feature_extractor_type") or processor
    stem = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", str(named))
    if stem not in PROCESSORS:
        raise ConfigError(f"{FILE}: there is no processor {str(named)[:40]!r} here{did_you_mean(stem, PROCESSORS)}")
    if preprocessor.get("do_pad") and stem not in PADDED:
        raise ConfigError(f"{FILE}: do_pad: pictures of unequal size are not padded here")
    given = {name: preprocessor[name] for name in Preprocessor.model_fields if preprocessor.get(name) is not None}
    told = part.decode(Preprocessor, {**PROCESSORS[stem], **given}, FILE)
    resize: dict[str, Any] = {}
    if told.do_resize:
        resize = {**_sides(told.size, told.default_to_square), "filter": FILTERS[told.resample]}
        if told.size_divisor and "shorter" in resize:
            resize |= {"longest": int(1333 / 800 * resize["shorter"]), "multiple": told.size_divisor}
    if told.do_center_crop:
        resize["crop"] = _sides(told.crop_size, True).get("size")
        if resize["crop"] is None:
            raise ConfigError(f"{FILE}: crop_size {told.crop_size} is no height and width")
    if told.do_convert_rgb:
        resize["colours"] = True
    scale = 255 * told.rescale_factor if told.do_rescale else 255.0
    mean, std = (told.image_mean, told.image_std) if told.do_normalize else (0.0, 1.0)
    return resize, _over(mean, scale), _over(std, scale)


def _over(numbers: Any, scale: float) -> Any:
    return tuple(number / scale for number in numbers) if isinstance(numbers, tuple) else numbers / scale


def _sides(size: Any, square: bool) -> dict[str, Any]:
    """`shorter` or `size` of a published size."""
    if isinstance(size, int):
        return {"size": (size, size)} if square else {"shorter": size}
    if isinstance(size, tuple):
        return {"size": size}
    told = {name: value for name, value in size.items() if value is not None}
    if told.keys() == {"height", "width"}:
        return {"size": (told["height"], told["width"])}
    if told.keys() == {"shortest_edge"}:
        return {"shorter": told["shortest_edge"]}
    raise ConfigError(f"{FILE}: a size is a height and a width, or shortest_edge, not {str(size)[:60]}")


def written(stream: Mapping[str, Any], processor: str) -> dict[str, Any]:
    """The preprocessor_config.json of a stream of pictures (plain data), for a processor of that name."""
    resize, tokenizer = stream.get("resize") or {}, stream["tokenizer"]
    size, crop, shorter = resize.get("size"), resize.get("crop"), resize.get("shorter")
    channels = tokenizer["channels"] or 1
    each = [
        list(value) if isinstance(value, list | tuple) else [value] * channels
        for value in (tokenizer["mean"], tokenizer["std"])
    ]
    record: dict[str, Any] = {
        "image_processor_type": f"{processor}ImageProcessor",
        "do_resize": bool(size or shorter),
        "do_center_crop": bool(crop),
        "do_convert_rgb": bool(resize.get("colours")),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": each[0],
        "image_std": each[1],
    }
    if shorter:
        record["size"] = {"shortest_edge": shorter}
    if resize.get("multiple", 1) > 1:
        record["size_divisor"] = resize["multiple"]
    if size:
        record["size"] = {"height": size[0], "width": size[1]}
    if size or shorter:
        record["resample"] = FILTERS.index(resize["filter"])
    if crop:
        record["crop_size"] = {"height": crop[0], "width": crop[1]}
    return record


def cells(config: Any) -> int:
    """Patches along one side of a picture."""
    if config.image_size % config.patch_size:
        raise ConfigError(f"image_size {config.image_size} is not a multiple of patch_size {config.patch_size}")
    return config.image_size // config.patch_size


def image(config: Any, mean: Any = 0.5, std: Any = 0.5, bias: bool = True) -> dict[str, Any]:
    """A stream of pictures of patch_size and num_channels."""
    tokenizer = {"kind": "patch", "patch": config.patch_size, "channels": config.num_channels, "mean": mean, "std": std}
    return {"kind": "image", "tokenizer": tokenizer, "projection": {"kind": "patch_embed", "bias": bias}}


def classifier(names: Mapping[int, str], pool: str) -> dict[str, Any]:
    """The stream of the classes, by the names of their ids, and the head of trunk `enc` that tells them apart."""
    labels = [names[id] for id in sorted(names)]
    tokenizer = {"kind": "category", **({"labels": labels} if len(set(labels)) == len(labels) else {})}
    linear = {"kind": "linear", "bias": True}
    head = {"trunk": "enc", "stream": "label", "outputs": len(labels), "pool": pool, "projection": linear}
    return {"streams": {"label": {"kind": "label", "tokenizer": tokenizer}}, "heads": {"label": head}}


def encoder(trunk: str, depth: int, theirs: str, layers: Mapping[str, Any], qkv_bias: bool = True) -> list[Rule]:
    """Rules of a trunk's blocks, whose queries, keys and values may have no bias."""
    rules = blocks(trunk, depth, theirs, layers)
    return [rule for rule in rules if qkv_bias or not rule.names[0][0].endswith(".mixer.qkv.bias")]


def table(trunk: str, theirs: str, class_row: bool = True, axes: int = 1) -> Rule:
    """The table of places, published as [(1 …) n width] with `axes` leading axes; the class token's row is its first."""
    place = f"trunks.{trunk}.position"

    def take(given: list[Tensor]) -> list[Tensor]:
        rows = given[0].flatten(0, -2)
        return [rows[0], rows[1:]] if class_row else [rows]

    def give(ours: list[Tensor]) -> list[Tensor]:
        rows = torch.cat([ours[0][None], ours[1]]) if class_row else ours[0]
        return [rows.reshape((1,) * axes + rows.shape)]

    return Rule((f"{place}.first", f"{place}.table") if class_row else f"{place}.table", theirs, Op(take, give))
