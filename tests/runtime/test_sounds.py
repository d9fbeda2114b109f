"""Sound files of every common kind to waveforms, and what is no whole sound."""

from __future__ import annotations

import inspect
import io
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from fmrt.bundle.manifest import AudioInput
from fmrt.data import read_records
from fmrt.errors import InputError
from fmrt.preprocess.audio import AudioPreprocessor, Sounds, decode

RATE = 16_000
# Largest error of a decoded tone: rounding to the format's bits, or what lossy formats lose.
KINDS = {
    ("WAV", "PCM_16"): 1e-4,
    ("WAV", "PCM_U8"): 1e-2,
    ("WAV", "FLOAT"): 1e-5,
    ("AIFF", "PCM_16"): 1e-4,
    ("W64", "PCM_16"): 1e-4,
    ("CAF", "PCM_16"): 1e-4,
    ("AU", "PCM_16"): 1e-4,
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


def whole(data: bytes) -> np.ndarray:
    return decode(data, RATE, 10 * RATE).samples


def with_length(data: bytes, chunk: bytes, length: int) -> bytes:
    """A file of chunks, of which one states another length."""
    place = data.index(chunk) + 4
    order = "little" if data[:2] == b"RI" else "big"
    return data[:place] + length.to_bytes(4, order) + data[place + 4 :]


@pytest.mark.parametrize("length", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
@pytest.mark.parametrize(("kind", "chunk"), [("WAV", b"data"), ("AIFF", b"SSND")])
def test_a_placeholder_for_a_length_means_that_nobody_knows(
    kind: str, chunk: bytes, length: int
) -> None:
    data = encoded((kind, "PCM_16"), RATE)
    piped = with_length(with_length(data, chunk, length), data[:4], length)
    assert np.array_equal(whole(piped), whole(data))


def test_placeholders_of_64_bits() -> None:
    data = encoded(("RF64", "PCM_16"), RATE)
    for byte in (b"\0", b"\xff"):
        place = data.index(b"ds64") + 8
        piped = data[:place] + byte * 24 + data[place + 24 :]
        assert np.array_equal(whole(piped), whole(data))
    for kind, name in (("CAF", 4), ("W64", 16)):
        data = encoded((kind, "PCM_16"), RATE)
        place = data.index(b"data") + name
        piped = data[:place] + b"\xff" * 8 + data[place + 8 :]
        assert np.array_equal(whole(piped), whole(data))


@pytest.mark.parametrize("stated", [0, 2**36 - 1, 100])
def test_a_flac_is_decoded_to_its_end_whatever_it_states(stated: int) -> None:
    data = encoded(("FLAC", "PCM_16"), RATE)
    number = bytes([data[21] & 0xF0 | stated >> 32]) + (stated & 0xFFFF_FFFF).to_bytes(4, "big")
    other = data[:21] + number + data[26:]
    assert np.array_equal(whole(other), whole(data))
    assert decode(other, RATE, RATE // 2).length == 2 * RATE


@pytest.mark.parametrize("kind", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_recordings_that_were_joined_are_decoded_to_their_end(kind: tuple[str, str]) -> None:
    first, second = encoded(kind, RATE), encoded(kind, 48_000 if kind[0] == "OGG" else RATE)
    got = whole(first + second)
    assert abs(len(got) - 4 * RATE) < 0.15 * RATE  # what an MP3's decoder needs to begin
    assert np.array_equal(got[: RATE // 2], whole(first)[: RATE // 2])
    assert decode(first + second, RATE, RATE).length == pytest.approx(len(got), abs=2)
    for cut in (first[:-100] + second, first + second[: len(second) // 2]):
        if kind[0] == "OGG":
            with pytest.raises(InputError, match="truncated"):
                decode(cut, RATE, 10 * RATE)


def test_an_mp3_without_a_header_has_the_frames_that_it_has() -> None:
    """Its length is otherwise guessed from the first frame's bit rate."""
    if "bitrate_mode" not in inspect.signature(soundfile.write).parameters:
        pytest.skip("this soundfile writes no MP3 of a chosen bit rate")
    files = []
    for level in (0.0, 0.9):
        out = io.BytesIO()
        soundfile.write(
            out, tone(44_100), 44_100, "MPEG_LAYER_III", format="MP3",
            bitrate_mode="CONSTANT", compression_level=level,
        )  # fmt: skip
        files.append(out.getvalue())
    lengths = [len(whole(data)) for data in files]
    for parts in (files, files[::-1]):
        assert len(whole(b"".join(parts))) == pytest.approx(sum(lengths), abs=2500)


def test_a_file_may_have_more_channels_than_an_array() -> None:
    out = io.BytesIO()
    soundfile.write(out, np.tile(tone(RATE)[:, None], 16), RATE, "PCM_24", format="WAV")
    assert np.abs(whole(out.getvalue()) - tone(RATE)).max() < 1e-6
    with pytest.raises(InputError, match="16 channels"):
        decode(np.zeros((100, 16), np.float32), RATE, RATE)


def test_sounds_are_told_by_their_content(tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS):
        (tmp_path / f"{number}.dat").write_bytes(encoded(kind, RATE))
    others = {
        "a.m4a": b"\0\0\0\x20ftypM4A ",
        "b.txt": "a text".encode("utf-16"),
        "c.avi": b"RIFF\x24\0\0\0AVI LIST",
        "d": b"",
        "e": b"\xff\xfb\x90\xc4" + bytes(100),
    }
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    records = read_records(str(tmp_path), modality="audio")
    assert len(list(records)) == len(KINDS)
    assert sorted(file.path for file in records.passed_over) == sorted(others)
