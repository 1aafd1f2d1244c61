"""The lab as one HTML page: items piece by piece in colour, and the five properties side by side.

It needs no other file and runs nothing; colours follow the reader's light or dark setting, and print light.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sevenfold.blocks.tokenization._text import printable
from sevenfold.core.types import Tokens
from sevenfold.explain.lab_rows import Row, best, missed, pairs, rows, told
from sevenfold.modality import Modality

if TYPE_CHECKING:
    from sevenfold.explain.lab import Lab

PIECES = 400
"""The most pieces of one item that are shown."""

COLUMNS = 600
"""The most vectors of one item that are drawn."""

FINEST = 40
"""The most cells along a side of which the lines are drawn."""

STYLE = """
:root{color-scheme:light dark;--ink:#1c1e21;--quiet:#6a7078;--line:#d9dce1;--paper:#fff;--soft:#f4f5f7;--bar:#cfe0f5;
--sat:72%;--light:87%}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--quiet:#9aa1aa;--line:#3a3f46;--paper:#17191c;
--soft:#202327;--bar:#24405f;--sat:38%;--light:27%}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:68rem;margin:2.2rem auto;padding:0 1.2rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.55rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}h3{font-size:.95rem;margin:0}
p{margin:.15rem 0}.quiet,figcaption{color:var(--quiet);font-size:.87rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.3rem .6rem;text-align:right;vertical-align:baseline;border-top:1px solid var(--line)}
thead th{border-top:0;font-weight:650}tbody th{font-weight:400;text-align:left}
tbody th.p{font-weight:650;white-space:nowrap;padding-left:0}tr.same th,tr.same td{border-top:0}
tr.same th.p{border-top:0}
td{font-variant-numeric:tabular-nums;white-space:nowrap;background:linear-gradient(var(--bar),var(--bar)) no-repeat left
.28rem bottom .2rem/calc((100% - .56rem)*var(--w,0)) 3px}td.b{font-weight:700}
.scroll{overflow-x:auto}
.item{margin:1.3rem 0 1.8rem}.one{display:grid;grid-template-columns:11rem 1fr;gap:.2rem 1.2rem;padding:.7rem 0;
border-top:1px solid var(--line)}
.one .says{font-size:.82rem;color:var(--quiet)}
.line{line-height:1.1;display:flex;flex-wrap:wrap;row-gap:5px;column-gap:2px;font-family:ui-monospace,monospace;
font-size:.86rem}
.t{display:inline-flex;flex-direction:column;align-items:center;background:hsl(var(--h) var(--sat) var(--light));
border-radius:3px;padding:2px 2px 1px;white-space:pre-wrap;
overflow-wrap:anywhere;max-width:100%;min-width:1.1em}
.t i{font:normal .58rem/1.1 system-ui,sans-serif;color:var(--quiet);margin-top:1px}
.t.u{outline:1.5px solid #d33}.gap{white-space:pre;opacity:.5}
.pictures{display:flex;flex-wrap:wrap;gap:1.2rem;align-items:flex-end}figure{margin:0}
.over{position:relative;display:inline-block;line-height:0}.over svg{position:absolute;inset:0;width:100%;height:100%}
.pictures img{height:9rem;width:auto;max-width:none}
.pictures img.vectors{width:min(20rem,100%);height:6rem}
.grid{display:block;height:9rem;width:auto}thead small{display:block;font-weight:400;color:var(--quiet)}.c{fill:hsl(var(--h) var(--sat) var(--light))}img{image-rendering:pixelated}
.legend dt{font-weight:650;float:left;clear:left;width:6rem}.legend dd{margin-left:6.5rem;color:var(--quiet)}
@media(max-width:40rem){.one{grid-template-columns:1fr}}
@media print{body{margin:0;max-width:none}.item{break-inside:avoid}*{print-color-adjust:exact}}
"""

LEGEND = (
    ("lossless", "decode(encode(x)) = x (numbers: to 1e-6), on training and held-out items; the error is that of the modality."),
    ("stable", "the share of tokens (and their number) without a partner after one edit, aligned by the longest common "
     "subsequence; order aside: as multisets."),
    ("efficient", "tokens a byte of the raw data; bits if each id takes log2(ids), or the entropy of the ids, against "
     "gzip -9 on the same bytes (of a lossy one, what is lost is not counted)."),
    ("universal", "items that encode at all, and tokens that are not the unknown one."),
    ("learnable", "whether tokens meet where semantic units meet: precision, recall and their harmonic mean."),
)  # fmt: skip


def page(lab: Lab) -> str:
    """The whole page."""
    names = pairs([one.name for one in lab.measures])
    title = f"{names} on {Path(lab.path).name or 'data'}"
    items = "".join(_item(lab, number, raw) for number, raw in enumerate(lab.shown, 1))
    gaps = "".join(f"<p><b>{escape(one.name)}</b> {escape(line)}</p>" for one in lab.measures for line in missed(one))
    legend = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in LEGEND)
    body = (
        f"<h1>{escape(title)}</h1>"
        + "".join(f"<p class=quiet>{escape(line)}</p>" for line in told(lab))
        + f"<h2>The five properties</h2><div class=scroll>{_table(lab)}</div>"
        + (f"<h2>Not known, refused</h2>{gaps}" if gaps else "")
        + (f"<h2>Piece by piece</h2>{items}" if items else "")
        + f"<h2>How it is measured</h2><dl class=legend>{legend}</dl>"
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style><body>{body}</body></html>\n"
    )


def _table(lab: Lab) -> str:
    head = "".join(f"<th>{_named(one.name)}</th>" for one in lab.measures)
    lines, group = [], None
    for row in rows(lab):
        same = " class=same" if row.group == group else ""
        name = "" if row.group == group else row.group
        lines.append(f"<tr{same}><th class=p>{name}</th><th>{escape(row.label)}</th>{_cells(row)}</tr>")
        group = row.group
    return f"<table><thead><tr><th></th><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _named(name: str) -> str:
    """A tokenizer's name, its settings below."""
    kind, colon, settings = name.partition(":")
    return escape(kind) + (f"<small>{escape(settings.replace(';', '; '))}</small>" if colon else "")


def _cells(row: Row) -> str:
    good, cells = best(row), []
    for place, (cell, value) in enumerate(zip(row.cells, row.values)):
        wide = f' style="--w:{min(max(value, 0), 1):.3f}"' if row.share and value is not None else ""
        cells.append(f"<td{' class=b' if place in good else ''}{wide}>{escape(cell)}</td>")
    return "".join(cells)


# One item, as each tokenizer cuts it
def _item(lab: Lab, number: int, raw: Any) -> str:
    whole = "" if isinstance(raw, str) else _beside("the item", "", lab.made[0].html(raw))
    return f"<div class=item><h3>Item {number}</h3>{whole}" + "".join(
        _one(one.name, modality, raw) for one, modality in zip(lab.measures, lab.made)
    ) + "</div>"  # fmt: skip


def _one(name: str, modality: Modality, raw: Any) -> str:
    tokenizer = modality.tokenizer
    try:
        tokens = tokenizer.encode(raw)
    except ValueError as error:
        return _beside(name, "refused", f"<p class=quiet>{escape(str(error))}</p>")
    says = f"{len(tokens.values):,} token{'' if len(tokens.values) == 1 else 's'}"
    spans = tokenizer.spans(raw)
    if isinstance(raw, str) and spans is not None and (spans[1:, 0] >= spans[:-1, 1]).all():
        return _beside(name, says, f"<div class=line>{_spanned(modality, raw, tokens.values, spans)}</div>")
    cut = _gridded(modality, raw, tokens)
    shown = [_figure(cut, "where it is cut")] if cut else []
    if tokens.coords.shape[1] == 1 and tokens.values.ndim == 2:
        shown.append(_figure(_vectors(tokens.values), "its vectors, a column each"))
    if tokens.coords.shape[1] == 2 and tokens.values.ndim == 1:
        shown.append(_figure(_grid(tokens), "its ids in colour"))
    back = tokenizer.decode(tokens.values, tokens.coords)
    shown.append(_figure(modality.html(back), f"back from tokens, error {modality.error(raw, back):.3g}"))
    listed = _listed(modality, tokens.values) if tokens.values.ndim == 1 else ""
    return _beside(name, says, f"<div class=pictures>{''.join(shown)}</div>{listed}")


def _beside(name: str, says: str, content: str) -> str:
    return f"<div class=one><div><b>{escape(name)}</b><div class=says>{says}</div></div><div>{content}</div></div>"


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def hue(id: int) -> int:
    """A colour of its own for each id, far from those of its neighbours (the golden angle)."""
    return round(id * 137.508) % 360


def _piece(modality: Modality, id: int, text: str) -> str:
    unknown = " u" if id == modality.tokenizer.specials.get("unk") else ""
    return f'<span class="t{unknown}" style="--h:{hue(id)}">{escape(text)}<i>{id}</i></span>'


def _spanned(modality: Modality, raw: str, ids: np.ndarray, spans: np.ndarray) -> str:
    """The raw text, coloured; what no token stands for is pale."""
    pieces, place = [], 0
    for id, (begin, end) in list(zip(ids.tolist(), spans.tolist()))[:PIECES]:
        if begin > place:
            pieces.append(f"<span class=gap>{escape(_visible(raw[place:begin]))}</span>")
        pieces.append(_piece(modality, id, _visible(raw[begin:end])))
        place = max(place, end)
    return "".join(pieces) + _more(len(ids))


def _visible(text: str) -> str:
    return printable(text).replace(" ", "␣") if not text.strip() else printable(text)


def _listed(modality: Modality, ids: np.ndarray) -> str:
    pieces = [_piece(modality, id, modality.tokenizer.piece(id)) for id in ids[:PIECES].tolist()]
    return f"<details><summary class=quiet>the pieces</summary><div class=line>{''.join(pieces)}</div>{_more(len(ids))}</details>"


def _more(count: int) -> str:
    return f"<span class=quiet> … {count - PIECES:,} more</span>" if count > PIECES else ""


def _cells_of(tokens: Tokens) -> tuple[int, int] | None:
    """(rows, columns) where tokens stand on a grid."""
    coords = tokens.coords
    if coords.shape[1] != 2 or not len(coords) or coords.dtype.kind != "i":
        return None
    rows, columns = (int(most) + 1 for most in coords.max(0))
    return (rows, columns) if rows * columns <= 65_536 else None


def _gridded(modality: Modality, raw: Any, tokens: Tokens) -> str:
    """The item with the lines of its grid over it, if it has one that can be seen; otherwise nothing."""
    cells, shown = _cells_of(tokens), modality.html(raw)
    if cells is None or max(cells) > FINEST:
        return ""
    rows, columns = cells
    lines = "".join(f"M0 {row}H{columns}" for row in range(1, rows)) + "".join(
        f"M{column} 0V{rows}" for column in range(1, columns)
    )
    return (
        f'<span class=over>{shown}<svg viewBox="0 0 {columns} {rows}" preserveAspectRatio="none"><path d="{lines}" '
        'fill="none" stroke="#e33" stroke-width=".7" stroke-opacity=".6" vector-effect="non-scaling-stroke"/></svg></span>'
    )


def _vectors(values: np.ndarray) -> str:
    """[n p] as a picture of n columns and p rows, the first number at the bottom: of the first COLUMNS."""
    from PIL import Image

    known = values[:COLUMNS].T[::-1].astype(np.float64)
    low, high = np.nanquantile(known, [0.01, 0.99]) if np.isfinite(known).any() else (0.0, 1.0)
    level = np.nan_to_num(np.clip((known - low) / ((high - low) or 1.0), 0, 1))
    file = io.BytesIO()
    Image.fromarray((level * 255).astype(np.uint8)).save(file, "PNG")
    return f'<img class=vectors alt="vectors" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _grid(tokens: Tokens) -> str:
    """A cell for each token, in the colour of its id."""
    cells = _cells_of(tokens)
    if cells is None:
        return ""
    rows, columns = cells
    drawn = "".join(
        f'<rect class=c style="--h:{hue(id)}" x="{column}" y="{row}" width="1" height="1"><title>{id}</title></rect>'
        for id, (row, column) in zip(tokens.values.tolist(), tokens.coords.tolist())
    )
    return f'<svg class=grid viewBox="0 0 {columns} {rows}" shape-rendering="crispEdges">{drawn}</svg>'
