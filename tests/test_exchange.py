"""Published folders in and out: what a loaded model is and does, passports, luggage, shards, memory, the hub's cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForPreTraining, BertModel

import sevenfold as sf
from exchanged import SENTENCES, gpt2, reloaded, tokenizer
from sevenfold.core.errors import CheckpointError, ConfigError
from sevenfold.exchange.load import opened
from sevenfold.exchange.origin import family_of
from sevenfold.exchange.passport import PASSPORT
from sevenfold.exchange.verify import verify
from sevenfold.exchange.weights import INDEX, SINGLE
from sevenfold.training.convert import convert
from tiny import text_file


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "tiny-gpt2"
    gpt2(folder)
    return folder


@pytest.fixture
def copy(source, tmp_path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "copy"))


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# What a loaded model is


def test_it_is_an_ordinary_model(source):
    reference, model = gpt2(), sf.load_published(source)
    ids = torch.randint(270, (3, 11), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.logits(ids), reference(ids).logits, atol=1e-5, rtol=0)
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    for text in SENTENCES:
        found = model.modalities["text"].tokens(text).values.tolist()
        assert found == theirs(text).input_ids
        assert model.modalities["text"].raw(np.array(found)) == theirs.decode(found) == text
    embedded = model.embed(SENTENCES)
    with torch.no_grad():
        states = reference.transformer(torch.tensor([theirs(SENTENCES[0]).input_ids])).last_hidden_state
    assert np.allclose(embedded[0], states.mean(1)[0].numpy(), atol=1e-5)
    assert model.generate("The cat", length=4, temperature=0)[0].startswith("The cat")
    assert model.generate("The cat", length=4, seed=3) == sf.load(source).generate("The cat", length=4, seed=3)


def test_padding_changes_no_logits(source):
    model = sf.load_published(source)
    ids = torch.randint(270, (1, 9), generator=torch.Generator().manual_seed(0))
    for pad in ([0, 0, 0, 0], []):
        padded = torch.cat([torch.tensor([pad], dtype=torch.long), ids], 1)
        valid = torch.arange(padded.shape[1])[None] >= len(pad)
        assert torch.allclose(model.logits(padded, valid)[:, len(pad) :], model.logits(ids), atol=1e-5)


@pytest.mark.parametrize("around", [False, True])
def test_what_stands_around_a_text_is_what_the_files_say(source, tmp_path, around):
    folder = tmp_path / "x"
    gpt2(folder)
    theirs = tokenizer(folder, around, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    model = sf.load_published(folder)
    assert model.config.streams["text"].ends == around
    for text in SENTENCES:
        assert model.modalities["text"].tokens(text).values.tolist() == theirs(text).input_ids
    assert model.modalities["text"].tokenizer.specials == {"bos": 0, "eos": 1, "pad": 2}


def test_older_tokenizer_files(copy):
    """vocab.json and merges.txt, as GPT-2's first folder has them."""
    before = sf.load_published(copy).modalities["text"].tokenizer
    record = json.loads((copy / "tokenizer.json").read_text())
    (copy / "vocab.json").write_text(json.dumps(record["model"]["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in record["model"]["merges"]]
    (copy / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (copy / "tokenizer.json").unlink()
    after = sf.load_published(copy).modalities["text"].tokenizer
    for text in SENTENCES:
        assert after.encode(text).values.tolist() == before.encode(text).values.tolist()
    (copy / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match="merges.txt: is missing"):
        sf.load_published(copy)


def test_word_pieces_without_a_tokenizer_json(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "the", "##s", "sat", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertForPreTraining(BertConfig(**shape, vocab_size=64)).save_pretrained(tmp_path)
    change(tmp_path / "config.json", vocab_size=64)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"mask_token": "[MASK]", "pad_token": {"content": "[PAD]"}})
    )
    model = sf.load_published(tmp_path)
    theirs = transformers.BertTokenizer(vocab=dict(zip(words, range(len(words)))))
    for text in ("The cats sat.", "the dog sat", "CAT"):
        assert model.modalities["text"].tokens(text).values.tolist() == theirs(text).input_ids


def test_without_a_tokenizer_it_takes_ids_only(copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    model = sf.load_published(copy)
    assert model.logits(torch.tensor([[1, 2, 3]])).shape == (1, 3, 300)
    with pytest.raises(sf.SevenfoldError, match="came without a tokenizer"):
        model.embed(["a text"])
    assert "came without a tokenizer" in str(pytest.raises(sf.SevenfoldError, model.generate, "a").value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None])
def test_types_of_numbers(source, tmp_path, dtype):
    gpt2().bfloat16().save_pretrained(tmp_path)
    model = sf.load_published(tmp_path, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {torch.float32 if dtype == "float32" else torch.bfloat16}
    with pytest.raises(ConfigError, match="dtype: one of float32"):
        sf.load_published(tmp_path, dtype="int3")


# The way back


def test_published_again(source, tmp_path):
    model = sf.load_published(source)
    sf.publish(model, tmp_path / "again")
    reference = reloaded(type(gpt2()), tmp_path / "again")
    for name, value in gpt2().state_dict().items():
        assert torch.equal(reference.state_dict()[name], value), name
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "again"))
    assert {key: after.get(key) for key in before} == before
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert theirs(SENTENCES[0]).input_ids == transformers.AutoTokenizer.from_pretrained(source)(SENTENCES[0]).input_ids
    with pytest.raises(ConfigError, match="not empty"):
        sf.publish(model, tmp_path / "again")


def test_luggage_travels(tmp_path):
    """A pooler, a next-sentence head and segment B: no part of our model, and none is lost, through a run folder as well."""
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    reference = BertForPreTraining(BertConfig(**shape, vocab_size=300, max_position_embeddings=40)).eval()
    reference.save_pretrained(tmp_path / "bert")
    tokenizer(tmp_path / "bert", True, bos_token="[CLS]", eos_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
    passport = convert(tmp_path / "bert", tmp_path / "ours", say=lambda _: None)
    assert passport.carried and set(passport.carried) <= set(load_file(tmp_path / "bert" / SINGLE))
    model = sf.load(tmp_path / "ours")
    assert len(model.luggage) == len(passport.carried) + 1
    sf.publish(model, tmp_path / "back")
    back = reloaded(BertForPreTraining, tmp_path / "back").state_dict()
    assert all(torch.equal(back[name], value) for name, value in reference.state_dict().items())


def test_the_passport_adds_up(source, tmp_path):
    said: list[str] = []
    passport = convert(source, tmp_path / "ours", verified=True, say=said.append)
    stored = json.loads((tmp_path / "ours" / PASSPORT).read_text())
    assert stored["parameters"] == passport.parameters
    total = sum(value.numel() for value in load_file(source / SINGLE).values())
    assert total == passport.parameters["published"] == passport.parameters["model"]
    digest = hashlib.sha256((source / SINGLE).read_bytes()).hexdigest()
    assert passport.files[SINGLE] == digest and any(digest in line for line in said)
    named = {name for names in passport.tensors.values() for name in names}
    assert named == {f"transformer.{n}" if not n.startswith("transformer.") else n for n in load_file(source / SINGLE)}
    assert passport.differences is not None and list(passport.differences) == ["lm"]
    assert len(passport.differences["lm"]) == 3 and max(passport.differences["lm"]) < 1e-5


def test_verifying_can_fail(source):
    model, _ = opened(source)
    with torch.no_grad():
        model.trunks["lm"].blocks[1].feed.out.bias[3] += 0.5
    away = verify(source, model, family_of(model.published["config"]))["lm"]
    assert max(away[:2]) < 1e-5 and away[2] > 0.1


def test_licence_and_origin(copy, tmp_path):
    (copy / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    passport = convert(copy, tmp_path / "ours", say=lambda _: None)
    assert passport.licence == "mit" and passport.origin == "copy"
    convert(tmp_path / "ours", tmp_path / "back", say=lambda _: None)
    assert "license: mit" in (tmp_path / "back" / "README.md").read_text()


# Shards and memory


def test_shards(source, tmp_path):
    gpt2().save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert (tmp_path / "shards" / INDEX).is_file() and not (tmp_path / "shards" / SINGLE).is_file()
    model, whole = sf.load_published(tmp_path / "shards"), sf.load_published(source)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())
    sf.publish(model, tmp_path / "again", largest=50_000)
    files = sorted((tmp_path / "again").glob("*.safetensors"))
    assert len(files) > 2 and all(file.stat().st_size < 60_000 for file in files)
    again = reloaded(type(gpt2()), tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], value) for name, value in gpt2().state_dict().items())


