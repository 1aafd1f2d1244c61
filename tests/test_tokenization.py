"""Tokenizers, each against an oracle. What every one of them must do is checked by the conformance kit (test_rooms)."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sevenfold.blocks.tokenization import Tokenizer
from sevenfold.core.errors import CheckpointError, ConfigError, DataError
from sevenfold.core.part import decode, find

TEXT = ["bytes", "bpe", "wordpiece"]
quick = settings(max_examples=60, deadline=None)


def made(kind: str, raws=None, **settings) -> Tokenizer:
    """A tokenizer of this kind that can encode."""
    part = find("tokenization", kind)
    tokenizer = decode(part.Config, settings).build()
    if not tokenizer.ready:
        tokenizer.fit(part.example(0) if raws is None else raws)
    return tokenizer


def there_and_back(tokenizer: Tokenizer, raw):
    """An item encoded and decoded."""
    tokens = tokenizer.encode(raw)
    return tokenizer.decode(tokens.values, tokens.coords)


def error_of(action, kind=ValueError) -> str:
    """The message of the error that an action raises; one line."""
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Text


@given(st.text())
@quick
def test_bytes_are_utf8(text):
    tokenizer = made("bytes")
    values = tokenizer.encode(text).values
    assert values.tolist() == list(text.encode())
    assert tokenizer.decode(values) == text


def test_bytes_of_wrong_utf8_are_replaced_and_surrogates_refused():
    tokenizer = made("bytes")
    assert tokenizer.decode(np.array([0xFF, 65])) == "\ufffdA"
    error_of(lambda: tokenizer.encode("a\ud800"))


BPE = made("bpe")


@given(st.text())
@quick
def test_bpe_is_lossless_on_any_text(text):
    assert BPE.decode(BPE.encode(text).values) == text


@pytest.mark.parametrize(
    "text", ["<pad>", "a<eos><bos> b", "[CLS] x [MASK]", "  \r\n\t x ", "\x00\u200d\U0001f600", ""]
)
def test_spelled_out_special_tokens_are_text(text):
    assert BPE.decode(BPE.encode(text).values) == text
    for kind in TEXT:
        tokenizer = made(kind)
        assert not set(tokenizer.encode(text).values.tolist()) & (set(tokenizer.specials.values()) - {1})


def test_bpe_merges_as_counting_pairs_says():
    words = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    tokenizer = made("bpe", words, size=264)
    split = [list(word) for word in words]
    for id in range(260, 264):
        counts: dict = {}
        for word in split:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda pair: (counts[pair], [-tokenizer.inner.token_to_id(one) for one in pair]))
        assert tokenizer.piece(id) == "".join(best)
        for word in split:
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = ["".join(best)]
                place += 1


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_saved_file_is_one_that_hugging_face_reads(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = made(kind)
    tokenizer.save(tmp_path)
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for name, id in tokenizer.specials.items():
        assert getattr(fast, f"{name}_token_id") == id
    for text in [*type(tokenizer).example(5), "Unknown wörds, 東京 and\nlines!"]:
        ids = tokenizer.encode(text).values.tolist()
        assert alone.encode(text).ids == ids
        assert fast(text, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_sizes_are_kept_and_little_data_is_fine(kind):
    raws = find("tokenization", kind).example(0)
    assert made(kind, raws, size=300).size == 300 if kind == "bpe" else made(kind, raws, size=80).size == 80
    for few in (["a"], []):
        tokenizer = made(kind, few)
        assert tokenizer.size >= 5
        tokenizer.encode("anything at all")
    assert error_of(lambda: made(kind, size=10), ConfigError).startswith("size")


def test_wordpiece_is_greedy_longest_match():
    tokenizer = made("wordpiece", ["hug pug hugs bun pun bugs"] * 3, size=64)
    pieces = {tokenizer.piece(id) for id in range(tokenizer.size)}

    def spell(word):
        found, rest = [], word
        while rest:
            end = max((n for n in range(1, len(rest) + 1) if ("##" if found else "") + rest[:n] in pieces), default=0)
            if not end:
                return ["<unk>"]
            found.append(("##" if found else "") + rest[:end])
            rest = rest[end:]
        return found

    for word in ["hug", "hugs", "bugs", "gun", "snug", "xug", "pugx"]:
        ids = tokenizer.encode(word).values
        assert [tokenizer.piece(id) for id in ids.tolist()] == spell(word)
    assert tokenizer.decode(tokenizer.encode("HUGS Pun").values) == "hugs pun"
    cased = made("wordpiece", ["Hug hug"] * 3, lowercase=False)
    assert cased.decode(cased.encode("Hug hug").values) == "Hug hug"


def test_wordpiece_never_exceeds_its_size_or_alphabet():
    raws = ["".join(chr(0x4E00 + n) for n in range(start, start + 50)) for start in range(0, 500, 50)]
    raws += ["".join(chr(0x3B1 + n) for n in range(20))]
    assert made("wordpiece", raws, size=100).size <= 100
    small = made("wordpiece", raws, alphabet=3)
    assert {piece for piece in map(small.piece, range(small.size)) if len(piece) == 1} == {"α", "β", "γ"}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_training_is_the_same_in_another_process(kind, tmp_path):
    here = made(kind, find("tokenization", kind).example(9) * 2)
    here.save(tmp_path)
    code = (
        "import sys; from sevenfold.core.part import find\n"
        f"part = find('tokenization', '{kind}'); t = part.Config().build(); t.fit(part.example(9) * 2)\n"
        "sys.stdout.buffer.write(t.inner.to_str(pretty=True).encode())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert there == (tmp_path / "tokenizer.json").read_bytes()


def test_a_text_tokenizer_of_another_kind_is_refused(tmp_path):
    made("wordpiece").save(tmp_path)
    assert "not a bpe" in error_of(
        lambda: find("tokenization", "bpe").Config().build().restore(tmp_path), CheckpointError
    )


# Pictures


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("height", "width", "channels", "patch"), [(8, 12, 3, 4), (6, 4, 1, 2), (5, 7, 2, 1), (8, 8, 4, 8)]
)
def test_patch_is_unfold(height, width, channels, patch):
    image = noise(height, width, channels)
    tokenizer = made("patch", [image], patch=patch, mean=0.4, std=0.3)
    values, coords = tokenizer.encode(image)[:2]
    columns = torch.nn.functional.unfold(torch.from_numpy(image).permute(2, 0, 1)[None], patch, stride=patch)[0]
    expected = columns.T.reshape(-1, channels, patch * patch).transpose(1, 2).reshape(len(values), -1)
    np.testing.assert_allclose(values, (expected.numpy() - 0.4) / 0.3, atol=1e-6)
    assert coords.tolist() == [[r, c] for r in range(height // patch) for c in range(width // patch)]
    np.testing.assert_array_equal(tokenizer.layout(), coords)
    for places in (coords, None):
        np.testing.assert_allclose(tokenizer.decode(values, places), image, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(values))
    np.testing.assert_allclose(tokenizer.decode(values[order], coords[order]), image, atol=1e-6)


def test_patch_of_bytes_and_floats_is_the_same():
    image = (noise(8, 8, 3) * 255).astype(np.uint8)
    tokenizer = made("patch", [image])
    np.testing.assert_array_equal(
        tokenizer.encode(image).values, tokenizer.encode(image.astype(np.float32) / 255).values
    )
    assert ((there_and_back(tokenizer, image) * 255).round() == image).all()


def test_patch_leaves_out_what_is_beyond_the_last_whole_patch():
    image = noise(11, 14, 3)
    cut, whole = (
        find("tokenization", "patch").Config(patch=4, channels=3, trim=trim).build() for trim in (True, False)
    )
    ours, theirs = cut.encode(image), whole.encode(image[:8, :12])
    assert np.array_equal(ours.values, theirs.values) and np.array_equal(ours.coords, theirs.coords)
    assert "not a whole number of 4 by 4 patches" in error_of(lambda: cut.encode(noise(3, 14, 3)))


def test_patch_may_be_told_its_cells(tmp_path):
    told = find("tokenization", "patch").Config(patch=4, channels=3, cells=(2, 3)).build()
    assert told.layout().tolist() == [[row, column] for row in range(2) for column in range(3)]
    told.save(tmp_path)
    again = find("tokenization", "patch").Config(patch=4).build()
    again.restore(tmp_path)
    assert again.cells == (2, 3)
    assert told.decode(told.encode(noise(8, 12, 3)).values).shape == (8, 12, 3)


def test_patches_that_are_missing_are_black():
    image = noise(8, 8, 1) * 0.5 + 0.5
    tokenizer = made("patch", [image])
    values, coords = tokenizer.encode(image)[:2]
    back = tokenizer.decode(values[2:3], coords[2:3])
    assert back.shape == (8, 8, 1)
    np.testing.assert_allclose(back[4:, :4], image[4:, :4], atol=1e-6)
    assert (back[:4] == 0).all()


def test_patch_says_what_is_wrong():
    tokenizer = made("patch", channels=3)
    assert tokenizer.features == 48
    assert "crop or pad" in error_of(lambda: tokenizer.encode(noise(8, 10, 3)))
    assert "1 channels" in error_of(lambda: tokenizer.encode(noise(8, 8, 1)))
    assert "rescale" in error_of(lambda: tokenizer.encode(noise(8, 8, 3) * 255))
    assert "rescale" in error_of(lambda: tokenizer.encode(noise(8, 8, 3) * np.nan))
    assert "convert" in error_of(lambda: tokenizer.encode(np.zeros((8, 8, 3), np.int64)))
    assert "shape" in error_of(lambda: tokenizer.encode(np.zeros((0, 8, 3), np.uint8)))
    assert "shape" in error_of(lambda: tokenizer.encode(np.zeros(8, np.uint8)))
    assert "1 and 3" in error_of(lambda: made("patch", [noise(8, 8, 1), noise(8, 8, 3)]), DataError)
    assert "missing" in error_of(lambda: made("patch", []), DataError)
    assert made("patch", [noise(8, 8, 1), noise(8, 12, 1)]).layout() is None
    assert "grey" in error_of(lambda: made("binary_patch", [noise(8, 8, 3)]), DataError)


def test_patch_restores_only_its_own(tmp_path):
    made("patch", [noise(8, 8, 1)]).save(tmp_path)
    other = find("tokenization", "patch").Config(patch=2).build()
    assert "patches of 4, not 2" in error_of(lambda: other.restore(tmp_path), CheckpointError)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_binary_patch_counts_in_bits(patch):
    image = (noise(6, 12, 1) > 0.5).astype(np.float32)
    tokenizer = made("binary_patch", [image], patch=patch)
    assert tokenizer.size == 2 ** (patch * patch) + 4
    values, coords = tokenizer.encode(image)[:2]
    for id, (row, column) in zip(values, coords):
        bits = image[row * patch :, column * patch :][:patch, :patch].reshape(-1)
        assert id == int("".join(str(int(bit)) for bit in bits), 2)
    np.testing.assert_array_equal(tokenizer.decode(values, coords), image)
    np.testing.assert_array_equal(tokenizer.decode(values), image)


def test_binary_patch_has_a_threshold():
    tokenizer = made("binary_patch", patch=1)
    assert tokenizer.encode(np.array([[0, 127, 128, 255]], np.uint8)).values.tolist() == [0, 0, 1, 1]
    assert tokenizer.encode(np.array([[False, True]])).values.tolist() == [0, 1]
    assert made("binary_patch").piece(6) == ".#/#."


@pytest.mark.parametrize("channels", [1, 3])
def test_quantized_patch_takes_the_nearest(channels):
    images = [noise(8, 12, channels, seed=seed) for seed in range(6)]
    tokenizer = made("quantized_patch", images, size=16)
    assert tokenizer.size == 20
    assert tokenizer.codebook.shape == (16, 4 * channels)
    for image in images:
        values, coords = tokenizer.encode(image)[:2]
        patches = [image[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(-1) for r, c in coords]
        distances = [[float(((p - e).astype(np.float64) ** 2).sum()) for e in tokenizer.codebook] for p in patches]
        assert values.tolist() == np.argmin(distances, axis=1).tolist()
        back = tokenizer.decode(values)
        np.testing.assert_array_equal(back, tokenizer.decode(values, coords))
        assert (tokenizer.encode(back).values == values).all()
        assert np.square(back - image).mean() < np.square(image - image.mean()).mean()


def test_quantized_patch_with_few_patches_keeps_them_all():
    images = find("tokenization", "binary_patch").example(0)
    tokenizer = made("quantized_patch", images)
    assert tokenizer.size <= 16 + 4
    for image in images:
        np.testing.assert_array_equal(there_and_back(tokenizer, image), image)


def test_quantized_patch_learns_from_many_pictures_on_mini_batches(monkeypatch):
    images = [noise(16, 16, 1, seed=seed) for seed in range(10)]
    whole = made("quantized_patch", images, size=32)
    monkeypatch.setattr("sevenfold.blocks.tokenization.quantized_patch.SMALL", 10)
    first, second = (made("quantized_patch", images, size=32) for _ in range(2))
    np.testing.assert_array_equal(first.codebook, second.codebook)
    errors = [
        np.mean([np.square(there_and_back(tokenizer, image) - image) for image in images])
        for tokenizer in (first, whole)
    ]
    assert errors[0] < 1.2 * errors[1]


def test_quantized_patch_depends_on_its_seed_only():
    images = [noise(16, 16, 1, seed=seed) for seed in range(10)]
    books = [made("quantized_patch", images, size=32, seed=seed).codebook for seed in (0, 0, 1)]
    np.testing.assert_array_equal(books[0], books[1])
    assert not np.array_equal(books[0], books[2])


# DNA, proteins


def loop_of_kmers(text: str, k: int, overlap: bool) -> list[str]:
    """The words that a k-mer tokenizer should give, spelled out."""
    if overlap and len(text) >= k:
        words = [text[start : start + k] for start in range(len(text) - k + 1)]
        return [word if set(word) <= set("ACGT") else "<unk>" for word in words]
    found = []
    for start in range(0, len(text), k):
        word = text[start : start + k]
        whole = len(word) == k and set(word) <= set("ACGT")
        found += [word] if whole else [letter if letter in "ACGTN" else "<unk>" for letter in word]
    return found


@given(st.text("ACGTNR", max_size=40), st.integers(1, 4), st.booleans())
@quick
def test_kmer_is_the_plain_loop(text, k, overlap):
    tokenizer = made("kmer", k=k, overlap=overlap)
    values = tokenizer.encode(text).values.tolist()
    assert [tokenizer.piece(id) for id in values] == loop_of_kmers(text, k, overlap)


@given(st.text("ACGTN", max_size=60), st.integers(1, 7))
@quick
def test_kmer_side_by_side_loses_nothing(text, k):
    tokenizer = made("kmer", k=k)
    assert tokenizer.decode(tokenizer.encode(text).values) == text


@given(st.text("ACGT", max_size=60), st.integers(1, 5))
@quick
def test_kmer_overlapping_loses_nothing_of_acgt(text, k):
    tokenizer = made("kmer", k=k, overlap=True)
    assert tokenizer.decode(tokenizer.encode(text).values) == text


def test_kmer_overlapping_finds_the_bases_around_an_n():
    tokenizer = made("kmer", k=3, overlap=True)
    assert tokenizer.decode(tokenizer.encode("ACGTNACGT").values) == "ACGTNACGT"


def test_kmer_sizes_cases_and_errors():
    assert [made("kmer", k=k).size for k in (1, 2, 6)] == [10, 5 + 16 + 5, 5 + 4096 + 5]
    tokenizer = made("kmer", k=1)
    assert [tokenizer.piece(id) for id in range(5, 10)] == list("ACGTN")
    assert tokenizer.decode(tokenizer.encode("acgtnRy").values) == "ACGTNNN"
    assert "'U' at position 2" in error_of(lambda: tokenizer.encode("ACU"))
    assert "'é' at position 1" in error_of(lambda: tokenizer.encode("Aé"))
    assert "' ' at position 0" in error_of(lambda: tokenizer.encode(" \ud800"))


def test_residue_is_esm(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = made("residue")
    tokenizer.save(tmp_path)
    esm = transformers.EsmTokenizer(str(tmp_path / "vocab.txt"))
    assert len(esm) == tokenizer.size
    assert esm.get_vocab() == {tokenizer.piece(id): id for id in range(tokenizer.size)}
    names = {"pad": "pad", "unk": "unk", "bos": "cls", "eos": "eos", "mask": "mask"}
    assert {ours: getattr(esm, f"{theirs}_token_id") for ours, theirs in names.items()} == tokenizer.specials
    for raw in [*type(tokenizer).example(4), "LAGVSERTIDPKQNFYMHWCXBUZO.-"]:
        assert esm(raw, add_special_tokens=False)["input_ids"] == tokenizer.encode(raw).values.tolist()


@given(st.text("LAGVSERTIDPKQNFYMHWCXBUZO.-"))
@quick
def test_residue_loses_nothing(text):
    tokenizer = made("residue")
    assert tokenizer.decode(tokenizer.encode(text).values) == text


def test_residue_cases_and_errors():
    tokenizer = made("residue")
    assert tokenizer.decode(tokenizer.encode("mkJ*").values) == "MKXX"
    assert "'1' at position 1" in error_of(lambda: tokenizer.encode("M1"))
    assert "'Ω' at position 0" in error_of(lambda: tokenizer.encode("Ω"))


# Labels and numbers


def test_category_sorts_and_lists():
    tokenizer = made("category", ["b", "a", 10, 9, "b", np.int64(9), np.str_("a")])
    assert tokenizer.labels == [9, 10, "a", "b"]
    assert [tokenizer.decode(tokenizer.encode(raw).values) for raw in (9, "b")] == [9, "b"]
    assert tokenizer.encode("a").coords.shape == (1, 0)
    assert "known: 9, 10, 'a', 'b'" in error_of(lambda: tokenizer.encode("9"))
    assert "80 more" in error_of(lambda: made("category", range(100)).encode(-1))
    error_of(lambda: tokenizer.encode(1.5))
    error_of(lambda: made("category", []), DataError)


def test_number_is_standardised():
    raws = np.random.default_rng(0).normal(-3, 7, 100)
    tokenizer = made("number", raws)
    scaled = np.concatenate([tokenizer.encode(raw).values for raw in raws])
    np.testing.assert_allclose(scaled[:, 0], (raws - raws.mean()) / raws.std(), rtol=1e-5)
    np.testing.assert_allclose([tokenizer.decode(row) for row in scaled], raws, rtol=1e-5)
    same = made("number", [4, 4, 4])
    assert (same.mean, same.std) == (4.0, 1.0)
    for wrong in (float("nan"), float("inf"), "many", 10**400, 1e300):
        assert "number" in error_of(lambda raw=wrong: tokenizer.encode(raw))
    error_of(lambda: made("number", []), DataError)


@pytest.mark.parametrize("kind", TEXT)
def test_it_can_be_sent_to_the_workers_of_a_loader(kind):
    """Processes that are started afresh get a pickled copy; it still takes spelled out special tokens for text."""
    tokenizer = made(kind)
    other = pickle.loads(pickle.dumps(tokenizer))
    raw = type(tokenizer).example(0)[0]
    raw = raw + "<eos>[SEP]"
    np.testing.assert_array_equal(other.encode(raw).values, tokenizer.encode(raw).values)


def test_no_tokenizer_imports_torch():
    folder = Path(sys.modules["sevenfold.blocks.tokenization"].__file__ or "").parent
    assert not [file.name for file in folder.glob("*.py") if "import torch" in file.read_text()]
