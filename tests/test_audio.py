"""Sound: frames against Whisper's, companding against its closed form, files, bad input."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from sevenfold.blocks.tokenization.log_mel import mel_filters
from sevenfold.blocks.tokenization.mu_law import sounds
from sevenfold.core.errors import BadSample, DataError
from sevenfold.core.part import find
from sevenfold.data.source.audio import read_sound


@pytest.mark.parametrize(("mels", "bins", "rate"), [(80, 201, 16000), (40, 101, 8000), (128, 201, 16000)])
def test_filters_are_slaneys(mels, bins, rate):
    from transformers.audio_utils import mel_filter_bank

    wanted = mel_filter_bank(bins, mels, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    assert np.abs(mel_filters(mels, bins, rate) - wanted.T).max() < 1e-10


def test_frames_are_whispers():
    from transformers import WhisperFeatureExtractor

    twin, made = WhisperFeatureExtractor(feature_size=80), find("tokenization", "log_mel").Config().build()
    for sound in sounds(1, 3, 8000):
        sound = sound[: len(sound) // 160 * 160]
        wanted = twin._np_extract_fbank_features(sound[None], "cpu")[0].T
        found = made.encode(sound).values
        assert found.shape == wanted.shape == (len(sound) // 160, 80)
        assert np.abs(found - wanted).max() < 1e-5


def test_frames_are_stacked_in_order():
    one, three = (find("tokenization", "log_mel").Config(stack=stack).build() for stack in (1, 3))
    sound = sounds(2)[0][:1600]
    frames = one.encode(sound).values
    assert np.array_equal(three.encode(sound).values[:3].reshape(9, 80), frames[:9])
    assert np.array_equal(three.encode(sound).values[3].reshape(3, 80), np.repeat(frames[9:], 3, axis=0))
    assert one.encode(sound[:1]).values.shape == (1, 80)


def test_centred_frames_do_not_know_how_loud_or_through_what():
    plain, centred = (
        find("tokenization", "log_mel").Config(rate=8000, mels=20, centre=c).build() for c in (False, True)
    )
    sound = sounds(4)[0][:4000]
    heard, frames = plain.encode(sound).values, centred.encode(sound).values
    assert np.allclose(frames, heard - heard.mean(axis=0), atol=1e-6)
    assert np.abs(plain.encode(sound / 4).values - heard).mean() > 0.2
    assert np.abs(centred.encode(sound / 4).values - frames).mean() < 1e-3


def test_what_is_quieter_than_the_range_is_as_quiet_as_that():
    whole, narrow = (find("tokenization", "log_mel").Config(rate=8000, range=r).build() for r in (80.0, 30.0))
    sound = np.concatenate([sounds(4)[0][:4000], 1e-3 * np.random.default_rng(0).standard_normal(4000)])
    heard, frames = whole.encode(sound).values, narrow.encode(sound).values
    assert np.array_equal(frames, np.maximum(heard, heard.max() - np.float32(30 / 40)))
    assert np.ptp(frames[-40:]) == 0 < np.ptp(heard[-40:])


def test_a_decoded_sound_has_nearly_the_frames_it_came_from():
    made = find("tokenization", "log_mel").Config().build()
    for sound in sounds(3, 3, 6400):
        frames = made.encode(sound).values
        again = made.encode(made.decode(frames)).values
        assert np.abs(again - frames).mean() < 0.1 < np.abs(frames - frames.mean()).mean()


def test_companding_is_its_closed_form():
    made = find("tokenization", "mu_law").Config().build()
    x = np.linspace(-1, 1, 2001).astype(np.float32)
    wanted = [
        int(np.floor((np.sign(v) * np.log(1 + 255 * abs(v)) / np.log(256) + 1) / 2 * 255 + 0.5))
        for v in x.astype(float)
    ]
    assert made.encode(x).values.tolist() == wanted
    back = made.decode(made.encode(x).values)
    assert (np.abs(back - x) <= 0.022 * np.abs(x) + 1e-4).all()
    every = np.arange(256)
    assert np.array_equal(made.encode(made.decode(every)).values, every)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.array([0.0, 1.5]), "rescale it"),
        (np.array([0.0, np.nan]), "rescale it"),
        (np.zeros((5, 2)), "one channel"),
        (np.zeros(5, np.int64), "int16"),
        ("sound", "not str"),
    ],
)
@pytest.mark.parametrize("kind", ["log_mel", "mu_law"])
def test_bad_sounds_are_told(kind, wrong, why):
    with pytest.raises(ValueError, match=why) as caught:
        find("tokenization", kind).Config().build().encode(wrong)
    assert "\n" not in str(caught.value)


def write(path, samples, rate=8000, width=2, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)


def test_files_of_every_width_and_rate(tmp_path):
    import soundfile

    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    for subtype, near in (("PCM_U8", 0.01), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 1e-6)):
        path = tmp_path / f"{subtype}.wav"
        soundfile.write(path, np.stack([tone, tone], axis=1), 8000, subtype)
        assert np.abs(read_sound(path, 8000) - tone).max() < near, subtype
    soundfile.write(tmp_path / "a.flac", tone, 8000)
    up = read_sound(tmp_path / "a.flac", 16000)
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert len(up) == 16000 and np.abs(up - wanted)[200:-200].max() < 2e-3
    assert len(read_sound(tmp_path / "PCM_16.wav", 8000, 0.25)) == 2000


def test_labels_and_damaged_files(tmp_path):
    for place in range(8):
        write(tmp_path / f"{place % 2}_ann_{place}.wav", (np.ones(80 + place) * place).astype("<i2").tobytes())
    (tmp_path / "1_bob_8.wav").write_bytes(b"RIFF1234WAVE")
    write(tmp_path / "0_bob_9.wav", b"")
    source = find("source", "audio")
    made = source.Config(path=str(tmp_path), rate=8000).build()
    labels = {made.where(index).rpartition("/")[2]: made._labels[index] for index in range(len(made))}
    assert labels["1_ann_3.wav"] == "1" and labels["0_ann_2.wav"] == "0" and source.recognises(tmp_path) > 0.5
    bad = {}
    for index in range(len(made)):
        try:
            made[index]
        except BadSample as error:
            bad[made.where(index).rpartition("/")[2]] = error.why
    assert set(bad) == {"1_bob_8.wav", "0_bob_9.wav"} and "empty" in bad["0_bob_9.wav"]
    assert "not a whole .wav" in bad["1_bob_8.wav"] and "\n" not in bad["1_bob_8.wav"]
    with pytest.raises(DataError, match="no such file"):
        read_sound(tmp_path / "none.wav", 8000)
