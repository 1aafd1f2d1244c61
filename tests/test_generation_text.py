"""The text of what is drawn, piece by piece: no character is split, no part of a stop string is shown, and the pieces
together are what is drawn at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawing import speaker
from sevenfold.assembly.generation.told import Told, begun
from sevenfold.blocks.tokenization._text import sentences
from sevenfold.core.errors import ConfigError
from sevenfold.core.part import decode, find
from sevenfold.modality import Modality
from tiny import any_to_any, made

TEXTS = [*sentences(0), "naïve café — 中文字 🦊🦉 \U0001f469\u200d\U0001f52c e\u0301", "x = [1, 2];\n\tprint(x)\n"]
KINDS = [
    {"kind": "text", "tokenizer": {"kind": "bytes"}},
    {"kind": "text", "tokenizer": {"kind": "bpe", "size": 300}},
    {"kind": "text", "tokenizer": {"kind": "characters"}},
    {"kind": "text", "tokenizer": {"kind": "words", "size": 100, "min_count": 1}},
    {"kind": "text", "tokenizer": {"kind": "wordpiece", "size": 200}},
    {"kind": "dna", "tokenizer": {"kind": "kmer", "k": 3}},
    {"kind": "protein"},
    {"kind": "molecule"},
]


def ready(stream: dict) -> Modality:
    modality = decode(find("modality", stream["kind"]).Config, stream).build()
    modality.fit(TEXTS if stream["kind"] == "text" else type(modality).example())
    return modality


READY = [ready(stream) for stream in KINDS]


def told(modality: Modality, before: list[int], ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    teller, pieces = Told(modality, before, stop), []
    for id in ids:
        pieces.append(teller.push(id))
        if teller.hit:
            return pieces
    return [*pieces, teller.flush()]


@pytest.mark.parametrize("modality", READY, ids=lambda modality: f"{modality.kind}-{modality.tokenizer.kind}")
def test_pieces_are_the_whole(modality):
    """Of texts of its own, cut anywhere, and of random ids."""
    draw = np.random.default_rng(0)
    raws = TEXTS if modality.kind == "text" else type(modality).example()
    rows = [modality.tokenizer.encode(raw).values for raw in raws]
    rows += [draw.integers(modality.tokenizer.size, size=60) for _ in range(20)]
    for ids in rows:
        for cut in {0, 1, len(ids) // 2, len(ids)}:
            before = modality.raw(ids[:cut]) if cut else ""
            pieces = told(modality, ids[:cut], ids[cut:].tolist())
            if not before.endswith("\ufffd"):
                assert before + "".join(pieces) == modality.raw(ids)


@given(st.lists(st.integers(0, 259), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes(ids):
    """Broken ones too: what is held back is at most what could still become a character."""
    teller, so_far = Told(READY[0], []), ""
    for place, id in enumerate(ids, 1):
        so_far += teller.push(id)
        kept = [id for id in ids[:place] if id < 256]
        whole = bytes(kept).decode("utf-8", "replace")
        assert whole in (so_far, so_far + "\ufffd")
    assert so_far + teller.flush() == bytes(id for id in ids if id < 256).decode("utf-8", "replace")


def test_a_character_is_shown_when_it_is_whole():
    assert told(READY[0], [], list("aé🦊".encode())) == ["a", "", "é", "", "", "", "🦊", ""]
    assert told(READY[0], [], list("🦊".encode())[:3]) == ["", "", "", "\ufffd"]
    assert told(READY[0], [], [0xF0, 0x9F, 97]) == ["", "", "\ufffda", ""]


STOPS = [("\n\n",), ("END", "EN"), ("aab", "ab"), ("🦊",), ("é", "x"), ("the cat",)]
SAID = [
    "one\ntwo\n\nthree",
    "aaEaENaEND",
    "aaaabaab",
    "a fox 🦊 runs",
    "caféx",
    "the the cat the",
    "nothing of it: EN",
    "\n",
]


@pytest.mark.parametrize("modality", READY[:4], ids=lambda modality: modality.tokenizer.kind)
@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_stop_strings(stop, modality):
    """Cut before the first that is met, whatever tokens it is made of; nothing of it is shown before."""
    for said in SAID:
        ids = modality.tokenizer.encode(said).values.tolist()
        for cut in (0, len(ids) // 3):
            text = modality.raw(np.array(ids))[len(modality.raw(np.array(ids[:cut])) if cut else "") :]
            pieces = told(modality, ids[:cut], ids[cut:], stop)
            places = [text.find(one) for one in stop if one in text]
            shown = "".join(pieces)
            if len(stop) == 1 or modality.tokenizer.kind in ("bytes", "characters"):
                ends = min((place + len(one) for one in stop if (place := text.find(one)) >= 0), default=None)
                first = [text.find(one) for one in stop if one in text and text.find(one) + len(one) == ends]
                assert shown == (text if ends is None else text[: min(first)])
            assert not any(one in shown for one in stop)
            assert text.startswith(shown) and (places or shown == text)


def test_what_may_become_a_stop_string():
    assert [begun(text, "abab") for text in ("", "a", "ba", "bab", "xab", "aba", "abab", "abb")] == [
        0,
        1,
        1,
        2,
        2,
        3,
        2,
        0,
    ]


# Drawn


@pytest.mark.parametrize("mixer", ["attention", "min_gru"])
@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0},
        {"seed": 1},
        {"seed": 2, "temperature": 1.5, "top_p": 0.9},
        {"lookup": 2, "seed": 3},
        {"stop": ["e", "7"]},
    ],
    ids=str,
)
def test_streaming_is_drawing(mixer, how):
    """Text, ids, log-probabilities and why it stopped, of one row and of several."""
    model = speaker(mixer)
    for prompts in (["abc"], ["abc", "", "a longer prompt é"]):
        whole = model.draw(prompts, length=40, count=2, **how)
        pieces = list(model.stream(prompts, length=40, count=2, **how))
        for row, one in enumerate(whole):
            mine = [piece for piece in pieces if piece.row == row]
            assert prompts[row // 2] + "".join(piece.text for piece in mine) == one.raw
            assert [id for piece in mine for id in piece.ids] == one.ids
            np.testing.assert_allclose([log for piece in mine for log in piece.logprobs], one.logprobs, atol=1e-9)
            assert [piece.stopped for piece in mine][-1] == one.stopped and mine[-1].accepted == one.accepted
            assert all(piece.stopped is None for piece in mine[:-1])
        assert [one.raw for one in whole] == model.generate(prompts, length=40, count=2, **how)


def test_streaming_comes_as_it_is_drawn(monkeypatch):
    """A piece is there before the next token is computed; whoever has enough leaves the model as it was."""
    model, steps = speaker().train(), []
    step = model.trunks["lm"].step
    monkeypatch.setattr(model.trunks["lm"], "step", lambda *given: steps.append(1) or step(*given))
    pieces = model.stream("abc", length=10, seed=4)
    for count in range(1, 4):
        next(pieces)
        assert len(steps) == count and not model.training and not torch.is_inference_mode_enabled()
    pieces.close()
    assert model.training and len(steps) == 3


def scripted(model, *rows: str):
    """Its head says these texts, byte by byte, and then the end."""
    step = iter(range(10_000))

    def head(name, x):
        place, logits = next(step), torch.zeros(len(x), 260)
        for row, text in enumerate(rows):
            ids = [*text.encode(), 258]
            logits[row, ids[min(place, len(ids) - 1)]] = 50.0
        return logits

    model.head = head
    return model


def test_stop_strings_end_rows():
    """Each its own; the others go on. The ids of a stop string are told, its text is not."""
    rows = ["one. two.", "one two three", "no stop"]
    found = scripted(speaker(), *rows).draw(["> "] * 3, length=40, stop=[". ", "thr"])
    assert [one.raw for one in found] == ["> one", "> one two ", "> no stop"]
    assert [one.stopped for one in found] == ["stop", "stop", "end"]
    assert [bytes(one.ids[:-1] if one.stopped == "end" else one.ids).decode() for one in found] == [
        "one. ",
        "one two thr",
        "no stop",
    ]
    assert scripted(speaker(), "one. two.").generate("> ", stop="!", length=6) == ["> one. t"]
    pieces = [piece.text for piece in scripted(speaker(), "one. two.").stream("> ", stop=". ")]
    assert pieces == ["o", "n", "e", "", ""]
    pieces = [piece.text for piece in scripted(speaker(), "one.").stream("> ", stop=". ")]
    assert pieces == ["o", "n", "e", "", "."]
    assert scripted(speaker(), "> x").generate("> ", stop="> ", length=9) == ["> "]


def test_time_ends_rows(monkeypatch):
    model = speaker()
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    found = model.draw(["ab", "c"], length=1000, seconds=5, temperature=0, repetition_penalty=2.0)
    assert {(one.stopped, len(one.ids)) for one in found if one.stopped != "end"} == {("time", 6)}
    clock = iter(range(100))
    for one in model.draw("ab", length=1000, seconds=3, beams=2, count=2):
        assert one.stopped == "end" or (one.stopped, len(one.ids)) == ("time", 4)


def test_what_is_no_text():
    """Pictures are streamed by their ids; no string ends one."""
    model = made(any_to_any()).model
    pieces = list(model.stream(stream="image", seed=1))
    (one,) = model.draw(stream="image", seed=1)
    assert [piece.text for piece in pieces] == [""] * 16 and [id for piece in pieces for id in piece.ids] == one.ids
    with pytest.raises(ConfigError, match="'image' is none"):
        model.generate(stream="image", stop="x")
