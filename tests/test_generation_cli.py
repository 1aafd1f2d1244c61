"""`sevenfold generate`: flags are the settings, text streams, prompts come from anywhere, hidden tokens are filled in."""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sevenfold as sf
from sevenfold.assembly.generation import Settings, Unmasking
from sevenfold.assembly.packing import perplexity
from sevenfold.cli import main
from sevenfold.cli.generate import DRAWING, FILLING, MASKED, arguments

SMALL = ["train.steps=4", "train.batch=4", "data.limit=60"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two texts of one vocabulary, one model that fills in, one of pictures."""
    folder = tmp_path_factory.mktemp("runs")
    for name, recipe, more in (
        ("gpt", "tiny_gpt", ["trunks.lm.width=32"]),
        ("small", "tiny_gpt", ["trunks.lm.width=16", "trunks.lm.depth=1"]),
        ("bert", "tiny_bert", ["trunks.enc.width=16"]),
        ("any", "tiny_digits_any_to_any", ["trunks.mind.width=16"]),
    ):
        assert main(["train", recipe, *SMALL, *more, "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture
def said(capsys):
    def run(*args, code=0):
        capsys.readouterr()
        assert main(["generate", *map(str, args)]) == code
        out, err = capsys.readouterr()
        return out if code == 0 else err

    return run


def test_every_setting_is_a_flag():
    parser = argparse.ArgumentParser()
    arguments(parser)
    flags = {action.dest for action in parser._actions}
    assert set(DRAWING) == set(Settings.model_fields) <= flags
    assert set(FILLING) == {*Unmasking.model_fields, "length"} <= flags and set(MASKED) < set(FILLING)
    for action in parser._actions:
        told = re.search(r"\(default: ([\d.]+)", action.help or "")
        if told is not None:
            assert float(told[1]) == {**Unmasking.model_fields, **Settings.model_fields}[action.dest].default, (
                action.dest
            )


def test_every_setting_is_in_the_docs():
    page = (Path(__file__).parents[1] / "docs/generation.md").read_text(encoding="utf-8")
    rows = [set(re.findall(r"`(\w+)`", line.split("|")[1])) for line in page.splitlines() if line.startswith("| `")]
    named = set().union(*rows)
    assert named == {*Settings.model_fields, *MASKED}


def test_a_text_streams_and_is_what_is_drawn(said, runs):
    model = sf.load(runs / "gpt")
    for flags, settings in (
        (["--seed", "3"], {"seed": 3}),
        (["--temperature", "0.7", "--top-k", "9", "--min-p", "0.01"], {"temperature": 0.7, "top_k": 9, "min_p": 0.01}),
        (["--typical", "0.9", "--repetition-penalty", "1.3"], {"typical": 0.9, "repetition_penalty": 1.3}),
        (["--stop", "e", "--stop", "\\n", "--top-p", "0.9"], {"stop": ["e", "\n"], "top_p": 0.9}),
        (["--lookup", "2", "--ahead", "3"], {"lookup": 2, "ahead": 3}),
        (["--cache", "quantised"], {"cache": "quantised"}),
    ):
        (wanted,) = model.generate("the digit", length=12, **settings)
        for more in ([], ["--no-stream"]):
            assert said(runs / "gpt", "the digit", "--length", "12", *flags, *more) == wanted + "\n"


def test_text_comes_as_it_is_drawn(runs):
    """Through a pipe too: the first piece is there long before the last."""
    code = (
        "import sys, time, sevenfold.assembly.stepping as s; step = s.Stepping.step\n"
        "s.Stepping.step = lambda *given: time.sleep(0.2) or step(*given)\n"
        "from sevenfold.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ["generate", str(runs / "gpt"), "the digit", "--length", "10", "--seed", "1", "--temperature", "3"]
    done = subprocess.Popen([sys.executable, "-c", code, *args], stdout=subprocess.PIPE, env=dict(os.environ))
    assert done.stdout is not None
    assert done.stdout.read(9) == b"the digit"
    done.stdout.read(1)
    first = time.perf_counter()
    rest = done.stdout.read()
    assert done.wait() == 0 and rest.endswith(b"\n") and time.perf_counter() - first > 0.5


def test_prompts_from_a_file_and_from_standard_input(said, runs, tmp_path, monkeypatch):
    lines = ["the digit", "a five", "seven"]
    (tmp_path / "begins.txt").write_text("\n".join(lines) + "\n")
    model = sf.load(runs / "gpt")
    wanted = model.generate(lines, count=2, length=6, seed=2)
    how = ["--count", "2", "--length", "6", "--seed", "2"]
    assert said(runs / "gpt", "--prompts", tmp_path / "begins.txt", *how) == "\n".join(wanted) + "\n"

    def standard(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    standard("\n".join(lines).encode())
    assert said(runs / "gpt", "--prompts", "-", *how) == "\n".join(wanted) + "\n"
    standard(b"the digit\n")
    assert said(runs / "gpt", "-", "--length", "6") == model.generate("the digit", length=6)[0] + "\n"
    standard(b"\xff\xfe")
    assert "not UTF-8" in said(runs / "gpt", "-", code=2)
    assert "not both" in said(runs / "gpt", "x", "--prompts", tmp_path / "begins.txt", code=2)
    assert "none.txt" in said(runs / "gpt", "--prompts", tmp_path / "none.txt", code=2)
    (tmp_path / "empty.txt").write_text("\n")
    assert "is empty" in said(runs / "gpt", "--prompts", tmp_path / "empty.txt", code=2)


def test_beams_drafts_and_logprobs(said, runs, capsys):
    model, small = sf.load(runs / "gpt"), sf.load(runs / "small")
    wanted = model.generate("a", beams=3, count=2, length=5, length_penalty=0.5)
    how = ["--beams", "3", "--count", "2", "--length", "5", "--length-penalty", "0.5"]
    assert said(runs / "gpt", "a", *how) == "\n".join(wanted) + "\n"
    (one,) = model.draw("a", draft=small, length=8, seed=1)
    assert (
        main(["generate", str(runs / "gpt"), "a", "--draft", str(runs / "small"), "--length", "8", "--seed", "1"]) == 0
    )
    out, err = capsys.readouterr()
    assert out == one.raw + "\n" and err == f"guessed ahead: {100 * one.accepted:.0f} % kept\n"
    assert "draft: stream: say which of" in said(runs / "gpt", "a", "--draft", runs / "any", code=2)
    assert "draft: this model draws nothing" in said(runs / "gpt", "a", "--draft", runs / "bert", code=2)
    lines = said(runs / "gpt", "a", "--logprobs", "--length", "4", "--seed", "1").splitlines()
    (one,) = model.draw("a", length=4, seed=1)
    assert lines[0] == one.raw and len(lines) == 6
    assert [float(line.split()[0]) for line in lines[1:5]] == [round(value, 4) for value in one.logprobs]
    assert lines[-1].split()[0] == f"{one.logprob:.4f}" and "by length" in lines[-1]


def test_weights_in_fewer_bytes(said, runs, tmp_path, capsys):
    """Perplexity before and after is told, on the prompts or on a file; what is drawn is what the packed model draws."""
    text = "the digit five\na small image of a 3\n"
    (tmp_path / "other.txt").write_text(text)
    for kind, more, measured, place in (
        ("int8", [], "the digit", "the prompts"),
        ("int4", ["--data", tmp_path / "other.txt"], text, str(tmp_path / "other.txt")),
    ):
        model = sf.load(runs / "gpt")
        before = perplexity(model, measured)
        after = perplexity(model.quantize(kind), measured)
        count = len(model.modalities["text"].tokenizer.encode(measured).values)
        assert before != after
        capsys.readouterr()
        args = ["the digit", "--quantize", kind, "--length", "8", "--temperature", "0", *more]
        assert main(["generate", str(runs / "gpt"), *map(str, args)]) == 0
        out, err = capsys.readouterr()
        assert out == model.generate("the digit", length=8, temperature=0)[0] + "\n"
        assert err == f"{kind}: perplexity {before:.5g} before, {after:.5g} after, on {count} tokens of {place}\n"
    assert main(["generate", str(runs / "gpt"), "--quantize", "int8", "--length", "2"]) == 0
    assert "give a text as --data" in capsys.readouterr().err
    assert main(["generate", str(runs / "bert"), "a <mask>", "--quantize", "int8"]) == 0
    assert "models that draw text" in capsys.readouterr().err


def test_hidden_tokens_are_filled_in(said, runs, tmp_path):
    model = sf.load(runs / "bert")
    item = "the <mask> digit <mask>"
    assert said(runs / "bert", item, "--steps", "2") == model.fill(item, steps=2)[0] + "\n"
    how = [
        "--steps",
        "3",
        "--order",
        "random",
        "--schedule",
        "linear",
        "--seed",
        "4",
        "--count",
        "2",
        "--temperature",
        "1",
    ]
    wanted = model.fill(item, steps=3, order="random", schedule="linear", seed=4, count=2, temperature=1)
    assert said(runs / "bert", item, *how) == "\n".join(wanted) + "\n"
    assert said(runs / "bert", "--length", "5") == model.fill(length=5)[0] + "\n"
    said(runs / "bert", item, "-o", tmp_path)
    assert (tmp_path / "text-1.txt").read_text() == model.fill(item)[0] + "\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["gpt", "a", "--temperature", "-1"], "temperature"),
        (["gpt", "a", "--top-p", "0"], "top_p"),
        (["gpt", "a", "--top-p", "1.5"], "top_p"),
        (["gpt", "a", "--min-p", "1"], "min_p"),
        (["gpt", "a", "--count", "0"], "count"),
        (["gpt", "a", "--stop", ""], "stop"),
        (["gpt", "a", "--beams", "2", "--top-k", "3"], "leave out top_k"),
        (["gpt", "a", "--cache", "ful"], "did you mean 'full'"),
        (["gpt", "a", "--stream", "txt"], "did you mean 'text'"),
        (["gpt", "a", "--steps", "3"], "fills in nothing"),
        (["gpt", "a", "--order", "random", "--beams", "2"], "--beams: is not for a model that fills in"),
        (["bert", "a <mask>", "--beams", "2"], "--beams: is not for a model that fills in"),
        (["bert", "a <mask>", "--order", "any"], "order"),
        (["bert", "a"], "nothing is hidden"),
        (["bert"], "give an item"),
        (["any", "--stream", "image", "--stop", "x"], "'image' is none"),
        (["gpt", "a", "--draft", "nowhere"], "nowhere"),
        (["gpt", "a", "--quantize", "int5"], "did you mean 'int"),
        (["gpt", "a", "--data", "x.txt"], "give --quantize too"),
        (["any", "a", "--stream", "caption", "--draft", "nowhere"], "nowhere"),
    ],
)
def test_what_is_refused(said, runs, args, told):
    told_by_us = said(runs / args[0], *args[1:], code=2)
    assert told in told_by_us and told_by_us.startswith("sevenfold: ") and told_by_us.count("\n") == 1