MEASURE = """
import sys
import sevenfold as sf
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024
sf.load_published(sys.argv[1])  # what is imported
before = anonymous()
model = sf.load_published(sys.argv[2])
print(anonymous() - before, sum(p.numel() for p in model.parameters()) * 4 / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_no_second_copy_in_memory(source, tmp_path):
    """Of 200 MiB of weights, what is joined (query, key, value: nothing in GPT-2) and transposed is made anew; the table of words
    stays in the file."""
    gpt2(tmp_path, vocab_size=200_000, n_embd=256, n_layer=1)
    run = subprocess.run([sys.executable, "-c", MEASURE, source, tmp_path], capture_output=True, text=True, check=True)
    anonymous, weights = map(float, run.stdout.split())
    assert weights > 190 and anonymous < 0.15 * weights, (anonymous, weights)


# The hub


def cached(home: Path, source: Path, name: str = "lab/tiny") -> Path:
    """A hub's cache that holds a published folder, as `huggingface_hub` lays it out; returns the folder of blobs."""
    repo = home / "hub" / f"models--{name.replace('/', '--')}"
    revision = "0" * 40
    snapshot = repo / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(revision)
    for file in source.iterdir():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, repo / "blobs" / digest)
        (snapshot / file.name).symlink_to(f"../../blobs/{digest}")
    return repo / "blobs"


