"""What is asked of drawing that cannot be: one line each, before anything is computed."""

from __future__ import annotations

import pytest
import torch

from drawing import filler, speaker, translator
from sevenfold.assembly.generation import Settings, Unmasking
from sevenfold.core.errors import ConfigError, DataError
from sevenfold.core.part import decode
from tiny import any_to_any, made

NONE = {"ends": False}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": -1}, "temperature.*-1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k.*0"),
        ({"top_p": 0}, "top_p.*0"),
        ({"top_p": 1.5}, r"top_p.*1\.5"),
        ({"min_p": 1}, "min_p.*1"),
        ({"min_p": -0.1}, "min_p"),
        ({"typical": 0}, "typical"),
        ({"typical": 1.1}, "typical"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"count": 0}, "count.*0"),
        ({"length": 0}, "length.*0"),
        ({"beams": 0}, "beams"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"seconds": -1}, "seconds"),
        ({"guidance": float("inf")}, "guidance"),
        ({"lookup": 0}, "lookup"),
        ({"lookup": 2, "ahead": 0}, "ahead"),
        ({"cache": "ful"}, "did you mean 'full'"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"beams": 3, "temperature": 0.7}, "leave out temperature"),
        ({"beams": 3, "top_k": 4, "min_p": 0.1}, "leave out top_k, min_p"),
        ({"beams": 3, "stop": "x"}, "leave out stop"),
        ({"beams": 3, "lookup": 2}, "leave out lookup"),
        ({"beams": 2, "count": 3}, "at most 2 items, not 3"),
        ({"length_penalty": 2.0}, "give beams too"),
        ({"stream": "txt"}, "did you mean 'text'"),
        ({"given": {"txt": ["a"]}}, "does not read 'txt'"),
    ],
)
def test_settings_out_of_range(settings, told):
    model = speaker()
    with pytest.raises(ConfigError, match=told) as caught:
        model.generate("a", **{"length": 2, **settings})
    assert "\n" not in str(caught.value)


def test_beams_and_what_they_go_with():
    model = speaker()
    assert len(model.generate("a", beams=2, temperature=0, count=2, length=3, length_penalty=0.5)) == 2
    with pytest.raises(ConfigError, match="do not stream"):
        model.stream("a", beams=2)
    with pytest.raises(ConfigError, match="leave out draft"):
        model.generate("a", beams=2, draft=model)


def test_streaming_refuses_at_once():
    """Not when the first piece is asked for."""
    model = speaker(position={"kind": "learned", "size": 8})
    for prompt, settings in (("a", {"temperature": -1}), ("a", {"stream": "txt"}), ("a" * 20, {})):
        with pytest.raises(ConfigError):
            model.stream(prompt, **settings)


@pytest.mark.parametrize("prompt", [None, "", ["a", ""]])
def test_an_empty_prompt(prompt):
    with pytest.raises(ConfigError, match=r"^prompt: to draw 'text' from nothing.*begin each item") as caught:
        speaker(text=NONE).generate(prompt, length=2)
    assert "\n" not in str(caught.value)
    assert all(isinstance(text, str) for text in speaker().generate(prompt, length=2))
    assert all(isinstance(text, str) for text in speaker(text=NONE, class_token=True).generate(prompt, length=2))


def test_a_prompt_longer_than_positions_reach():
    """Told with how many fit, and before the model runs; the most that fits is drawn where nobody says how many."""
    model = speaker(position={"kind": "learned", "size": 12})
    model.trunks["lm"].step = None
    for settings in ({}, {"beams": 2}, {"draft": speaker()}):
        with pytest.raises(ConfigError, match="21 tokens, and positions reach 12: at most 11 fit"):
            model.generate("a" * 20, **settings)
        with pytest.raises(ConfigError, match="behind 6 tokens at most 6 fit, as positions reach 12; not 7"):
            model.generate(["a", "abcde"], length=7, **settings)
    model = speaker(position={"kind": "learned", "size": 12})
    assert len(model.draw("abcde", length=6, temperature=0)[0].ids) <= 6
    prompts = ["abcde", "a", "abcdefghij"]
    for prompt, one in zip(prompts, model.draw(prompts, temperature=0)):
        assert one.ids == model.draw(prompt, temperature=0)[0].ids
        assert len(one.ids) == 11 - len(prompt) or one.stopped == "end"


