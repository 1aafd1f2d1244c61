"""report.html: one self-contained file with curves, things to look at, the data, what was held out, baselines."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from sevenfold.assembly.model import Model
from sevenfold.core import notation, part
from sevenfold.core.rooms import header
from sevenfold.data.remote import hidden, shown
from sevenfold.objective import Exhibit
from sevenfold.training.prepare import Ready

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1e21;background:#fff}
h1{font-size:1.6rem;margin-bottom:0}h2{margin-top:2.2rem;border-bottom:1px solid #d8dbe0;padding-bottom:.2rem}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top}tr:has(img) td{vertical-align:middle}
th{font-weight:600;color:#555}td.n{font-variant-numeric:tabular-nums}pre{background:#f5f6f8;padding:1rem;overflow-x:auto;
font-size:.85rem}code{white-space:pre-wrap;overflow-wrap:anywhere}.quiet{color:#666}svg{max-width:100%;height:auto}
.gallery{display:flex;flex-wrap:wrap;gap:1.2rem}img{image-rendering:pixelated}
"""


def report(ready: Ready, log: list[dict[str, Any]], results: dict[str, Any], exhibits: str, pictures: list[str]) -> str:
    """The whole page."""
    recipe = ready.recipe
    way = "".join(pictures[-3:])
    pieces = [
        f"<h1>{escape(str(recipe.objective.kind))} on {escape(', '.join(f'{n} ({s.kind})' for n, s in recipe.streams.items()))}</h1>",
        f"<p>{escape(header('objective', recipe.objective.kind).partition(chr(10))[0])}</p>",
        f"<p class=quiet>{results['parameters']:,} parameters · {recipe.train.steps} steps of {recipe.train.batch} · "
        f"{results['seconds']:.0f} s in this process · seed {recipe.seed}</p>",
        warned(log),
        "<h2>Figures on held-out data</h2>",
        figures(results),
        "<h2>Curves</h2>",
        curves(log, ready.objective.watched),
        "<h2>What it does</h2>" + exhibits if exhibits else "",
        f"<details><summary>On the way</summary>{way}</details>" if way else "",
        "<h2>Data</h2>",
        data_html(ready, results),
        f"<h2>Recipe</h2><details><summary>as it was resolved</summary><pre>{escape(notation.write(hidden(part.encode(recipe))))}</pre></details>",
    ]
    body = "\n".join(piece for piece in pieces if piece)
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>sevenfold run</title><style>{STYLE}</style><body>{body}</body></html>\n"


def warned(log: list[dict[str, Any]]) -> str:
    """What the objective warned of at the last look, and how many looks had something to warn of."""
    looks = [record for record in log if "held_out" in record]
    told = [record for record in looks if record.get("warnings")]
    last = told[-1:] if told and told[-1] is looks[-1] else []
    lines = [escape(line) for record in last for line in record["warnings"]]
    if told and not lines:
        lines = [f"{len(told)} of {len(looks)} looks on the way had a warning, the last one none."]
    return "".join(f"<p><strong>Warning:</strong> {line}</p>" for line in lines)


def figures(results: dict[str, Any]) -> str:
    """A table: the model's held-out terms beside those of the baselines."""
    names, rows = beside(results)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><td>{escape(title)}</td>"
        + "".join(f"<td class=n>{_number(found.get(name))}</td>" for name in names)
        + "</tr>"
        for title, found in rows
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def beside(results: dict[str, Any]) -> tuple[list[str], list[tuple[str, dict[str, float]]]]:
    """(terms, rows): the model first, then baselines; a loss that is one of its terms is not said twice."""
    own = results["held_out"]
    twice = any(name != "loss" and value == own.get("loss") for name, value in own.items())
    names = [name for name in own if name != "loss" or not twice]
    return names, [("this model", own), *results["baselines"].items()]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"


