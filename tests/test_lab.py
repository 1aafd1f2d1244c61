"""The tokenizer lab: each figure against a count by hand, every modality by its contract, the verb and the page."""

import difflib
import gzip
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import sevenfold as sf
from sevenfold.cli import main
from sevenfold.core.align import changed, common
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import decode, find
from sevenfold.core.rooms import kinds
from sevenfold.core.seeds import numpy_generator
from sevenfold.explain.lab_rows import best, markdown, rows
from sevenfold.explain.measure import Data, boundaries, difference, measure

WORDS = ["stone", "leaf", "shell", "café", "boat", "owl", "whale", "river"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of lines over eight words; the last word of the held-out end is in no training line."""
    draw = np.random.default_rng(0)
    lines = [" ".join(draw.choice(WORDS, 8)) + ".\n" for _ in range(400)]
    path = tmp_path_factory.mktemp("lab") / "song.txt"
    path.write_text("".join(lines) + "stone 猫 leaf.\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def lab(text):
    return sf.tokens(text, ["bytes", "bpe:300", "wordpiece:64"])


def made(kind, spec, raws):
    modality = decode(find("modality", kind).Config, {"tokenizer": spec}).build()
    modality.fit(raws)
    return modality


def table(a, b):
    """The textbook table of longest common subsequences."""
    best = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best[i + 1, j + 1] = best[i, j] + 1 if x == y else max(best[i, j + 1], best[i + 1, j])
    return int(best[-1, -1])


def test_the_longest_common_subsequence_is_that_of_the_table():
    draw = np.random.default_rng(1)
    for size in range(2, 9):
        a, b = (draw.integers(0, size, draw.integers(0, 90)).tolist() for _ in range(2))
        assert common(a, b) == common(b, a) == table(a, b)
        blocks = difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
        assert common(a, b) >= sum(block.size for block in blocks)
    assert common("", "abc") == 0 and changed("", "") == 0 and changed("ab", "ab") == 0 and changed("ab", "cd") == 1


def test_one_byte_of_240_changes_one_token_of_240():
    raw = "a stone " * 30
    modality = made("text", "bytes", [raw])
    found = measure("bytes", modality, Data([raw], [raw], [raw]), 0.0, 0).stable
    assert found["one character replaced"] == pytest.approx((1 / 240, 1 / 240, 1))
    assert found["one character inserted"] == pytest.approx((1 / 241, 1 / 241, 1))


def test_order_aside_counts_as_multisets_and_vectors_are_the_same_when_near():
    a = np.array([1, 2, 3, 3, 4])
    assert difference(a, a[::-1]) == pytest.approx((1 - 2 / 5, 0, 3))
    vectors = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    assert difference(vectors, vectors * 1.0005) == (0, 0, 0)
    moved = vectors.copy()
    moved[2] *= 1.002
    assert difference(vectors, moved) == pytest.approx((1 / 6, 1 / 6, 1))
    assert difference(vectors, vectors[::-1])[1] == 0


def test_coordinates_that_tell_are_part_of_a_token():
    raws = list(find("modality", "cells").example(0))
    rank, binned, valued = (
        measure(kind, made("cells", kind, raws), Data(raws, raws, raws), 0, 0)
        for kind in ("gene_rank", "gene_bin", "gene_value")
    )
    genes = len({gene for raw in raws for gene in raw.named})
    assert binned.bits_per_byte == pytest.approx(binned.tokens_per_byte * math.log2(53 * genes))
    assert valued.bits_per_byte is None and valued.numbers_per_byte == valued.tokens_per_byte
    assert (rank.lossless, valued.lossless) == (0, 1) and 0 < valued.error < 1e-6
    for one in (binned, valued):
        assert one.stable["one more count of one gene"].tokens >= 0.5 and one.stable["twice as deep"].tokens == 0


def test_a_word_of_six_bases_shifts_after_an_insertion_and_one_of_one_base_does_not():
    raws = ["".join(np.random.default_rng(seed).choice(list("ACGT"), 240)) for seed in range(16)]
    stable = {
        k: measure("", made("dna", {"kind": "kmer", "k": k}, raws), Data(raws, raws, raws), 0, 0).stable for k in (1, 6)
    }
    assert stable[1]["one base inserted"].share == pytest.approx(1 / 241)
    assert stable[6]["one base replaced"].share == pytest.approx(1 / 40)
    assert stable[6]["one base inserted"].share > 0.25  # half of the words, on average, are behind the place
    strand = "reverse complement (order reversed)"
    assert stable[1][strand].order_aside < 0.2 < stable[1][strand].share
    assert find("modality", "dna").Config().build().edits("AACGN", numpy_generator(0))[strand] == "NCGTT"


def test_efficiency_is_counted_as_by_hand(lab, text):
    source = sf.recognise(text).build()
    raw = "".join(source[index]["text"] for index in source.split()[1]).encode()
    by = lab.measures[0]
    assert by.tokens_per_byte == 1 and by.bits_per_byte == pytest.approx(math.log2(260))
    counts = np.unique(np.frombuffer(raw, np.uint8), return_counts=True)[1] / len(raw)
    assert by.entropy_bits_per_byte == pytest.approx(-(counts * np.log2(counts)).sum())
    assert by.ids_used == pytest.approx(len(counts) / 260)
    assert lab.facts["gzip_bits_per_byte"] == pytest.approx(8 * len(gzip.compress(raw, 9, mtime=0)) / len(raw))
    assert lab.measures[1].tokens_per_byte < 0.5


def test_round_trip_and_error_of_lossless_and_lossy_ones(lab):
    assert [one.lossless for one in lab.measures] == [1, 1, 0]
    assert [one.error for one in lab.measures[:2]] == [0, 0]
    assert 0.01 < lab.measures[2].error < 0.3  # accents, and the space before each full stop


def test_unknown_symbols_are_listed_with_their_numbers(lab):
    assert lab.measures[0].known == lab.measures[1].known == 1
    lossy = lab.measures[2]
    assert lossy.unknown == [("猫", 1)] and lossy.known < 1


def test_boundaries_agree_with_words_where_they_stand():
    raws = ["one stone, two leaves"]
    assert boundaries(made("text", "bytes", raws), raws)[1] == 1
    precision, recall, f1 = boundaries(made("text", "bytes", raws), raws)
    # words meet at 4 places: one|stone|,|two|leaves; letters at 17 (18 of them are no space)
    assert (precision, recall) == pytest.approx((4 / 17, 1)) and f1 == pytest.approx(2 * 4 / (17 + 4))
    dna = ["ACGTACGTACGT" * 3]
    assert boundaries(made("dna", {"kind": "kmer", "k": 3}, dna), dna) == (1, 1, 1)
    assert boundaries(made("dna", {"kind": "kmer", "k": 6}, dna), dna)[:2] == pytest.approx((1, 5 / 11))
    assert boundaries(made("protein", "residue", ["MK"]), ["MK"]) == (None, None, None)


def test_spans_are_the_text_that_each_token_stands_for():
    raw = "The café 猫 finds"
    modality = made("text", {"kind": "bpe", "size": 300}, [raw] * 3)
    ids, spans = modality.tokenizer.encode(raw).values, modality.tokenizer.spans(raw)
    assert {raw[begin:end] for begin, end in spans} >= {"The", " café"} and spans[-1, 1] == len(raw)
    assert len(spans) == len(ids)
    assert made("text", "bytes", [raw]).tokenizer.spans("é猫").tolist() == [[0, 1], [0, 1], [1, 2], [1, 2], [1, 2]]
    kmer = made("dna", {"kind": "kmer", "k": 3}, [raw]).tokenizer
    assert kmer.spans("ACGNACGTA").tolist() == [[0, 3], [3, 4], [4, 5], [5, 6], [6, 9]]
    slid = made("dna", {"kind": "kmer", "k": 3, "overlap": True}, [raw]).tokenizer
    assert slid.spans("ACGTA").tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("kind", kinds("modality"))
def test_every_modality_is_measured_by_its_contract_alone(kind):
    part = find("modality", kind)
    raws = list(part.example(0))
    modality = part.Config().build()
    modality.fit(raws)
    raws = [modality.check(raw) for raw in raws][:4]
    found = measure(kind, modality, Data(raws, raws, raws), 0.0, 0)
    assert not modality.tokenizer.lossless or found.lossless == 1
    assert found.encoded == 1 and found.error >= 0 and math.isfinite(found.error)
    assert all(0 <= aside <= share + 1e-12 <= 1 + 1e-9 for share, aside, _ in found.stable.values())
    assert (found.bits_per_byte is None) == (modality.tokenizer.size is None)
    assert (found.numbers_per_byte is None) == (modality.tokenizer.features is None)


def test_pictures_are_compared_whole_with_grid_and_reconstruction(tmp_path):
    draw = np.random.default_rng(3)
    for name in range(30):
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8).repeat(2, 0)).save(tmp_path / f"{name}.png")
    lab = sf.tokens(tmp_path, ["patch:4", "quantized_patch:patch=2;size=8"], show=1)
    exact, coarse = lab.measures
    assert (lab.kind, exact.lossless, coarse.lossless) == ("image", 1, 0) and coarse.error > 0.1 and exact.error == 0
    assert exact.numbers_per_byte == 1 and coarse.tokens_per_item == 32 and coarse.f1 is None
    page = lab.page()
    assert page.count("<img") == 5 and page.count("<rect") == 32 and "not known" in page


class _Outside(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [tag] if tag in ("script", "link", "iframe") else []
        self.found += [value for key, value in attrs if key in ("src", "href") and not value.startswith("data:")]
        self.found += [key for key, _ in attrs if key.startswith("on")]


def test_the_page_needs_nothing_else_and_shows_what_was_said(lab):
    page, parser = lab.page(), _Outside()
    parser.feed(page)
    assert parser.found == [] and "url(" not in page
    for row in rows(lab):
        assert row.label.split(":")[0] in page
    assert page.count('<span class="t') >= sum(len(m.tokenizer.encode(lab.shown[0]).values) for m in lab.made)
    shown = next(row for row in rows(lab) if row.label == "tokens a byte")
    assert best(shown) == {place for place, value in enumerate(shown.values) if value == min(shown.values)}
    assert markdown(lab).count("\n") == len(rows(lab)) + 2


def test_a_text_cannot_write_into_the_page(tmp_path):
    (tmp_path / "evil.txt").write_text("<script>alert(1)</script> <img src=x>\n" * 300)
    page = sf.tokens(tmp_path / "evil.txt", ["bpe:400", "bytes", "wordpiece:100"]).page()
    assert "<script" not in page and "<img" not in page


def test_the_same_seed_gives_the_same_figures(text):
    def timeless(lab):
        return [one._replace(fit_seconds=0, megabytes_per_second=0) for one in lab.measures]

    first, again, other = (sf.tokens(text, ["bpe:300"], items=40, seed=seed) for seed in (1, 1, 2))
    assert timeless(first) == timeless(again) != timeless(other)
    assert first.facts["round_trip"] == min(40, first.facts["items"])


def test_without_tokenizers_those_that_take_the_items_are_compared(tmp_path):
    draw = np.random.default_rng(4)
    records = [f">r{n}\n{''.join(draw.choice(list('ACGT'), 80))}\n" for n in range(40)]
    (tmp_path / "genes.fasta").write_text("".join(records))
    lab = sf.tokens(tmp_path / "genes.fasta")
    names = [one.name for one in lab.measures]
    assert names[0] == "kmer" and "bytes" in names and not {"words", "patch", "category"} & set(names)
    assert "patch" in lab.notes[-1]


def test_the_verb_prints_a_table_writes_a_page_and_gives_json(text, tmp_path, capsys):
    args = ["tokens", str(text), "--with", "bytes,bpe:300", "--with", "bpe:size=400;min_count=3"]
    assert main([*args, "--html", str(tmp_path / "lab.html"), "--show", "1"]) == 0
    said = capsys.readouterr().out
    assert "bpe:size=400;min_count=3" in said and re.search(r"items that come back exactly +100 % +100 % +100 %", said)
    assert (tmp_path / "lab.html").read_text().startswith("<!doctype html>")
    assert main([*args, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["settings"].get("size") for one in record["tokenizers"]] == [None, 300, 400]
    assert main([*args, "--markdown"]) == 0 and capsys.readouterr().out.startswith("| | | `bytes` |")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("bpee", "did you mean 'bpe'?"),
        ("bytes:5", "no whole number"),
        ("bpe:sise=5", "did you mean 'size'?"),
        ("bpe:12", "greater than or equal to 260"),
        ("patch", "does not take text: it gives 2 coordinate axes"),
        ("bpe:300;size=400", "size is given twice"),
        ("kmer", "refuses every item of text (text), such as: "),
    ],
)
def test_a_wrong_tokenizer_is_one_line(text, spec, says, capsys):
    assert main(["tokens", str(text), "--with", spec]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and spec.partition(":")[0] in error


def test_wrong_fields_pages_and_data_are_one_line(text, tmp_path, capsys):
    for args, says in (
        (["--field", "txt"], "did you mean 'text'?"),
        (["--field", "text:imag"], "did you mean 'image'?"),
        (["--html", str(tmp_path / "no" / "x.html")], "there is no folder"),
        (["--items", "0"], "items must be"),
    ):
        assert main(["tokens", str(text), *args]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    with pytest.raises(ConfigError, match="no whole number"):
        sf.tokens(text, ["bytes:1"])


def test_a_field_can_be_read_as_another_modality_and_what_it_refuses_is_counted(tmp_path):
    lines = [{"words": f"item {n} says {'ACGT' * 9 if n % 4 else '?'}"[-36 if n % 4 else 0 :]} for n in range(80)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    lab = sf.tokens(tmp_path / "t.jsonl", ["kmer:3"], field="words:dna")
    (why, count), *others = lab.measures[0].refused
    assert lab.kind == "dna" and lab.measures[0].lossless == 0.75
    assert others == [] and "at position …" in why and count >= 1 > lab.measures[0].encoded
    with pytest.raises(DataError, match="holds no items of words that can be read"):
        sf.tokens(tmp_path / "t.jsonl", ["number"], field="words:number")


def test_a_tokenizer_that_cannot_learn_from_the_items_is_one_line(text, monkeypatch):
    def fit(self, raws):
        raise ValueError("no two are alike\nand more")

    monkeypatch.setattr(find("tokenization", "bytes"), "ready", False)
    monkeypatch.setattr(find("tokenization", "bytes"), "fit", fit)
    with pytest.raises(DataError, match=r"^bytes: cannot learn from these items: no two are alike$"):
        sf.tokens(text, ["bytes"])