def test_a_report_shows_as_much_as_fits():
    data = any_to_any()
    data["trunks"]["mind"]["position"] = {"kind": "learned", "size": 40}
    ready = made(data)
    drawn = [
        exhibit for exhibit in ready.objective.exhibits(ready.samples(3)) if exhibit.title.startswith("caption, drawn")
    ]
    assert len(drawn) == 1 and len(drawn[0].rows) == 4


def test_numbered_tokens_reach_as_far_as_positions_do():
    model = speaker(position={"kind": "learned", "size": 12}, index=True, class_token=True, text={"length": 11})
    with pytest.raises(ConfigError, match="behind 5 tokens at most 7 fit"):
        model.generate("abc", length=8)
    (found,) = model.draw("abc", temperature=0)
    assert len(found.ids) == 7 or found.stopped == "end"
    assert len(model.draw("abc", length=7, temperature=0)[0].ids) <= 7


def test_numbers_that_are_not_finite():
    model = speaker()
    with torch.no_grad():
        model.trunks["lm"].norm.weight.fill_(float("nan"))
    for settings in ({}, {"temperature": 0}, {"beams": 2}, {"lookup": 2}, {"draft": speaker()}):
        with pytest.raises(Exception, match="not finite"):
            model.generate("a", length=3, **settings)


def test_another_vocabulary():
    texts = ["one two three", "two four"]
    words = {"tokenizer": {"kind": "words", "size": 20, "min_count": 1}}
    model = speaker(text=words, raws=texts)
    for draft, told in (
        (speaker(), "260 ids and the model"),
        (speaker(text=words, raws=["uno dos three", "dos tres"]), "is '.*' to it and '.*' to the model"),
        (translator(), "260 ids"),
    ):
        with pytest.raises(ConfigError, match=f"draft: .*{told}"):
            model.generate("one", draft=draft)
    short = speaker(text=words, raws=texts, position={"kind": "learned", "size": 3})
    with pytest.raises(ConfigError, match="draft: its positions reach 3"):
        model.generate("one two three", draft=short, length=3)


# Filling in


@pytest.mark.parametrize(
    ("items", "settings", "told"),
    [
        ("a<mask>b", {"steps": 0}, "steps"),
        ("a<mask>b", {"order": "certainty"}, "order"),
        ("a<mask>b", {"schedule": "square"}, "schedule"),
        ("a<mask>b", {"temperature": -1}, "temperature"),
        ("a<mask>b", {"beams": 2}, "unknown field 'beams'"),
        ("a<mask>b", {"stream": "txt"}, "did you mean 'text'"),
        ("a<mask>b", {"length": 3}, "length"),
        ("a<mask>b", {"given": {"x": "y"}}, "does not read 'x'"),
        (None, {}, "give an item"),
        ("nothing", {}, "nothing is hidden"),
        ("", {}, "nothing is hidden"),
        ([1, 2, 999], {}, "ids from 0 to 259"),
        ([[1.5, 2.5]], {}, "ids from 0 to 259"),
    ],
)
def test_what_cannot_be_filled_in(items, settings, told):
    with pytest.raises((ConfigError, DataError), match=told) as caught:
        filler().fill(items, **settings)
    assert "\n" not in str(caught.value)


def test_models_that_draw_or_fill_in_nothing():
    with pytest.raises(ConfigError, match="fills in nothing"):
        speaker().fill("a<mask>")
    with pytest.raises(ConfigError, match="draws nothing"):
        filler().generate("a")
    with pytest.raises(ConfigError, match="positions reach 4"):
        filler(position={"kind": "learned", "size": 4}).fill("abcd<mask>")


def test_settings_are_frozen_and_told():
    for kind in (Settings, Unmasking):
        assert all(field.description for field in kind.model_fields.values())
        with pytest.raises(Exception, match="frozen"):
            decode(kind, {}).seed = 1
    assert decode(Settings, {"stop": "x"}).stop == ("x",)
