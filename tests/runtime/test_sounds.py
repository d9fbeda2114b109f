"""Sound files of every common kind to waveforms, and what is no whole sound."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from fmrt.errors import InputError  # noqa: E402
from fmrt.manifest import AudioInput  # noqa: E402
from fmrt.preprocess.audio import AudioPreprocessor, Sounds, decode  # noqa: E402

RATE = 16_000
# Largest error of a decoded tone: rounding to the format's bits, or what lossy formats lose.
KINDS = {
    ("WAV", "PCM_16"): 1e-4,
    ("WAV", "PCM_U8"): 1e-2,
    ("WAV", "FLOAT"): 1e-5,
    ("AIFF", "PCM_16"): 1e-4,
    ("FLAC", "PCM_16"): 1e-4,
    ("OGG", "VORBIS"): 2e-2,
    ("OGG", "OPUS"): 2e-2,
    ("MP3", "MPEG_LAYER_III"): 2e-2,
}
SPEC = AudioInput(RATE, "input_values", 1, RATE, False, False, 0, None, masked=True)


def tone(rate: int) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)


def encoded(kind: tuple[str, str], rate: int) -> bytes:
    out = io.BytesIO()
    stereo = np.stack([tone(rate), 0.5 * tone(rate)], axis=1)
    soundfile.write(out, stereo, rate, format=kind[0], subtype=kind[1])
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_every_kind_is_decoded_mixed_and_resampled(
    kind: tuple[str, str], rate: int, tmp_path: Path
) -> None:
    data = encoded(kind, rate)
    (tmp_path / "sound").write_bytes(data)
    got, length = decode(data, RATE, 10 * RATE)
    assert len(got) == length == 2 * RATE
    middle = slice(1_000, -1_000)
    assert np.abs(got - 0.75 * tone(RATE))[middle].max() <= KINDS[kind]
    assert np.array_equal(decode(tmp_path / "sound", RATE, 10 * RATE).samples, got)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_whole_is_refused(kind: tuple[str, str], tmp_path: Path) -> None:
    data = encoded(kind, RATE)
    # An MP3's length is known to five percent only, and its last frames hold padding.
    most = len(data) // 2 if kind[0] == "MP3" else len(data) * 9 // 10
    for size in (most, len(data) // 2, 60, 10):
        (tmp_path / "sound").write_bytes(data[:size])
        for item in (data[:size], tmp_path / "sound"):
            with pytest.raises(InputError) as e:
                decode(item, RATE, 10 * RATE)
            assert "\n" not in str(e.value)


def test_a_streamed_wav_states_no_size() -> None:
    data = encoded(("WAV", "PCM_16"), RATE)
    place = data.index(b"data")
    streamed = data[:4] + b"\xff" * 4 + data[8 : place + 4] + b"\xff" * 4 + data[place + 8 :]
    found, wanted = (decode(file, RATE, 10 * RATE) for file in (streamed, data))
    assert np.array_equal(found.samples, wanted.samples)


def test_sounds_of_different_lengths_share_a_batch() -> None:
    prepare = AudioPreprocessor(SPEC, None)
    waveforms = [np.full(n, n, np.float32) for n in (5, 3, 4)]
    sounds = prepare.encode([prepare.load(w) for w in waveforms], "", "truncate")
    assert isinstance(sounds, Sounds)
    feeds = sounds.feeds(np.array([1, 0]))
    assert feeds["input_values"].tolist() == [[3, 3, 3, 0, 0], [5, 5, 5, 5, 5]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
