"""The verbs, each on its good path, over two tiny runs trained once."""

import csv
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import sevenfold as sf
from sevenfold.assembly.cost.model import model_costs
from sevenfold.assembly.pool import pool
from sevenfold.cli import main, verbs
from sevenfold.core.rooms import ROOMS, header, kinds
from sevenfold.training.estimate import state_numbers
from sevenfold.training.prepare import prepare
from sevenfold.training.recipe import read_recipe, shipped_folder

LINES = [f"{n} green bottles hanging on the wall, and {n - 1} after one falls.\n" for n in range(300, 0, -1)]

GPT = """
data: {kind: text, path: PATH, held_out: 0.2}
streams:
  text: {kind: text, tokenizer: {kind: bpe, size: 300}, length: 24}
trunks:
  lm: {inputs: [text], width: 16, depth: 1, mask: {causal: true}}
objective: {kind: next_token}
train: {steps: 4, batch: 8}
"""

ANY = [
    "digits_any_to_any",
    "data.limit=80",
    "trunks.mind.width=16",
    "trunks.mind.depth=1",
    "streams.image.tokenizer.size=16",
    "train.batch=8",
]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with the runs `gpt`, `any` and `vit`, four steps each."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "song.txt").write_text("".join(LINES))
    (folder / "gpt.yaml").write_text(GPT.replace("PATH", str(folder / "song.txt")))
    vit = ["vit", "data.limit=80", "trunks.enc.width=16", "trunks.enc.depth=1", "train.batch=8"]
    for name, args in {"gpt": [str(folder / "gpt.yaml")], "any": ANY, "vit": vit}.items():
        assert main(["train", *args, "train.steps=4", "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture
def said(capsys):
    """Run a command that must succeed; returns what it prints."""

    def run(*args):
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 0
        return capsys.readouterr().out

    return run


def python(code, **environment):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Quick, and light

HEAVY = "{'torch', 'pydantic', 'numpy', 'yaml', 'sklearn', 'matplotlib', 'rich'}"


def test_importing_is_light():
    code = f"import sys, sevenfold; print(sorted({HEAVY} & set(sys.modules)))"
    assert python(code).strip() == "[]"


def test_no_help_loads_anything_heavy():
    """Every verb in one interpreter: what one of them loads would show."""
    code = f"""
import contextlib, io, sys
from sevenfold.cli import main, verbs
for verb in verbs():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([verb, '--help'])
    print(verb, sorted({HEAVY} & set(sys.modules)))
"""
    lines = python(code).splitlines()
    assert len(lines) == len(verbs()) >= 7
    assert all(line.endswith(" []") for line in lines), lines


def best(args, times=5):
    """Seconds of the quickest of a few calls."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *args], capture_output=True, check=True)
        found.append(time.perf_counter() - begin)
    return min(found)


@pytest.mark.parametrize("args", [[], ["train"], ["evaluate"], ["list"]], ids=str)
def test_help_answers_at_once(args):
    nothing = best(["-c", ""])
    seconds = best(["-m", "sevenfold", *args, "--help"])
    print(f"sevenfold {' '.join(args)} --help: {seconds:.3f} s, of which Python itself {nothing:.3f} s")
    assert seconds < 0.4 + nothing


def test_every_name_of_the_package_is_there():
    for name in sf.__all__:
        assert getattr(sf, name) is not None
    assert set(sf.__all__) <= set(dir(sf))


# list


def test_list_names_every_part(said):
    text = said("list")
    for room in ROOMS:
        assert f"{room}: " in text
        for kind in kinds(room):
            line = next(line for line in text.splitlines() if line.startswith(f"  {kind} "))
            assert line.split(maxsplit=1)[1], kind
    assert "hyena" not in said("list", "position") and "rotary" in said("list", "position")


def test_list_as_markdown_holds_every_header(said):
    text = said("list", "--markdown")
    for room in ROOMS:
        assert f"## {room}\n" in text
        for kind in kinds(room):
            assert f"### `{kind}`" in text
            for line in header(room, kind).splitlines():
                assert line.strip() in text
    assert text.count("```") % 2 == 0
    assert "```text\ny = softmax(M + Q K^T / sqrt(d_h)) V" in text


def test_list_with_fields(said):
    assert "| `heads` | `None` | How many heads" in said("list", "mixing", "--markdown", "--fields")
    assert "kv_heads: None" in said("list", "mixing", "--fields")


def test_parts_of_other_packages_are_listed(tmp_path):
    package = tmp_path / "lab_parts"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    (package / "swirl.py").write_text('"""A mixer from a lab.\n\n    y = x\n"""\n')
    info = tmp_path / "lab_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sevenfold.parts]\nmixing.swirl = lab_parts.swirl\n")
    code = "from sevenfold.cli import main; main(['list', 'mixing']); main(['train', '--help'])"
    text = python(f"import contextlib\nwith contextlib.suppress(SystemExit): exec({code!r})", PYTHONPATH=str(tmp_path))
    assert "swirl                A mixer from a lab." in text
    assert "swirl" in text.partition("usage: sevenfold train")[2]


def test_help_of_train_lists_every_kind(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    for room in ROOMS:
        assert all(kind in text for kind in kinds(room))


# show, and what it counts with


def test_show_a_recipe(said):
    text = said("show", *ANY, "--recipe")
    assert "caption + image" in text and "learned" in text and "causal" in text
    total = next(line for line in text.splitlines() if line.startswith("total"))
    ready = prepare(read_recipe(ANY[0], ANY[1:]))
    assert f"{sum(p.numel() for p in ready.model.parameters()):,}" in total
    assert "optimizer state" in text and "objective:" in text


def test_show_a_run(said, runs):
    text = said("show", runs / "gpt")
    parameters = json.loads((runs / "gpt" / "results.json").read_text())["parameters"]
    assert f"{parameters:,}" in text


TINY = ["data.limit=60", "train.batch=4"]


def tiny(path):
    """A shipped recipe at a tiny size, on data that are there."""
    recipe = read_recipe(path)
    changes = [f"trunks.{name}.width=32" for name in recipe.trunks]
    changes += [f"trunks.{name}.depth=2" for name, trunk in recipe.trunks.items() if trunk.depth > 2]
    for name, stream in recipe.streams.items():
        if "size" in type(stream.tokenizer).model_fields:
            changes.append(f"streams.{name}.tokenizer.size={min(stream.tokenizer.size, 300)}")
    return read_recipe(path, [*TINY, *changes])


@pytest.mark.parametrize("path", sorted(shipped_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_counts_are_those_of_pytorch(path):
    """By matrix products in the open: the counter does not know the fused kernel of CPUs."""
    recipe = tiny(path)
    if recipe.data.kind != "digits":
        pytest.skip("its data are not part of a package")
    ready = prepare(recipe)
    model = ready.model.eval()
    raws = [sample for sample in ready.samples(20) if all(value is not None for value in sample.values())][:1]
    batch = model.tokenize(raws)
    lengths = {name: stream.values.shape[1] for name, stream in batch.items()}
    rows = model_costs(model, lengths)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    for trunk in [*model.trunks, "heads"]:
        inside = sum(
            p.numel() for name, p in model.named_parameters() if name.startswith((f"trunks.{trunk}.", f"{trunk}."))
        )
        assert sum(row.parameters for row in rows if row.place.startswith(f"{trunk}.")) == inside
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        done = model(batch)
        for name, head in model.heads.items():
            hidden, config = done[head.config.trunk], head.config
            if config.pool != "none":
                model.head(name, pool(hidden, config.pool))
            elif config.stream in hidden.spans:
                model.head(name, hidden.of(config.stream).x)
            else:
                model.head(name, hidden.x[:, -lengths[config.stream] :])
    assert sum(row.flops for row in rows) == counter.get_total_flops()


@pytest.mark.parametrize("kind", kinds("optimizer"))
def test_the_optimizer_state_is_counted(kind):
    ready = prepare(read_recipe("vit", [*TINY, f"train.optimizer={kind}", "trunks.enc.depth=1"]))
    trained = {name: p for name, p in ready.objective.named_parameters() if p.requires_grad}
    optimizer = ready.recipe.train.optimizer.build(trained)
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0)
    assert state_numbers(ready.recipe.train.optimizer, trained) == sum(v.numel() for v in optimizer.tensors().values())


# evaluate


@pytest.mark.parametrize("name", ["gpt", "any", "vit"])
def test_evaluating_gives_the_figures_of_training(said, runs, name):
    found = json.loads(said("evaluate", runs / name, "--by", "loss", "--json"))
    stored = json.loads((runs / name / "results.json").read_text())
    rows = {row: {term: figure["value"] for term, figure in terms.items()} for row, terms in found["rows"].items()}
    assert stored["held_out"].items() <= rows["this model"].items()
    assert all(terms.items() <= rows[row].items() for row, terms in stored["baselines"].items())
    text = said("evaluate", runs / name, "--by", "loss")
    assert f"{stored['held_out']['loss']:.4f}" in text and ": the held-out part of" in text
    assert all(baseline in text for baseline in stored["baselines"])


TOWERS = {
    "infonce": {"v": {"inputs": ["image"], "position": "learned"}, "t": {"inputs": ["caption"]}},
    "mae": {"enc": {"inputs": ["image"], "position": "learned"}, "dec": {"inputs": ["enc"], "position": "learned"}},
}


@pytest.mark.parametrize("kind", TOWERS)
def test_evaluating_takes_what_only_the_objective_has(kind, tmp_path):
    """A temperature, a mask vector: trained beside the model, and needed for the same figures."""
    recipe = {
        "data": {"kind": "digits", "limit": 60},
        "streams": {"image": {"kind": "image", "tokenizer": {"kind": "patch", "patch": 4}}},
        "trunks": {name: {**trunk, "width": 16, "depth": 1} for name, trunk in TOWERS[kind].items()},
        "objective": kind,
        "train": {"steps": 3, "batch": 8, "optimizer": {"kind": "adamw", "lr": 0.05}},
    }
    if kind == "infonce":
        recipe["streams"]["caption"] = {"kind": "text"}
    run = sf.train(recipe, tmp_path / "run", say=lambda _: None)
    assert sf.evaluate(run.folder).values() == run.results["held_out"]


def test_evaluating_other_data(said, runs, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("".join(LINES[:40]))
    found = sf.evaluate(runs / "gpt", other)
    assert found.data == f"all of {other}" and found.samples["tested"] == 2
    assert list(found.rows)[1:] == ["token frequencies (unigram)", "the same backbone at random initialisation"]
    same = sf.evaluate(runs / "gpt", runs / "song.txt").values()
    assert same.items() >= json.loads((runs / "gpt" / "results.json").read_text())["held_out"].items()


def test_bits_per_byte(runs):
    found = sf.evaluate(runs / "gpt")
    model = sf.load(runs / "gpt")
    held_out = read_recipe(runs / "gpt").data.build()
    text = "".join(held_out[index]["text"] for index in held_out.split()[1])
    tokens = len(model.modalities["text"].tokenizer.encode(text).values)
    nats, bits = (found.values()[name] for name in ("nats", "text: bits per byte"))
    assert found.values()["text: perplexity"] == pytest.approx(np.exp(nats))
    assert bits == pytest.approx(nats * tokens / len(text.encode()) / np.log(2), rel=0.01)
    assert 0 < found.values("token frequencies (unigram)")["text: bits per byte"] < 8


# embed


def test_embedding_a_file_in_every_form(said, runs, tmp_path):
    song = runs / "song.txt"
    for ending in (".npy", ".npz", ".csv", ".parquet"):
        said("embed", runs / "gpt", song, "-o", tmp_path / f"x{ending}")
    plain = np.load(tmp_path / "x.npy")
    whole = np.load(tmp_path / "x.npz")
    assert plain.dtype == np.float32 and plain.shape[1] == 16
    assert np.array_equal(whole["embeddings"], plain) and str(song) in str(whole["where"][0])
    rows = list(csv.reader((tmp_path / "x.csv").open()))
    assert rows[0][:2] == ["where", "e0"] and np.array_equal(np.array(rows[1:])[:, 1:].astype(np.float32), plain)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert np.array_equal(np.stack(table["embedding"].to_numpy()), plain)


def test_embedding_texts_is_what_the_model_says(said, runs, tmp_path):
    said("embed", runs / "gpt", "--text", "two bottles", "--text", "nine", "-o", tmp_path / "x.npy")
    expected = sf.load(runs / "gpt").embed(["two bottles", "nine"])
    assert np.array_equal(np.load(tmp_path / "x.npy"), expected)


def test_embedding_every_token(said, runs, tmp_path):
    said("embed", runs / "gpt", "--text", "two bottles", "--text", "nine", "--pool", "none", "-o", tmp_path / "x.npz")
    found, expected = np.load(tmp_path / "x.npz"), sf.load(runs / "gpt").embed(["two bottles", "nine"], pool="none")
    assert [int((found["item"] == place).sum()) for place in (0, 1)] == [len(rows) for rows in expected]
    assert np.array_equal(found["embeddings"], np.concatenate(expected))


def test_embedding_skips_what_cannot_be_read(said, runs, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    said("generate", runs / "any", "--stream", "image", "--count", "3", "-o", folder)
    (folder / "image-2.png").write_bytes((folder / "image-2.png").read_bytes()[:70])
    text = said("embed", runs / "any", folder, "-o", tmp_path / "x.npz")
    assert "1 items could not be read" in text and "image-2.png" in text
    found = np.load(tmp_path / "x.npz")
    assert len(found["embeddings"]) == 2 and "image-2.png" not in " ".join(found["where"])
    listed = json.loads((tmp_path / "x.npz.bad_samples.jsonl").read_text())
    assert "image-2.png" in listed["where"]


# generate


def test_generating_text(said, runs):
    first = said("generate", runs / "gpt", "9 green", "--length", "8", "--seed", "3")
    assert first.startswith("9 green")
    assert first == said("generate", runs / "gpt", "9 green", "--length", "8", "--seed", "3")
    assert len(said("generate", runs / "gpt", "--length", "3", "--count", "2", "--temperature", "0").splitlines()) >= 2


def test_generating_pictures_and_reading_them_back(said, runs, tmp_path):
    args = ["--stream", "image", "--given", "caption=a five", "--count", "2", "--seed", "1", "-o", tmp_path]
    text = said("generate", runs / "any", *args)
    assert "image-1.png" in text and len(text.splitlines()) == 2 * (8 + 1)
    assert sf.load(runs / "any").modalities["image"].typed(str(tmp_path / "image-2.png")).shape == (8, 8, 1)
    said("generate", runs / "any", *args)
    assert len(list(tmp_path.glob("image-*.png"))) == 4
    assert (tmp_path / "image-1.png").read_bytes() == (tmp_path / "image-3.png").read_bytes()
    said("generate", runs / "any", "--stream", "caption", "--given", f"image={tmp_path / 'image-1.png'}")


# doctor


def test_doctor(said):
    found = json.loads(said("doctor", "--json"))
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["kernels of the mixers"].keys() == set(kinds("mixing"))
    kernel = found["kernels of the mixers"]["attention"]
    assert "scaled_dot_product" in kernel or "bmm" in kernel  # short rows go in a few large products on some processors
    assert found["compute"]["precision: auto"] in ("bf16", "fp32")
    assert {"parquet", "tensorboard"} <= found["extras"].keys()
    assert "FLOP/s" in said("doctor")