def offline(home: Path, *words: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-m", "sevenfold", *words], env=env, capture_output=True, text=True)


def test_an_id_is_read_from_the_cache_without_a_network(source, tmp_path):
    blobs = cached(tmp_path / "home", source)
    done = offline(tmp_path / "home", "convert", "lab/tiny", str(tmp_path / "ours"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lab/tiny: gpt2")
    assert sf.load(tmp_path / "ours").published["origin"] == "lab/tiny"
    data, out = str(text_file(tmp_path, 3000)), str(tmp_path / "run")
    done = offline(tmp_path / "home", "pretrain", data, "--from", "lab/tiny", "--minutes", "0.02", "--out", out)
    assert done.returncode == 0, done.stderr
    assert sf.load(tmp_path / "run").published["origin"] == "lab/tiny"
    other = offline(tmp_path / "home", "convert", "lab/another", str(tmp_path / "more"))
    assert other.returncode == 2 and "lab/another: is no folder here" in other.stderr and other.stderr.count("\n") == 1
    weights = blobs / hashlib.sha256((source / SINGLE).read_bytes()).hexdigest()
    content = bytearray(weights.read_bytes())
    content[-7] ^= 4
    weights.write_bytes(content)
    flipped = offline(tmp_path / "home", "generate", "lab/tiny", "The cat", "--length", "2")
    assert flipped.returncode == 2 and "has changed since it was fetched" in flipped.stderr


# Bad input


def test_an_architecture_that_nobody_reads(copy):
    change(copy / "config.json", model_type="gpt22")
    with pytest.raises(
        ConfigError, match=r"config.json: no family here reads the architecture 'gpt22'; did you mean 'gpt2'"
    ):
        sf.load_published(copy)
    change(copy / "config.json", model_type=None)
    with pytest.raises(ConfigError, match="says no model_type"):
        sf.load_published(copy)
    (copy / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="is not the config of a model"):
        sf.load_published(copy)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"n_embd": 64}, r"has shape \[.*\] as published, and"),
        ({"vocab_size": 301}, r"shape \[300, 32\] as published, and \[301, 32\] in the model"),
        ({"n_layer": 3}, "lack 'transformer.h.2.ln_1.weight'"),
        ({"n_layer": 1}, "hold 'transformer.h.1.*no place"),
        ({"n_layer": 10**9}, "n_layer"),
        ({"n_layer": 4096}, "lack 'transformer.h.2"),
        ({"n_head": 5}, "5 heads do not divide"),
        ({"activation_function": "relu"}, "activation_function"),
    ],
)
def test_a_config_that_is_not_of_these_weights(copy, fields, told):
    change(copy / "config.json", **fields)
    with pytest.raises(sf.SevenfoldError, match=told) as caught:
        sf.load_published(copy)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_there_or_not_whole(copy, source, tmp_path):
    whole = (copy / SINGLE).read_bytes()
    for broken in (whole[:-100], whole[:50], b"", b"\xff" * 64, whole[:9] + b"}" + whole[10:]):
        (copy / SINGLE).write_bytes(broken)
        with pytest.raises(CheckpointError, match="model.safetensors: not a whole safetensors file"):
            sf.load_published(copy)
    (copy / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="model.safetensors: is missing"):
        sf.load_published(copy)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        sf.load_published(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is a file"):
        sf.load_published(source / SINGLE)


def test_a_flipped_bit_in_a_folder_of_ours(source, tmp_path):
    sf.publish(sf.load_published(source), tmp_path / "mine")
    path = tmp_path / "mine" / SINGLE
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its content has changed"):
        sf.load_published(tmp_path / "mine")


def test_shards_that_do_not_belong_together(tmp_path):
    gpt2().save_pretrained(tmp_path, max_shard_size="40KB")
    index = json.loads((tmp_path / INDEX).read_text())
    first, second = sorted(set(index["weight_map"].values()))[:2]

    def refused(weight_map: dict, told: str) -> None:
        change(tmp_path / INDEX, weight_map=weight_map)
        with pytest.raises(CheckpointError, match=told):
            sf.load_published(tmp_path)

    name = next(iter(index["weight_map"]))
    refused({**index["weight_map"], name: "../outside.safetensors"}, "not a safetensors file of this folder")
    refused({**index["weight_map"], name: "/etc/passwd"}, "not a safetensors file of this folder")
    refused({**index["weight_map"], "more": first}, f"{first}: lacks 'more'")
    refused({key: value for key, value in index["weight_map"].items() if key != name}, f"does not name '{name}'")
    refused({}, "has no weight_map")
    change(tmp_path / INDEX, weight_map=index["weight_map"])
    shutil.copy(tmp_path / first, tmp_path / second)
    with pytest.raises(CheckpointError, match="and so does another shard"):
        sf.load_published(tmp_path)
    (tmp_path / second).unlink()
    with pytest.raises(CheckpointError, match=f"{second}: is missing: the index names it"):
        sf.load_published(tmp_path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


def test_pickles_are_refused_and_not_opened(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "ran"))
    (copy / SINGLE).unlink()
    torch.save({"wte.weight": Bomb()}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is a pickle.*save it as safetensors"):
        sf.load_published(copy)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_folder_is_not_run(copy, tmp_path):
    (copy / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    change(copy / "config.json", auto_map={"AutoModel": "modeling_evil.Evil"})
    sf.load_published(copy)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_of_another_vocabulary(copy):
    record = json.loads((copy / "tokenizer.json").read_text())
    record["model"]["vocab"] |= {f"more{i}": 270 + i for i in range(50)}
    (copy / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="tokenizer of another vocabulary: it has 320 ids, the model 300"):
        sf.load_published(copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json: is not a tokenizer"):
        sf.load_published(copy)


def test_a_head_that_is_not_tied(copy):
    state = load_file(copy / SINGLE)
    name = next(name for name in state if name.endswith("wte.weight"))
    save_file({**state, "lm_head.weight": state[name].clone()}, copy / SINGLE)
    sf.load_published(copy)
    save_file({**state, "lm_head.weight": state[name] + 1}, copy / SINGLE)
    with pytest.raises(CheckpointError, match="the head is not tied"):
        sf.load_published(copy)


def test_numbers_that_are_not_finite(copy, tmp_path):
    state = load_file(copy / SINGLE)
    next(iter(state.values())).view(-1)[3] = float("nan")
    save_file(state, copy / SINGLE)
    with pytest.raises(CheckpointError, match="not finite"):
        convert(copy, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_head_that_is_not_published_is_said(tmp_path):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    BertModel(BertConfig(**shape, vocab_size=300, max_position_embeddings=40)).save_pretrained(tmp_path / "bert")
    tokenizer(tmp_path / "bert", True, bos_token="[CLS]", eos_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
    data = {"kind": "text", "path": str(text_file(tmp_path))}
    recipe = {
        "start": str(tmp_path / "bert"),
        "data": data,
        "objective": "masked_token",
        "train": {"steps": 1, "batch": 2},
    }
    sf.train(recipe, out=tmp_path / "run", say=lambda _: None, bar=False)
    said: list[str] = []
    passport = convert(tmp_path / "run", tmp_path / "back", say=said.append)
    assert passport.unpublished == ("heads.text",) and any(line.startswith("not published") for line in said)
    reloaded(BertModel, tmp_path / "back")


def test_what_cannot_be_published(source, tmp_path):
    model = sf.load_published(source)
    model.published = {}
    with pytest.raises(ConfigError, match="of no published family"):
        sf.publish(model, tmp_path / "a")
    with pytest.raises(ConfigError, match="is there already"):
        convert(source, source)