def curves(log: list[dict[str, Any]], watched: Sequence[str] = ()) -> str:
    """Training and held-out loss, learning rate and gradient norm against the step, and below them the terms that are
    watched, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [record for record in log if "loss" in record]
    looks = [record for record in log if "held_out" in record and "loss" in record["held_out"]]
    if not steps:
        return "<p>No steps were made.</p>"
    with pyplot.rc_context({"svg.hashsalt": "sevenfold", "font.size": 9, "svg.fonttype": "none"}):
        below = [name for name in watched if any(name in record for record in steps)]
        lines = 1 + -(-len(below) // 2)
        figure, axes = pyplot.subplots(lines, 2, figsize=(9, 3 * lines), layout="constrained", squeeze=False)
        left, right = axes[0]
        thin = max(1, len(steps) // 1000)
        seen = [{"step": record["step"], **record["held_out"]} for record in looks]
        left.plot(
            [r["step"] for r in steps[::thin]], [r["loss"] for r in steps[::thin]], lw=0.8, alpha=0.6, label="training"
        )
        left.plot([r["step"] for r in looks], [r["held_out"]["loss"] for r in looks], "o-", ms=3, label="held out")
        left.set(xlabel="step", ylabel="loss", ylim=_limits(steps, looks))
        left.legend(frameon=False)
        right.plot([r["step"] for r in steps[::thin]], [r["grad_norm"] for r in steps[::thin]], lw=0.8, alpha=0.6)
        right.set(xlabel="step", ylabel="gradient norm")
        rate = right.twinx()
        rate.plot([r["step"] for r in steps[::thin]], [r["lr"] for r in steps[::thin]], color="tab:orange", lw=1)
        rate.set_ylabel("learning rate", color="tab:orange")
        for panel in axes.flat[2 + len(below) :]:
            panel.set_axis_off()
        for panel, name in zip(axes.flat[2:], below):
            for records, style in ((steps[::thin], {"lw": 0.8, "alpha": 0.6}), (seen, {"marker": "o", "ms": 3})):
                told = [(r["step"], r[name]) for r in records if name in r]
                panel.plot(*zip(*told), **style)
            panel.set(xlabel="step", ylabel=name)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    text = written.getvalue()
    return text[text.index("<svg") :]


def _limits(steps: list[dict[str, Any]], looks: list[dict[str, Any]]) -> tuple[float, float] | None:
    """What the axis of the loss spans: all but the fall of the first twentieth, which would flatten the rest."""
    settled = [r["loss"] for r in steps[len(steps) // 20 :]] + [r["held_out"]["loss"] for r in looks]
    settled = [loss for loss in settled if math.isfinite(loss)]
    if not settled or min(settled) == max(settled):
        return None
    margin = 0.08 * (max(settled) - min(settled))
    return min(settled) - margin, max(settled) + margin


def exhibits_html(model: Model, exhibits: list[Exhibit]) -> str:
    """Exhibits as tables; a cell of a stream is shown as its modality shows it."""
    pieces = []
    for exhibit in exhibits:
        head = "".join(f"<th>{escape(column)}</th>" for column in exhibit.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(model, stream, value)}</td>" for stream, value in row) + "</tr>"
            for row in exhibit.rows
        )
        pieces.append(f"<h3>{escape(exhibit.title)}</h3><table><tr>{head}</tr>{body}</table>")
    return "".join(pieces)


def _cell(model: Model, stream: str | None, value: Any) -> str:
    if stream is None or value is None:
        return f"<code>{escape(str(value))}</code>"
    return model.modalities[stream].html(value)


def data_html(ready: Ready, results: dict[str, Any]) -> str:
    """What the data is, what was held out, and what could not be read."""
    rows = [
        ("source", f"{ready.recipe.data.kind} {shown(ready.recipe.data.path or '')}"),
        ("training samples", f"{len(ready.train_items):,}"),
        ("held-out samples", f"{len(ready.held_out_items):,} (never trained on)"),
        ("samples that could not be read", f"{results['bad_samples']:,}"),
        ("SHA-256 of the data", results["data"]),
    ]
    for name, modality in ready.model.modalities.items():
        raws = [sample[name] for sample in ready.samples(200, held_out=False) if sample.get(name) is not None]
        tokenizer = modality.tokenizer
        size = f"{tokenizer.size} ids" if tokenizer.size is not None else f"vectors of {tokenizer.features}"
        rows.append(
            (f"{name}: {modality.kind}", f"{tokenizer.kind} tokenizer, {size}; of {len(raws):,} training samples:")
        )
        rows += [(f"{name}: {fact}", str(value)) for fact, value in modality.summary(raws).items() if fact != "items"]
    return "<table>" + "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows) + "</table>"
