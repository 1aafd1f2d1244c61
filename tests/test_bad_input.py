"""Bad input of every kind: exit code 2, one line that names the place, no traceback, and nothing changed on disk."""

import gzip
import hashlib
import json
import resource
import shutil
import signal
from functools import partial

import numpy as np
import pytest
from PIL import Image

from aside import command
from sevenfold.cli import main

pytestmark = pytest.mark.xdist_group("aside")
TEXT = "".join(f"{n} green bottles hanging on the wall, and {n - 1} after one falls.\n" for n in range(400, 0, -1))

GPT = """
data: {kind: text, path: PATH}
streams:
  text: {kind: text, tokenizer: {kind: bytes}, length: 16}
trunks:
  lm: {inputs: [text], width: 16, depth: 1, mask: {causal: true}}
objective: {kind: next_token}
train: {steps: 2, batch: 4}
"""

DIGITS = """
data: {kind: digits, limit: 60}
streams:
  image: {kind: image, tokenizer: {kind: patch, patch: 4}}
  label: {kind: label}
trunks:
  enc: {inputs: [image], width: 16, depth: 1, position: learned}
objective: {kind: supervised}
train: {steps: 2, batch: 4}
"""


def digest(folder):
    """Every file under a folder, with a hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "song.txt").write_text(TEXT)
    (tmp_path / "gpt.yaml").write_text(GPT.replace("PATH", "song.txt"))
    (tmp_path / "digits.yaml").write_text(DIGITS)
    return tmp_path


@pytest.fixture
def refused(here, capsys):
    """Run a command that must be refused; returns what it says."""

    def run(*args, says=()):
        before = digest(here)
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        told = capsys.readouterr().err
        assert code == 2, told
        assert len(told.splitlines()) == 1, told
        assert told.startswith("sevenfold: ") and "Traceback" not in told
        assert len(told) < 600, told
        for word in (says,) if isinstance(says, str) else says:
            assert word in told, told
        assert digest(here) == before
        return told

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A whole run, to be copied and broken."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "song.txt").write_text(TEXT)
    (folder / "gpt.yaml").write_text(GPT.replace("PATH", str(folder / "song.txt")).replace("bytes", "bpe, size: 300"))
    assert main(["train", str(folder / "gpt.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(trained, here):
    shutil.copytree(trained, here / "run")
    return here / "run"


# The command line itself


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["trian"], "did you mean 'train'"),
        (["train"], ["recipe", "--help"]),
        (["train", "gpt.yaml", "--oot", "x"], "--oot"),
        (["generate", "run", "--count", "many"], "many"),
        (["list", "mixxing"], "did you mean 'mixing'"),
        (["show", "nowhere.yaml"], ["nowhere.yaml", "no such file"]),
        (["train", "nowhere"], ["nowhere", "no such file"]),
        (["train", "."], "recipe.yaml"),
    ],
)
def test_command_lines(refused, args, says):
    refused(*args, says=says)


# Recipes that say something wrong

WRONG = {
    "misspelt field": ("gpt", "train.stepz=3", ["train.stepz", "did you mean 'steps'"]),
    "misspelt deep field": (
        "gpt",
        "trunks.lm.block.mixer={kind: attention, haeds: 2}",
        ["trunks.lm", "haeds", "'heads'"],
    ),
    "unknown top field": ("gpt", "trunk=3", ["trunk", "did you mean 'trunks'"]),
    "no such mixer": ("gpt", "trunks.lm.block.mixer=atention", ["trunks.lm.block", "did you mean 'attention'"]),
    "no such objective": ("gpt", "objective.kind=next_tokn", ["objective", "did you mean 'next_token'"]),
    "a kind that is a path": ("gpt", "objective.kind=os.system", ["objective", "os.system"]),
    "a kind that is a file": ("gpt", "objective.kind=../../evil", ["objective", "../../evil"]),
    "no kind": ("gpt", "objective={}", ["objective", "needs a kind"]),
    "wrong type": ("gpt", "train.steps=many", ["train.steps", "many"]),
    "a list for a number": ("gpt", "trunks.lm.width=[16]", ["trunks.lm.width"]),
    "a fraction for a whole number": ("gpt", "train.steps=2.5", ["train.steps", "2.5"]),
    "out of range": ("gpt", "train.steps=0", ["train.steps", "greater than or equal to 1"]),
    "negative rate": ("gpt", "train.optimizer.lr=-1e-3", ["train.optimizer.lr", "-0.001"]),
    "not a number": ("gpt", "train.optimizer.lr=.nan", ["train.optimizer.lr"]),
    "an infinite rate": ("gpt", "train.optimizer.lr=.inf", ["train.optimizer.lr"]),
    "heads": ("gpt", "trunks.lm.block.mixer={kind: attention, heads: 3}", ["trunks.lm", "3 heads", "16"]),
    "no inputs": ("gpt", "trunks.lm.inputs=[]", "trunks.lm.inputs"),
    "unknown input": ("gpt", "trunks.lm.inputs=[txt]", ["trunks.lm.inputs", "did you mean 'text'"]),
    "input twice": ("gpt", "trunks.lm.inputs=[text, text]", ["trunks.lm.inputs", "twice"]),
    "itself": ("gpt", "trunks.lm.inputs=[lm]", ["trunks.lm.inputs", "itself"]),
    "reads a later one": ("gpt", "trunks={a: {inputs: [b]}, b: {inputs: [text]}}", ["trunks.a.inputs", "comes later"]),
    "attends to a later one": ("gpt", "trunks.lm.cross_attends=lm", ["trunks.lm.cross_attends", "'lm'"]),
    "not causal": ("gpt", "trunks.lm.mask.causal=false", ["next_token", "trunks.lm.mask.causal"]),
    "next_token on vectors": (
        "digits",
        "objective=next_token & trunks.enc.mask.causal=true",
        ["'image'", "ids", "vectors"],
    ),
    "mae on ids": (
        "gpt",
        "trunks={e: {inputs: [text], width: 16}, d: {inputs: [e], width: 16}} & objective=mae",
        ["mae", "'text'", "ids"],
    ),
    "mae with one trunk": ("digits", "objective=mae", ["mae", "second trunk"]),
    "infonce with one trunk": ("digits", "objective=infonce", ["infonce", "two trunks"]),
    "masked_token causal": ("gpt", "objective=masked_token", ["masked_token", "mask.causal"]),
    "masked_token on vectors": ("digits", "objective=masked_token", ["'image'", "ids", "vectors"]),
    "supervised without a free stream": ("gpt", "objective=supervised", ["supervised", "no trunk reads"]),
    "pool class without a token": ("digits", "objective={kind: supervised, pool: class}", "class token"),
    "a rotary position on pictures": ("digits", "trunks.enc.position=rotary", ["trunks.enc", "rotary"]),
    "a learned position that is too short": ("gpt", "trunks.lm.position={kind: learned, size: 8}", ["trunks.lm", "8"]),
    "two ways to say the batch": ("gpt", "train.batch_tokens=64", ["batch_tokens", "not both"]),
    "more pieces than rows": ("gpt", "train.accumulate=8", ["train.accumulate", "8"]),
    "no such device": ("gpt", "train.device=quantum", ["train.device"]),
    "an override without =": ("gpt", "train.steps", ["train.steps", "field=value"]),
    "an override into a list": ("digits", "streams.image.views.7.pixels=1", ["7"]),
    "an override into a number": ("gpt", "train.steps.more=1", ["train.steps"]),
    "a broken override": ("gpt", "trunks.lm.mask={causal", ["trunks.lm.mask={causal"]),
    "patches that do not fit": ("digits", "streams.image.tokenizer.patch=3", ["8 by 8", "patch"]),
    "ends without end tokens": ("digits", "streams.label.ends=true", ["label"]),
    "pack two streams": ("digits", "streams.label.pack=true", ["streams.label.pack"]),
    "pack vectors": ("digits", "streams={image: {kind: image, pack: true}} & objective=mae", ["mae"]),
    "no such field": ("digits", "streams.image.field=picture", ["streams.image.field", "picture"]),
    "no such data": ("gpt", "data.path=nowhere.txt", ["nowhere.txt", "no such file"]),
    "no path": ("gpt", "data.path=null", ["data.path"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_recipes(refused, case):
    name, changes, says = WRONG[case]
    refused("train", f"{name}.yaml", *changes.split(" & "), "--out", "out", says=says)


def test_a_number_without_a_dot_is_a_number(here, capsys):
    assert main(["show", "gpt.yaml", "train.optimizer.lr=1e-4", "--recipe"]) == 0
    assert "lr: 0.0001" in capsys.readouterr().out


def test_a_rate_that_breaks_everything(here, capsys):
    assert main(["train", "gpt.yaml", "train.optimizer.lr=1e30", "--out", "out"]) == 2
    told = capsys.readouterr().err
    assert "not finite" in told and "train.optimizer.lr" in told and len(told.splitlines()) == 1


# Recipes that are not recipes

FILES = {
    "a list": ("- 1\n- 2\n", "mapping"),
    "a word": ("hello", "mapping"),
    "nothing": ("", "mapping"),
    "python": ("data: !!python/object/apply:os.system [touch evil]\n", "python"),
    "python name": ("data: !!python/name:os.system\n", "python"),
    "twice": (GPT + "seed: 1\nseed: 2\n", ["'seed'", "twice"]),
    "unclosed": ("data: {kind: text\n", "YAML"),
    "tabs": ("data:\n\tkind: text\n", "YAML"),
    "deep": ("a: " + "[" * 2000 + "]" * 2000, "deep"),
    "bomb": ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghijklmno", "bcdefghijklmnop")
    ), "aliases"),
    "itself": ("a: &a [*a]\n", ""),
    "merge": ("a: &a {b: 1}\n<<: *a\n", ""),
    "a null key": ("null: 1\n", ""),
    "a list as key": ("? [1, 2]\n: 3\n", ""),
    "two documents": ("a: 1\n---\nb: 2\n", "document"),
    "a date": (GPT + "seed: 2020-01-01\n", "seed"),
    "not text": ("\x00\x01\x02", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_recipes(refused, here, case):
    text, says = FILES[case]
    (here / "bad.yaml").write_text(text)
    refused("train", "bad.yaml", "--out", "out", says=["bad.yaml", *([says] if isinstance(says, str) else says)])
    assert not (here / "evil").exists()


def test_recipes_of_bytes_or_too_large(refused, here):
    (here / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    refused("train", "bad.yaml", says="bad.yaml")
    (here / "bad.yaml").write_bytes(b"# " + b"x" * (5 << 20))
    refused("train", "bad.yaml", says="larger than")


# Data that cannot be used


def png(path, seed=0, cut=None):
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)).save(path, "PNG")
    if cut:
        path.write_bytes(path.read_bytes()[:cut])


def data_empty(here):
    (here / "x.txt").write_bytes(b"")
    return ["gpt.yaml", "data.path=x.txt"], "x.txt"


def data_blank(here):
    (here / "x.txt").write_text("\n\n")
    return ["gpt.yaml", "data.path=x.txt"], "x.txt"


def data_of_another_kind(here):
    png(here / "x.txt")
    return ["gpt.yaml", "data.path=x.txt"], "x.txt"


def data_short(here):
    (here / "x.txt").write_text("a")
    return ["gpt.yaml", "data.path=x.txt"], "x.txt"


def data_folder_without_any(here):
    (here / "x").mkdir()
    return ["gpt.yaml", "data.path=x"], "x"


def data_cut_gzip(here):
    (here / "x.txt.gz").write_bytes(gzip.compress(TEXT.encode())[:500])
    return ["gpt.yaml", "data.path=x.txt.gz"], "x.txt.gz"


def data_fasta_letters(here):
    (here / "x.fasta").write_text("".join(f">{n}\nACGTAC{'!%7'[n % 3 :]}GTTACGT\n" for n in range(20)))
    changes = ["data={kind: fasta, path: x.fasta, alphabet: dna}", "streams={text: {kind: dna, length: 16}}"]
    return ["gpt.yaml", *changes], "x.fasta"


def data_csv_without_the_column(here):
    (here / "x.csv").write_text("words,kind\n" + "".join(f"sentence number {n} of them,{n % 2}\n" for n in range(20)))
    return ["gpt.yaml", "data={kind: csv, path: x.csv}", "streams.text.field=text"], ["streams.text.field", "words"]


def data_csv_of_a_column_that_is_not_there(here):
    (here / "x.csv").write_text("words,kind\n" + "".join(f"sentence number {n} of them,{n % 2}\n" for n in range(20)))
    return ["gpt.yaml", "data={kind: csv, path: x.csv, columns: [wrds]}"], ["x.csv", "wrds"]


def data_cut_images(here):
    for label in "ab":
        (here / "x" / label).mkdir(parents=True)
        for n in range(6):
            png(here / "x" / label / f"{n}.png", cut=60)
    return ["digits.yaml", "data={kind: image_folder, path: x}"], ["x/", "damaged"]


def data_arrays_with_code(here):
    np.save(here / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return ["digits.yaml", "data={kind: arrays, path: x.npy}"], "x.npy"


def data_json_that_is_cut(here):
    (here / "x.jsonl").write_text('{"text": "a"\n' * 20)
    return ["gpt.yaml", "data={kind: jsonl, path: x.jsonl}"], "x.jsonl"


DATA = {name: made for name, made in list(globals().items()) if name.startswith("data_")}


@pytest.mark.parametrize("make", DATA.values(), ids=list(DATA))
def test_data(refused, here, make):
    args, says = make(here)
    refused("train", *args, "--out", "out", says=says)


def test_one_bad_image_among_many_is_skipped_and_counted(here, capsys):
    for label in "ab":
        (here / "x" / label).mkdir(parents=True)
        for n in range(10):
            png(here / "x" / label / f"{n}.png", seed=ord(label) + 100 * n)
    png(here / "x" / "a" / "3.png", cut=60)
    args = ["train", "digits.yaml", "data={kind: image_folder, path: x, bad_share: 0.2}", "train.steps=8"]
    assert main([*args, "--out", "out"]) == 0
    assert json.loads((here / "out" / "results.json").read_text())["bad_samples"] == 1
    assert "3.png" in (here / "out" / "bad_samples.jsonl").read_text()


# Where a run goes


def test_a_folder_that_holds_a_run(refused, run):
    refused("train", "gpt.yaml", "--out", "run", says=["run", "already holds a run", "--resume"])


def test_an_output_that_is_a_file(refused):
    refused("train", "gpt.yaml", "--out", "song.txt", says=["song.txt", "is a file"])
    refused("train", "gpt.yaml", "--out", "song.txt/below", says="song.txt")


def test_a_foreign_folder(refused, here):
    (here / "photos").mkdir()
    (here / "photos" / "me.png").write_bytes(b"x")
    refused("train", "gpt.yaml", "--out", "photos", says=["photos", "not empty"])


def test_resuming_what_is_not_there(refused, here):
    refused("train", "gpt.yaml", "--resume", says="run folder")
    refused("train", "nowhere", "--resume", says="nowhere")


def test_resuming_with_another_recipe_or_other_data(refused, run, trained):
    refused("train", "gpt.yaml", "--out", "run", "--resume", says=["run", "another recipe"])
    song = trained.parent / "song.txt"
    try:
        song.write_text(TEXT + "one more line\n")
        refused("train", "run", "--resume", says=["song.txt", "changed"])
        refused("evaluate", "run", says=["song.txt", "changed"])
    finally:
        song.write_text(TEXT)


# Runs that are not whole

PARTS = ["config.json", "model.safetensors", "tokenizer.json", "recipe.yaml", "objective.safetensors", "manifest.json"]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "empty"])
@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_damaged_runs(refused, run, name, how, verb):
    path = run / name
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
        if name == "manifest.json":
            return
    else:
        data[len(data) // 2] ^= 0x10
        path.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b""}[how])
    refused(verb, "run", says=["run"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "recipe.yaml"])
def test_damage_that_the_manifest_does_not_know_of(refused, run, name):
    """A file that was exchanged together with its hash is still refused in one line."""
    from sevenfold.core.files import sha256

    for content in (b"", b"[]", b"{}", b"null", b"\xff\xff", b'{"sevenfold": {"streams": 3}}', b"{" * 100_000):
        (run / name).write_bytes(content)
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["files"][name] = {"size": len(content), "sha256": sha256(run / name)}
        (run / "manifest.json").write_text(json.dumps(manifest))
        refused("evaluate", "run", says=["run"])


def test_what_is_no_run(refused, here):
    (here / "empty").mkdir()
    for verb in ("generate", "evaluate"):
        refused(verb, "empty", says="empty")
        refused(verb, "nowhere", says=["nowhere", "no such run folder"])
        refused(verb, "song.txt", says="song.txt")
    refused("embed", "nowhere", "song.txt", "-o", "x.npy", says="nowhere")


def test_using_a_run_wrongly(refused, run, here):
    png(here / "p.png")
    refused("generate", "run", "--stream", "txt", says=["txt", "did you mean 'text'"])
    refused("generate", "run", "--temperature", "-1", says="temperature")
    refused("generate", "run", "--top-p", "2", says="top_p")
    refused("generate", "run", "--length", "0", says="length")
    refused("generate", "run", "--given", "image", says="stream=what")
    refused("generate", "run", "--given", "image=p.png", says="no stream 'image'")
    refused("generate", "run", "--out", "song.txt", says="is a file")
    refused("embed", "run", "song.txt", "-o", "x.docx", says=["x.docx", ".npz"])
    refused("embed", "run", "song.txt", "-o", "x.npy", "--pool", "max", says=["pool", "max"])
    refused("embed", "run", "song.txt", "-o", "x.npy", "--trunk", "enc", says=["trunk", "enc", "lm"])
    refused("embed", "run", "song.txt", "-o", "x.npy", "--pool", "class", says="class token")
    refused("embed", "run", "song.txt", "-o", "x.npy", "--pool", "none", says=".npz")
    refused("embed", "run", "song.txt", "-o", ".", says="ending")
    refused("embed", "run", "nowhere", "-o", "x.npy", says="nowhere")
    refused("embed", "run", "-o", "x.npy", says="--text")
    refused("embed", "run", "song.txt", "-o", "song.txt/x.npy", says="song.txt")
    refused("evaluate", "run", "nowhere.txt", says="nowhere.txt")
    refused("evaluate", "run", "p.png", says="p.png")


# A full disk


def filled(limit):
    """No file of this process may be longer than that."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@pytest.mark.parametrize("limit", [200, 3000, 20_000])
def test_a_full_disk(here, limit):
    """Stopped at the first file, at a checkpoint, or at the end: one line, and what was there before is as it was."""
    before = digest(here)
    args = ["train", "gpt.yaml", "--out", "out"]
    done = command(*args, first=partial(filled, limit))
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
    assert "out" in done.stderr
    after = digest(here)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if ".tmp-" in name]
    again = ["train", "out", "--resume"] if (here / "out" / "recipe.yaml").exists() else args
    assert main(again) == 0
