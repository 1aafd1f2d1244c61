"""How fast raw data become tokens, MB/s: byte pairs beside the engine that others use, and everything that is vectorised.

    python benchmarks/tokens.py [--text FILE] [--megabytes 8] [--repeat 5]

Byte pairs are trained on the first quarter of the text and encode all of it; the engines take turns, and the ratio to the
`tokenizers` library is given with its spread over the repeats. Without --text, the Python files of the standard library.
The other tokenizers encode as many bytes of random items of their own kind.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sevenfold.blocks.tokenization import bpe as bpe_file
from sevenfold.core.part import decode, find


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def made(kind: str, raws: list, **settings: object):
    tokenizer = decode(find("tokenization", kind).Config, settings).build()
    if not tokenizer.ready:
        tokenizer.fit(raws)
    return tokenizer


def source_text(size: int) -> str:
    """Python source, as many characters as asked for."""
    found, total = [], 0
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        found.append(file.read_text(encoding="utf-8", errors="ignore"))
        total += len(found[-1])
        if total >= size:
            break
    return "".join(found)[:size]


def text_engines(text: str, repeat: int) -> None:
    tokenizer = made("bpe", [text[: len(text) // 4]], size=8192)
    inner = tokenizer.inner
    reference = np.array(inner.encode(text, add_special_tokens=False).ids)
    documents = text.split("\n\n")
    ways: dict[str, Callable[[], np.ndarray]] = {
        "tokenizers, one call": lambda: np.array(inner.encode(text, add_special_tokens=False).ids),
        "tokenizers, a call a document": lambda: np.concatenate(
            [np.array(inner.encode(one, add_special_tokens=False).ids) for one in documents if one]
        ),
        "sevenfold": lambda: tokenizer.encode(text).values,
    }
    slow = pickle.loads(pickle.dumps(tokenizer))
    slow._engine = False
    ways["sevenfold, without the extra `fast`"] = lambda: slow.encode(text).values
    engine = bpe_file.accelerated(inner, [text[:1000]])
    if engine is not None:
        ways["its engine alone"] = lambda: engine(text)
    for name, way in ways.items():
        if "document" not in name and not np.array_equal(way(), reference):
            raise SystemExit(f"{name}: gives other ids")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    size = len(text.encode()) / 1e6
    base = seconds["tokenizers, one call"]
    print(
        f"| byte pairs, 8,192 of them, {size:.1f} MB of text | MB/s | ratio to the first (least … most) |\n|---|---|---|"
    )
    for name, spent in seconds.items():
        ratios = [first / own for first, own in zip(base, spent)]
        print(
            f"| {name} | {size / statistics.median(spent):.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} … {max(ratios):.2f}) |"
        )


def others(megabytes: float, repeat: int) -> None:
    draw = np.random.default_rng(0)
    count = int(megabytes * 1e6)
    bases = draw.choice(np.frombuffer(b"ACGT", np.uint8), count).tobytes().decode()
    residues = draw.choice(np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8), count).tobytes().decode()
    picture = draw.integers(0, 256, (int((count / 3) ** 0.5) // 16 * 16,) * 2 + (3,)).astype(np.uint8)
    words = "".join(chr(97 + letter) for letter in draw.integers(0, 26, 1000)) * (count // 1000)
    series = draw.standard_normal(count // 4).cumsum().astype(np.float32)
    cases: list[tuple[str, dict, object]] = [
        ("bytes", {}, words),
        ("characters", {}, words),
        ("kmer", {"k": 6}, bases),
        ("kmer", {"k": 6, "overlap": True}, bases),
        ("kmer", {"k": 1}, bases),
        ("residue", {}, residues),
        ("patch", {"patch": 16}, picture),
        ("binary_patch", {"patch": 2}, picture[:, :, :1] // 255 * 255),
        ("series_bin", {}, series),
        ("series_patch", {}, series),
        ("mu_law", {}, (series / abs(series).max()).astype(np.float32)),
    ]
    print("\n| tokenizer | settings | MB/s |\n|---|---|---|")
    for kind, settings, raw in cases:
        try:
            tokenizer = made(kind, [raw], **settings)
        except Exception as error:
            print(f"| {kind} | {settings} | {error} |")
            continue
        size = (raw.nbytes if isinstance(raw, np.ndarray) else len(raw)) / 1e6
        spent = [timed(lambda: tokenizer.encode(raw)) for _ in range(repeat)]  # noqa: B023
        print(f"| {kind} | {settings or ''} | {size / statistics.median(spent):,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--megabytes", type=float, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    count = int(args.megabytes * 1e6)
    text = args.text.read_text(encoding="utf-8")[:count] if args.text else source_text(count)
    text_engines(text, args.repeat)
    others(args.megabytes, args.repeat)


if __name__ == "__main__":
    main()
