"""The main job on real data that come with a package: one transformer that draws, and names, handwritten digits.

    sevenfold demo

It trains recipes/digits_any_to_any.yaml for at most four minutes and measures, on digits that it never saw: how often
its caption names the right digit, and how often a classifier trained on real digits only reads the digit that it was
asked to draw. The pictures are in the run folder's demo.html, the curves in its report.html.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from sevenfold.training.prepare import Ready
    from sevenfold.training.run import Run

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
GUIDANCE, TEMPERATURE = 4.0, 0.8
PER_DIGIT = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=4.0, metavar="M", help="the most time to train (default: 4)")
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/demo, or the next free name)")
    parser.add_argument("--recipe", default="digits_any_to_any", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from sevenfold.training.prepare import prepare
    from sevenfold.training.pretrain import within
    from sevenfold.training.recipe import read_recipe
    from sevenfold.training.run import train

    print("1,797 handwritten digits (scikit-learn's), each with a caption in one of ten wordings.")
    recipe = within(read_recipe(args.recipe), args.minutes)
    print(
        f"One transformer learns caption -> picture, picture -> caption and either alone: {recipe.train.steps} steps.\n"
    )
    done = train(recipe, args.out, name="demo")
    ready = prepare(done.recipe, tokenizers=done.folder)
    table, page = measure(done, ready)
    print("\nOn held-out digits:\n" + table)
    print(f"\nLook at {done.folder}/demo.html (drawings) and {done.folder}/report.html (curves).")
    from sevenfold.core.files import write_atomic

    write_atomic(done.folder / "demo.html", page)
    return 0


def named(caption: str) -> int | None:
    """The digit that a caption names, in letters or as a figure; None if it names none or several."""
    words = caption.lower().replace(".", " ").split()
    found = {NAMES.index(word) for word in words if word in NAMES} | {
        int(word) for word in words if word in set("0123456789")
    }
    return found.pop() if len(found) == 1 else None


def measure(done: Run, ready: Ready) -> tuple[str, str]:
    """(the table of figures, the page of drawings)."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from sevenfold.evaluation.agreement import judge

    train, held_out = (_arrays(ready, items.indices) for items in (ready.train_items, ready.held_out_items))
    samples = [ready.source[index] for index in ready.held_out_items.indices]
    model, true = done.model, held_out[1]
    captions = model.generate(
        stream="caption", given={"image": [s["image"] for s in samples]}, temperature=0, length=32
    )
    right = np.array([named(caption) == digit for caption, digit in zip(captions, true)])
    plain = LogisticRegression(max_iter=2000).fit(*train)
    reader = judge(*train)

    asked = [sample["caption"] for sample in samples]
    drawn = model.generate(stream="image", given={"caption": asked}, guidance=GUIDANCE, temperature=TEMPERATURE, seed=1)
    read = reader.predict(_pixels(drawn))
    unguided = model.generate(stream="image", given={"caption": asked}, temperature=TEMPERATURE, seed=1)
    majority = np.bincount(train[1]).argmax()
    rows = [
        ("its caption names the right digit", right.mean(), len(true)),
        ("  majority class", (true == majority).mean(), len(true)),
        ("  logistic regression on the pixels", plain.score(*held_out), len(true)),
        ("its drawing is read as asked", (read == true).mean(), len(true)),
        ("  the same without guidance", (reader.predict(_pixels(unguided)) == true).mean(), len(true)),
        ("  the reader itself, on real held-out digits", reader.score(*held_out), len(true)),
    ]
    table = "\n".join(f"  {name:<46} {share:6.1%}  ± {_error(share, n):.1%}" for name, share, n in rows)
    spread = [("drawn", _spread(_pixels(drawn), true)), ("real", _spread(*held_out))]
    table += "\n  variety (mean distance within a digit): " + ", ".join(f"{name} {value:.2f}" for name, value in spread)
    return table, _page(model, table, samples, captions)


def _error(share: float, n: int) -> float:
    """One standard error of a share."""
    return float((share * (1 - share) / n) ** 0.5)


def _pixels(images: list[Any]) -> np.ndarray:
    import numpy as np

    return np.stack([np.asarray(image, np.float32).reshape(-1).clip(0, 1) for image in images])


def _arrays(ready: Ready, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Real digits as (pixels in 0…1 [n 64], labels [n])."""
    import numpy as np

    samples = [ready.source[index] for index in indices]
    return _pixels([sample["image"] / np.float32(255) for sample in samples]), np.array(
        [int(s["label"]) for s in samples]
    )


def _spread(pixels: np.ndarray, labels: np.ndarray) -> float:
    """The mean distance between pictures of one digit."""
    import numpy as np

    groups = [pixels[labels == digit] for digit in range(10)]
    return float(np.mean([np.linalg.norm(g[:, None] - g[None], axis=-1).mean() for g in groups if len(g)]))


def _page(model: Any, table: str, samples: list[dict[str, Any]], captions: list[str]) -> str:
    """Drawings per caption, captions per picture, and digits drawn from nothing."""
    from html import escape

    from sevenfold.training.report import STYLE

    show = model.modalities["image"].html
    wordings = ["a handwritten {name}", "the number {digit} in ink"]
    asked = [wording.format(name=name, digit=digit) for digit, name in enumerate(NAMES) for wording in wordings]
    drawn = model.generate(
        stream="image", given={"caption": asked}, count=PER_DIGIT, guidance=GUIDANCE, temperature=TEMPERATURE, seed=2
    )
    rows = "".join(
        f"<tr><td>{escape(caption)}</td><td>{' '.join(show(i) for i in drawn[k * PER_DIGIT : (k + 1) * PER_DIGIT])}</td></tr>"
        for k, caption in enumerate(asked)
    )
    said = "".join(
        f"<tr><td>{show(sample['image'])}</td><td>{escape(caption)}</td></tr>"
        for sample, caption in zip(samples[:20], captions)
    )
    alone = " ".join(show(image) for image in model.generate(stream="image", count=24, temperature=TEMPERATURE, seed=3))
    small = "<style>img{width:48px;height:48px}</style>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>sevenfold demo</title><style>{STYLE}</style>{small}<body>"
        f"<h1>One transformer, pictures and words</h1><pre>{escape(table)}</pre><h2>Drawn as asked</h2><table>{rows}</table>"
        f"<h2>What it says of held-out pictures</h2><table>{said}</table><h2>Drawn from nothing</h2><p>{alone}</p></body></html>\n"
    )
