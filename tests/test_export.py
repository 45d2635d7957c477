"""Files that were exported, decoded back: frames, timing, colours, alpha, sound, metadata, and what goes wrong."""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from cosmos_predict25.devtools.clip import moving_clip
from cosmos_predict25.pipeline.clip import FileClip
from cosmos_predict25.pipeline.errors import ExportError, InvalidRequestError
from cosmos_predict25.pipeline.export import export, remux
from cosmos_predict25.pipeline.export.encodings import ENCODINGS, find_encoding
from cosmos_predict25.pipeline.export.export import converted, frame_rate, make_converter
from cosmos_predict25.pipeline.export.tensors import Clip
from cosmos_predict25.pipeline.export.timing import Timing
from cosmos_predict25.pipeline.export.yuv import YuvConverter
from cosmos_predict25.pipeline.request import VIDEO_OUTPUT_TYPES, VIDEO_QUALITIES
from cosmos_predict25.pipeline.video import VideoFile
from cosmos_predict25.tests.posix import only_posix

X264, VP9, PRORES, GIF = VIDEO_OUTPUT_TYPES
SUFFIX = {X264: ".mp4", VP9: ".webm", PRORES: ".mov", GIF: ".gif"}
CONTENT_TYPE = {X264: "video/mp4", VP9: "video/webm", PRORES: "video/quicktime", GIF: "image/gif"}
CODEC = {X264: "h264", VP9: "vp9", PRORES: "prores", GIF: "gif"}
PIXELS = {X264: "yuv420p", VP9: "yuv420p", PRORES: "yuv444p12le", GIF: "bgra"}
PIXELS_WITH_ALPHA = {**PIXELS, VP9: "yuva420p", PRORES: "yuva444p12le"}
AUDIO_CODEC = {X264: "aac", VP9: "opus", PRORES: "pcm_s16le"}
THREADS = Path("/proc/self/task")
METADATA = {"prompt": '{"1": {"class_type": "A"}}', "workflow": '{"nodes": [], "title": "Rocks \u2013 \u5ca9"}'}


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return moving_clip(9, 64, 96)


@pytest.fixture(scope="module")
def textured_clip() -> Tensor:
    return moving_clip(13, 256, 448)


def with_alpha(frames: Tensor) -> Tensor:
    """A soft disc that moves to the right."""
    count, height, width, _ = frames.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = width * (0.3 + 0.4 * torch.arange(count) / count)
    distance = ((columns - centres[:, None, None]) ** 2 + (rows - height / 2) ** 2).sqrt()
    return torch.cat((frames, (1.5 - distance / (height / 3)).clamp(0, 1)[..., None]), -1)


def with_numbers(frames: Tensor) -> Tensor:
    """Each frame with its number in binary in the top row: blocks of 8 pixels, white for 1."""
    marked = frames.clone()
    for index, frame in enumerate(marked):
        for bit in range(6):
            frame[:8, bit * 8 : bit * 8 + 8] = float(index >> bit & 1)
    return marked


def number_in(picture: np.ndarray) -> int:
    return sum(int(picture[2:6, bit * 8 + 2 : bit * 8 + 6, :3].mean() > 0.5) << bit for bit in range(6))


def tone(seconds: float, rate: int = 44100, channels: int = 2) -> dict:
    wave = torch.sin(2 * math.pi * 440 * torch.arange(round(seconds * rate)) / rate) / 2
    return {"waveform": wave.expand(1, channels, -1), "sample_rate": rate}


def pictures(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        if path.suffix != ".webm":
            return list(container.decode(video=0))
        # Only libvpx's own decoder gives VP9's alpha.
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        packets = [packet for packet in container.demux(video=0) if packet.dts is not None]
        frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
        for frame, packet in zip(frames, packets, strict=True):
            frame.time_base = packet.time_base
        return frames


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3 or 4) in 0..1 after ITU-R BT.709-6, item 3, straight from the planes."""
    if frame.format.name == "bgra":
        return frame.to_ndarray(format="rgba").astype(np.float64) / 255
    depth = frame.format.components[0].bits
    planes = []
    for plane in frame.planes:
        samples = np.frombuffer(plane, np.uint8 if depth == 8 else "<u2").reshape(plane.height, -1)[:, : plane.width]
        planes.append(np.repeat(np.repeat(samples, -(-frame.height // plane.height), 0), frame.width // plane.width, 1))
    y, cb, cr = (plane.astype(np.float64) / 2 ** (depth - 8) for plane in planes[:3])
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    alpha = [planes[3] / (2**depth - 1)] if len(planes) == 4 else []
    return np.stack([red, green, blue, *alpha], -1).clip(0, 1)


def psnr(path: Path, frames: Tensor) -> float:
    shown = [rgb(frame)[..., :3] for frame in pictures(path)]
    assert len(shown) == len(frames)
    return -10 * math.log10(np.mean([((a - b.numpy()) ** 2).mean() for a, b in zip(shown, frames, strict=True)]))


def save(frames: Tensor, folder: Path, format: str, **options) -> VideoFile:
    return export(frames, folder / f"video{SUFFIX[format]}", format=format, **options)


@pytest.mark.sample(22)
@pytest.mark.parametrize("sound", [False, True], ids=["silent", "sound"])
@pytest.mark.parametrize("alpha", [False, True], ids=["rgb", "rgba"])
@pytest.mark.parametrize("quality", VIDEO_QUALITIES)
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_every_frame_once_with_its_size_rate_tags_sound_and_metadata(clip, tmp_path, format, quality, alpha, sound):
    frames = with_numbers(clip)
    frames = torch.cat((frames, torch.ones_like(frames[..., :1])), -1) if alpha else frames
    fps = Fraction(25) if format == GIF else Fraction(24000, 1001)
    audio = tone(2.0) if sound else None
    saved = save(frames, tmp_path, format, quality=quality, fps=fps, audio=audio, metadata=METADATA)

    shown = pictures(saved.path)
    assert [number_in(rgb(frame)) for frame in shown] == list(range(9))
    assert {(frame.width, frame.height) for frame in shown} == {(96, 64)}
    assert {frame.format.name for frame in shown} == {(PIXELS_WITH_ALPHA if alpha else PIXELS)[format]}
    with av.open(str(saved.path)) as container:
        video = container.streams.video[0]
        assert video.codec_context.name.removeprefix("lib") == CODEC[format]
        assert video.average_rate == fps
        assert container.duration / 1e6 == pytest.approx(9 / fps, abs=0.03 if sound else 0.0015)
        if format != GIF:
            context = video.codec_context
            tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
            # A MOV has no tag for the range: ProRes is always limited.
            assert [int(tag) for tag in tags] in ([1, 1, 1, 1], [1, 1, 1, 0 if format == PRORES else 1])
            kept = {key.lower(): value for key, value in container.metadata.items()}
            assert {key: kept[key] for key in METADATA} == METADATA
            assert len(container.streams.audio) == sound
        if sound and format != GIF:
            assert_tone(container, AUDIO_CODEC[format], 9 / fps)
    assert ("A GIF has no sound: the audio was left out." in saved.notes) == (sound and format == GIF)
    assert (saved.width, saved.height, saved.num_frames, saved.fps) == (96, 64, 9, fps)
    assert saved.duration == pytest.approx(float(9 / fps))
    assert (saved.file_name, saved.content_type) == (saved.path.name, CONTENT_TYPE[format])
    assert saved.file_size == saved.path.stat().st_size
    assert {file.name for file in tmp_path.iterdir()} == {saved.file_name} | (
        {"video.gif.json"} if format == GIF else set()
    )


def assert_tone(container: av.container.InputContainer, codec: str, seconds: Fraction) -> None:
    stream = container.streams.audio[0]
    assert stream.codec_context.name.removeprefix("lib") == codec
    assert stream.channels == 2
    container.seek(0)
    resampler = av.AudioResampler("fltp", "stereo", stream.rate)
    parts = [part.to_ndarray() for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    heard = np.concatenate(parts, 1)
    assert heard.shape[1] / stream.rate == pytest.approx(seconds, abs=0.03)
    loudest = np.abs(np.fft.rfft(heard[0])).argmax() * stream.rate / heard.shape[1]
    assert loudest == pytest.approx(440, abs=4)
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "format", [pytest.param(name, marks=pytest.mark.slow if "GIF" in name else ()) for name in VIDEO_OUTPUT_TYPES]
)
def test_quality_and_size_rise_from_low_to_maximum(textured_clip, tmp_path, format):
    frames = textured_clip[:2]
    saved = [export(frames, tmp_path / f"{q}{SUFFIX[format]}", format=format, quality=q) for q in VIDEO_QUALITIES]
    decibels = [psnr(video.path, frames) for video in saved]
    sizes = [video.file_size for video in saved]
    assert decibels == sorted(set(decibels)), decibels
    assert sizes == sorted(set(sizes)), sizes


@pytest.mark.slow
def test_high_in_x264_is_visually_lossless(tmp_path):
    frames = moving_clip(5, 704, 1280)
    assert psnr(save(frames, tmp_path, X264, quality="high").path, frames) >= 42


def bars() -> Tensor:
    """(1, 128, 224, 3): the colours of SMPTE RP 219's upper bars over ramps of grey, red, green and blue."""
    colours = [[g, r, b] for g, r, b in ((1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1))]
    upper = torch.tensor(colours).mul(0.75).repeat_interleave(32, 0).expand(64, -1, -1)
    weights = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).repeat_interleave(16, 0)
    lower = torch.linspace(0, 1, 224)[None, :, None] * weights[:, None, :]
    return torch.cat((upper, lower))[None].repeat(3, 1, 1, 1)


@pytest.mark.parametrize(
    ("format", "quality", "limit"),
    [(X264, "maximum", 1), (VP9, "maximum", 2), *((PRORES, q, 1) for q in VIDEO_QUALITIES)],
)
def test_colours_come_back(tmp_path, format, quality, limit):
    frames = bars()
    saved = save(frames, tmp_path, format, quality=quality)
    for frame, source in zip(pictures(saved.path), frames.numpy(), strict=True):
        levels = np.abs(rgb(frame) - source) * 255
        assert levels.mean() <= limit
        # And for a player, which knows only what the file says of itself.
        tags = {"src_colorspace": frame.colorspace, "src_color_range": frame.color_range or 1}
        played = frame.reformat(format="rgb24", dst_color_range=2, **tags).to_ndarray()
        assert np.abs(played - source * 255).mean() <= limit + 0.5


def test_colours_are_tagged_in_the_container(clip, tmp_path):
    # ISO/IEC 14496-12 and QuickTime: primaries, transfer, matrix; then, in MP4, whether the range is full.
    assert b"colrnclx\0\1\0\1\0\1\0" in save(clip, tmp_path, X264).path.read_bytes()
    assert b"colrnclc\0\1\0\1\0\1" in save(clip, tmp_path, PRORES).path.read_bytes()
    # Matroska: MatrixCoefficients, TransferCharacteristics, Primaries, and Range, where 1 is limited.
    webm = save(clip, tmp_path, VP9).path.read_bytes()
    for element in (b"\x55\xb1", b"\x55\xba", b"\x55\xbb", b"\x55\xb9"):
        assert element + b"\x81\x01" in webm


def test_colours_are_tagged_in_every_prores_frame(clip, tmp_path):
    """SMPTE RDD 36, 5.1.1: after 22 bytes primaries, transfer and matrix."""
    found = packets(save(clip, tmp_path, PRORES).path)
    assert {data[22:25] for _, _, _, data in found} == {b"\1\1\1"}


def shift_of_colours(file: Path, ramp: Tensor) -> float:
    """How much redder the file is than `ramp`, in levels, to a decoder that heeds where colour samples lie."""
    with av.open(str(file)) as container:
        shown = torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="gbrpf32le"))
    return float((shown - ramp)[8:-8, 8:-8, 0].mean() * 255)


@pytest.mark.parametrize("again", [False, True], ids=["frames", "file"])
@pytest.mark.parametrize("format", [X264, VP9])
def test_colours_lie_where_the_file_says(tmp_path, format, again):
    """A ramp that rises and one that falls would be off to both sides: by 0.4 levels for half a pixel."""
    shifts = []
    for ends in ((0.1, 0.9), (0.9, 0.1)):
        ramp = torch.zeros(2, 64, 192, 3)
        ramp[..., 0] = torch.linspace(*ends, 192)
        saved = save(ramp, tmp_path, format, quality="maximum").path
        if again:
            saved = export(FileClip(saved), tmp_path / f"again{SUFFIX[format]}", format=format, quality="maximum").path
        shifts.append(shift_of_colours(saved, ramp[0]))
    assert abs(shifts[0] - shifts[1]) < 0.2


@pytest.mark.parametrize("format", [X264, VP9, PRORES])
def test_floats_are_rounded_and_not_cut(tmp_path, format):
    ramp = torch.linspace(0.1, 0.9, 512)[None, None, :, None].expand(3, 64, -1, 3)
    shown = rgb(pictures(save(ramp, tmp_path, format, quality="maximum").path)[1])
    assert abs((shown - ramp[1].numpy()).mean() * 255) < 0.1


@pytest.mark.parametrize("row", [0, 1], ids=["upper", "lower"])
@pytest.mark.parametrize("column", [0, 1], ids=["left", "right"])
def test_a_colour_sample_is_the_mean_of_all_four_pixels(row, column):
    """ITU-R BT.709-6, item 3: one red pixel beside three black ones moves each difference by a quarter."""
    frame = torch.zeros(16, 16, 3)
    frame[row::2, column::2, 0] = 1.0
    picture = YuvConverter("yuv420p", even_sides=True, background=(0, 0, 0)).convert(frame)
    blue, red = (np.frombuffer(plane, np.uint8).reshape(8, -1)[:, :8] for plane in picture.planes[1:])
    assert np.abs(blue - (128 - 224 * 0.2126 / 1.8556 / 4)).max() <= 0.5
    assert np.abs(red - (128 + 224 * 0.5 / 4)).max() <= 0.5


def test_prores_has_more_than_eight_bits_from_end_to_end(tmp_path):
    ramp = torch.linspace(0, 1, 1024)[None, None, :, None].expand(1, 16, -1, 3)
    (frame,) = pictures(save(ramp, tmp_path, PRORES, quality="maximum").path)
    shown = rgb(frame)
    assert np.abs(shown - ramp[0].numpy()).mean() * 255 < 0.2
    assert len(np.unique((shown[8] * 1023).round())) > 700


@pytest.mark.parametrize(("format", "limit"), [(VP9, 3), (PRORES, 0.5)])
def test_alpha_comes_back(clip, tmp_path, format, limit):
    frames = with_alpha(clip)
    shown = [rgb(frame) for frame in pictures(save(frames, tmp_path, format, quality="maximum").path)]
    for frame, source in zip(shown, frames.numpy(), strict=True):
        assert np.abs(frame[..., 3] - source[..., 3]).mean() * 255 < limit
        assert np.abs(frame[..., :3] - source[..., :3]).mean() * 255 < limit + 2


def test_alpha_in_a_gif_is_all_or_nothing_and_goes_away_again(clip, tmp_path):
    frames = with_alpha(clip)
    for frame, source in zip(pictures(save(frames, tmp_path, GIF).path), frames.numpy(), strict=True):
        assert ((rgb(frame)[..., 3] > 0.5) == (source[..., 3] >= 0.5)).all()


def test_x264_puts_the_background_behind_transparent_frames(clip, tmp_path):
    frames = torch.cat((clip, torch.zeros_like(clip[..., :1])), -1)
    saved = save(frames, tmp_path, X264, background=(1.0, 0.5, 0.0))
    assert np.abs(rgb(pictures(saved.path)[4]) - (1.0, 0.5, 0.0)).max() * 255 < 3
    assert any("background" in note for note in saved.notes)


@pytest.mark.parametrize(
    "fps", [Fraction(16), Fraction(24), Fraction(30000, 1001), Fraction(10), Fraction(50)], ids=str
)
def test_a_gif_keeps_time_on_average(tmp_path, fps):
    frames = moving_clip(33, 16, 16)
    saved = save(frames, tmp_path, GIF, fps=fps)
    with av.open(str(saved.path)) as container:
        delays = [packet.duration for packet in container.demux(video=0) if packet.dts is not None]
    ends = np.cumsum(delays)
    assert len(delays) == 33
    assert np.abs(ends - [float(100 * (i + 1) / fps) for i in range(33)]).max() <= 0.51
    assert set(delays) <= {math.floor(100 / fps), math.ceil(100 / fps)}
    assert b"NETSCAPE2.0\x03\x01\0\0" in saved.path.read_bytes()


@pytest.mark.parametrize("from_a_file", [False, True])
@pytest.mark.parametrize(("fps", "shown"), [(50, range(24)), (60, [n for n in range(24) if n % 6 != 5])])
def test_a_gif_of_more_than_50_fps_leaves_frames_out_evenly(tmp_path, fps, shown, from_a_file):
    frames = with_numbers(moving_clip(24, 64, 96))
    rate = Fraction(fps)
    file = export(frames, tmp_path / "video.mp4", fps=rate, quality="maximum").path
    gif = save(FileClip(str(file)) if from_a_file else frames, tmp_path, GIF, fps=rate)
    numbers = [number_in(picture.to_ndarray(format="rgb24") / 255) for picture in pictures(gif.path)]
    # The times of a file are heeded within a frame.
    assert abs(len(numbers) - len(shown)) <= from_a_file
    assert all(abs(number - wanted) <= from_a_file for number, wanted in zip(numbers, shown, strict=False))
    assert len(set(numbers)) == len(numbers)
    assert (gif.num_frames, gif.fps) == (len(numbers), 50)
    assert [note for note in gif.notes if "50" in note] == [
        "60 fps became 50, the most in a GIF (.gif): frames were left out."
    ] * (fps == 60)


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("quality", VIDEO_QUALITIES)
@pytest.mark.parametrize("ends", [(1.0, 0.8), (0.8, 1.0)], ids=["darker", "lighter"])
def test_a_gif_follows_a_slow_fade(textured_clip, tmp_path, quality, ends):
    frames = textured_clip[:1] * torch.linspace(*ends, 40)[:, None, None, None]
    shown = pictures(save(frames, tmp_path, GIF, quality=quality).path)
    off = [rgb(frame)[..., :3].mean() - wanted.mean() for frame, wanted in zip(shown, frames.numpy(), strict=True)]
    assert abs(np.mean(off)) * 255 <= 0.2


def test_a_gif_has_its_workflow_beside_it(clip, tmp_path):
    save(clip, tmp_path, GIF, metadata=METADATA)
    sidecar = json.loads((tmp_path / "video.gif.json").read_text(encoding="utf-8"))
    assert sidecar["nodes"] == []
    assert sidecar["extra"]["prompt"] == {"1": {"class_type": "A"}}


def test_nothing_that_is_not_json_lies_beside_a_gif(clip, tmp_path):
    graph = {"prompt": '{"1": {"is_changed": [NaN]}}', "workflow": '{"nodes": [-Infinity, 1e999, "NaN"]}'}
    save(clip, tmp_path, GIF, metadata=graph)
    text = (tmp_path / "video.gif.json").read_text(encoding="utf-8")
    sidecar = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert sidecar["nodes"] == [None, None, "NaN"]
    assert sidecar["extra"]["prompt"] == {"1": {"is_changed": [None]}}


@pytest.mark.parametrize("copied", [False, True])
def test_a_webm_has_no_brace_within_the_texts_of_its_graph(clip, tmp_path, copied):
    """ComfyUI's frontend counts them to find the graph's end."""
    graph = {"title": 'a } b { \\" } {{', "{": {}}
    metadata = {"workflow": json.dumps(graph), "comment": "not JSON {"}
    file = save(clip, tmp_path, VP9, metadata=metadata).path
    if copied:
        remux(file, tmp_path / "copy.webm", format=VP9, metadata=metadata)
        file = tmp_path / "copy.webm"
    with av.open(str(file)) as container:
        found = {key.lower(): text for key, text in container.metadata.items()}
    assert json.loads(found["workflow"]) == graph
    assert (found["workflow"].count("{"), found["workflow"].count("}")) == (2, 2)
    assert found["comment"] == "not JSON {"


def test_a_gif_whose_workflow_cannot_be_written_changes_nothing(clip, tmp_path):
    (tmp_path / "video.gif").write_bytes(b"an older video")
    (tmp_path / "video.gif.json").mkdir()
    with pytest.raises(ExportError, match=r"video\.gif\.json could not be written .* is a folder"):
        save(clip, tmp_path, GIF, metadata=METADATA)
    assert (tmp_path / "video.gif").read_bytes() == b"an older video"
    assert {entry.name for entry in tmp_path.iterdir()} == {"video.gif", "video.gif.json"}


def test_a_gif_keeps_no_workflow_of_the_one_before(clip, tmp_path):
    (tmp_path / "video.json").write_text("of another program")
    save(clip, tmp_path, GIF, metadata=METADATA)
    save(clip, tmp_path, GIF)
    assert {entry.name for entry in tmp_path.iterdir()} == {"video.gif", "video.json"}


@pytest.mark.parametrize("kind", ["uint8", "float16", "bfloat16", "strided", "inference"])
def test_frames_of_any_kind_give_the_same_pictures(clip, tmp_path, kind):
    levels = (clip * 255).round()
    plain = levels / 255
    with torch.inference_mode(kind == "inference"):
        kinds = {
            "uint8": levels.byte(),
            "float16": plain.half(),
            "bfloat16": plain.bfloat16(),
            "strided": plain.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
            "inference": plain.clone(),
        }
        saved = save(kinds[kind], tmp_path, PRORES, quality="maximum")
    reference = export(plain, tmp_path / "reference.mov", format=PRORES, quality="maximum")
    one, other = ([rgb(frame) for frame in pictures(video.path)] for video in (saved, reference))
    assert np.abs(np.array(one) - np.array(other)).mean() * 255 < {"bfloat16": 0.5, "float16": 0.2}.get(kind, 0.1)


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_odd_sides_are_padded_with_the_edge_where_they_must(clip, tmp_path, format):
    frames = clip[:, :63, :95]
    saved = save(frames, tmp_path, format, quality="maximum")
    shown = rgb(pictures(saved.path)[0])
    must = format in (X264, VP9)
    assert shown.shape[:2] == (saved.height, saved.width) == ((64, 96) if must else (63, 95))
    assert any("95x63 became 96x64" in note for note in saved.notes) == must
    assert np.abs(shown[:63, :95, :3] - frames[0].numpy()).mean() * 255 < 4
    if must:
        assert np.abs(shown[63, :95, :3] - frames[0, 62].numpy()).mean() * 255 < 5
        assert np.abs(shown[:63, 95, :3] - frames[0, :, 94].numpy()).mean() * 255 < 5


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_nan_and_values_outside_become_black_and_the_nearest(tmp_path, format, channels):
    frames = torch.ones(2, 64, 128, channels)
    frames[:, :, :32, :3] = math.nan
    frames[:, :, 32:64, :3] = -math.inf
    frames[:, :, 64:96, :3] = 7.0
    frames[:, :, 96:, :3] = math.inf
    saved = save(frames, tmp_path, format)
    for frame in pictures(saved.path):
        shown = rgb(frame)[..., :3]
        assert shown[:, :60].max() < 0.02
        assert shown[:, 68:].min() > 0.98
    assert any("NaN" in note for note in saved.notes)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_frames_of_a_few_pixels_are_written(tmp_path, format, side, channels):
    frames = torch.tensor([0.5, 0.5, 0.5, 1.0])[:channels].expand(1, side, side, -1)
    saved = save(frames, tmp_path, format)
    (frame,) = pictures(saved.path)
    assert (frame.width, frame.height) == (saved.width, saved.height)
    assert np.abs(rgb(frame)[0, 0, :3] - 0.5).max() * 255 < 3


@pytest.fixture(scope="module")
def small_frame() -> Tensor:
    return moving_clip(1, 216, 384)


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_a_frame_of_8k_is_written_whole(small_frame, tmp_path, format):
    """Each pixel 20 times as large, in both directions."""
    levels = (small_frame * 255).round().byte()
    saved = save(levels.repeat_interleave(20, 1).repeat_interleave(20, 2), tmp_path, format, quality="low")
    (shown,) = pictures(saved.path)
    assert (shown.width, shown.height) == (7680, 4320)
    small = shown.reformat(384, 216, "rgb24", src_colorspace="ITU709", interpolation="AREA").to_ndarray()
    assert np.abs(small - levels[0].numpy().astype(float)).mean() < 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": torch.zeros(0, 8, 8, 3)}, "no frames"),
        ({"frames": torch.zeros(8, 8, 3)}, r"\(8, 8, 3\)"),
        ({"frames": torch.zeros(1, 8, 8, 2)}, r"\(1, 8, 8, 2\)"),
        ({"frames": torch.zeros(1, 8, 8, 3, dtype=torch.int64)}, "int64"),
        ({"frames": [torch.zeros(1, 8, 8, 3)] * 2}, "list of 2, but must be one batch: join them with Batch Images"),
        ({"frames": None}, "are a NoneType, but must be a batch of images"),
        ({"frames": torch.zeros(1, 0, 8, 3)}, "8x0"),
        ({"frames": torch.zeros(1, 2, 20000, 3)}, "16384"),
        ({"fps": 0}, "fps is 0"),
        (
            {"fps": 0.005},
            "fps is 0.005, but must be 0.01 to 1000.* images of Get Video Components instead, and set fps",
        ),
        ({"fps": -16}, "fps is -16"),
        ({"fps": math.nan}, "fps must be a number"),
        ({"fps": 2000}, "1000"),
        ({"format": "AVI"}, "AVI"),
        ({"quality": "best"}, "best"),
        ({"fps": Fraction(2**31, 2**27 - 1)}, "2147483647"),
        ({"audio": tone(1, 8000, 7)}, "at most 6"),
        ({"audio": tone(1, 8000, 9)}, "at most 6"),
        (
            {"audio": {"waveform": torch.zeros(2, 1, 100), "sample_rate": 8000}},
            r"\(2, 1, 100\).* one sound, not a batch",
        ),
        ({"audio": [tone(1, 8000, 2)] * 2}, "is a list without a waveform: connect one sound"),
        ({"audio": {"sample_rate": 8000}}, "is a dict without a waveform"),
        ({"audio": {"waveform": torch.zeros(1, 1, 100)}}, "sample_rate is None, but must be a number"),
        ({"audio": {"waveform": torch.zeros(1, 1, 9, dtype=torch.uint8), "sample_rate": 8000}}, "uint8, .* int32"),
        ({"audio": {"waveform": torch.zeros(1, 100), "sample_rate": 8000}}, r"\(1, 100\)"),
        ({"audio": {"waveform": torch.zeros(1, 1, 100), "sample_rate": 1}}, "8000 to 192000"),
        ({"audio": {"waveform": torch.zeros(1, 1, 100), "sample_rate": 192001}}, "8000 to 192000"),
        ({"frames": torch.zeros(2, 8, 8, 4), "alpha": torch.zeros(2, 8, 8)}, "one of the two"),
        ({"alpha": torch.zeros(1, 8, 8)}, r"\(1, 8, 8\)"),
        ({"alpha": torch.zeros(2, 8, 8, dtype=torch.uint8)}, "uint8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_value_is_refused_with_its_limit(tmp_path, change, message):
    given = {"frames": torch.zeros(2, 8, 8, 3), "format": X264, **change}
    with pytest.raises(InvalidRequestError, match=message):
        export(path=tmp_path / "video", **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIX.values())
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_the_suffix_of_another_format_is_refused(clip, tmp_path, format, suffix):
    if suffix != SUFFIX[format]:
        with pytest.raises(InvalidRequestError, match=rf"\{suffix}.*\{SUFFIX[format]}"):
            export(clip, tmp_path / f"video{suffix}", format=format)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [Fraction(100_003, 10_007), Fraction(2**31 - 1, 2**27)], ids=str)
def test_a_fraction_stays_as_it_is(clip, tmp_path, fps):
    assert save(clip, tmp_path, X264, fps=fps).fps == fps


@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "60000/1001", "2997/100", "23976/1000", "25/2"])
def test_a_float_is_the_fraction_that_it_stands_for(rate):
    assert frame_rate(float(Fraction(rate))) == Fraction(rate)


@pytest.mark.sample(7)
@pytest.mark.parametrize("kind", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("last", [(), (1,)], ids=["mask", "channel"])
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_alpha_beside_the_frames_is_as_within_them(clip, tmp_path, format, last, kind):
    frames = {"uint8": (clip * 255).byte(), "float16": clip.half(), "float32": clip}[kind]
    unit = frames / 255 if kind == "uint8" else frames.float()
    joined = with_alpha(unit)
    alpha = joined[..., 3].reshape(*clip.shape[:3], *last)
    saved = save(frames, tmp_path, format, alpha=alpha)
    reference = export(joined, tmp_path / f"reference{SUFFIX[format]}", format=format)
    assert saved.notes == reference.notes
    # libx264 does not always give the same bytes for the same pictures, on a busy machine even less.
    one, other = ([rgb(frame) for frame in pictures(video.path)] for video in (saved, reference))
    assert np.abs(np.array(one) - np.array(other)).mean() * 255 < 1


class StoppedError(BaseException):
    pass


class StopsAfter:
    def __init__(self, frames: int) -> None:
        self.left = frames
        self.seen: list[tuple[int, int]] = []

    def progress(self, message: str, done: int, total: int, latents: Tensor | None = None) -> None:
        self.seen.append((done, total))
        self.left -= 1

    def raise_if_stopped(self) -> None:
        if self.left <= 0:
            raise StoppedError


@pytest.mark.parametrize("after", [0, 4])
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_stop_leaves_what_was_there(clip, tmp_path, format, after):
    before = tmp_path / f"video{SUFFIX[format]}"
    before.write_bytes(b"an older video")
    observer = StopsAfter(after)
    with pytest.raises(StoppedError):
        save(clip, tmp_path, format, observer=observer)
    assert observer.seen == [(done + 1, 9) for done in range(after)]
    assert before.read_bytes() == b"an older video"
    assert list(tmp_path.iterdir()) == [before]


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_progress_counts_every_frame(clip, tmp_path, format):
    observer = StopsAfter(1000)
    save(clip, tmp_path, format, observer=observer)
    assert observer.seen == [(done, 9) for done in range(1, 10)]


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_here_and_in_a_later_thread() -> list[int]:
    found = [torch.get_num_threads()]
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    return found


@pytest.mark.usefixtures("three_threads")
def test_torch_keeps_its_threads(clip, tmp_path):
    save(clip, tmp_path, X264)
    assert threads_here_and_in_a_later_thread() == [3, 3]
    exports = [threading.Thread(target=export, args=(clip, tmp_path / f"{index}.mp4")) for index in range(2)]
    for thread in exports:
        thread.start()
    for thread in exports:
        thread.join()
    assert threads_here_and_in_a_later_thread() == [3, 3]


def a_file(frames: Tensor, folder: Path) -> FileClip:
    return FileClip(str(export(frames, folder / "a.mp4").path))


CLIPS = {
    "float32": lambda frames, _: Clip(frames, None),
    "half": lambda frames, _: Clip(frames.half(), None),
    "bytes": lambda frames, _: Clip(frames.mul(255).byte(), None),
    "rgba": lambda frames, _: Clip(torch.cat((frames, frames[..., :1]), 3), None),
    "alpha beside": lambda frames, _: Clip(frames, frames[..., 0]),
    "odd": lambda frames, _: Clip(frames[:, 1:, 1:], None),
    "wide": lambda frames, _: Clip(frames[:, :4].repeat(1, 1, 8, 1), None),
    "a file": a_file,
}


@pytest.mark.skipif(not THREADS.is_dir(), reason="only Linux lists threads")
@pytest.mark.sample(12)
@pytest.mark.quick(6)
@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("format", [X264, PRORES, GIF])
@pytest.mark.parametrize("kind", CLIPS)
def test_the_thread_that_converts_starts_none_beside_the_encoder(tmp_path, format, kind):
    """They would spin on the cores that the encoder needs: on a busy machine an export took five times as long."""
    clip = CLIPS[kind](moving_clip(2, 64, 1280), tmp_path)
    target = find_encoding(format)
    converter, timing = (
        make_converter(target, "high", clip, (0, 0, 0), StopsAfter(9)),
        Timing.of(clip, Fraction(16), target),
    )
    started = []

    def convert() -> None:
        before = set(THREADS.iterdir())
        list(converted(clip, converter, timing))
        started.extend(set(THREADS.iterdir()) - before)

    thread = threading.Thread(target=convert)
    thread.start()
    thread.join()
    assert not started


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("stopped", [StoppedError, RuntimeError])
def test_nothing_goes_on_while_a_caller_holds_the_exception(clip, tmp_path, stopped):
    class Fails(StopsAfter):
        def raise_if_stopped(self) -> None:
            if self.left <= 0:
                raise stopped

    before = set(threading.enumerate())
    with pytest.raises(stopped) as held:
        save(clip, tmp_path, X264, observer=Fails(4))
    assert set(threading.enumerate()) == before
    assert threads_here_and_in_a_later_thread() == [3, 3]
    del held


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True).returncode:
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


@contextmanager
def room_for(size: int, folder: Path) -> Iterator[Path]:
    """A folder whose disk is full after `size` bytes, or in which no file can grow beyond them."""
    if can_mount(folder):
        with mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            yield folder
        return
    import resource  # not on Windows

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@only_posix
@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_a_full_disk_leaves_nothing_wherever_it_strikes(textured_clip, tmp_path, format):
    frames = textured_clip[:3]
    needed = save(frames, tmp_path, format, audio=tone(1)).file_size
    page = 4096
    failures = 0
    for room in sorted(
        {page, *(needed * tenth // 10 // page * page for tenth in range(1, 10)), (needed - 1) // page * page}
    ):
        if room == 0:
            continue
        with room_for(room, tmp_path / "small") as small:
            with pytest.raises(ExportError, match="video"):
                save(frames, small, format, audio=tone(1))
            failures += 1
            assert list(small.iterdir()) == []
    assert failures >= 1


@only_posix
def test_a_folder_that_cannot_be_written_to_is_explained(clip, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    if can_mount(tmp_path / "probe"):
        with mounted(folder, "-t", "tmpfs", "-o", "ro", "tmpfs"), pytest.raises(ExportError, match="another folder"):
            save(clip, folder, X264)
    else:
        folder.chmod(0o500)
        with pytest.raises(ExportError, match="may write"):
            save(clip, folder, X264)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_a_folder_that_vanished_or_never_was_one_is_explained(clip, tmp_path, format):
    with pytest.raises(ExportError, match="make the folder again"):
        save(clip, tmp_path / "gone", format)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match="is a file"):
        save(clip, tmp_path / "file", format)
    (tmp_path / f"video{SUFFIX[format]}").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        save(clip, tmp_path, format)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", f"video{SUFFIX[format]}"}


def test_a_name_that_is_too_long_is_refused_before_the_work(clip, tmp_path):
    observer = StopsAfter(1000)
    with pytest.raises(ExportError, match="shorter name"):
        export(clip, tmp_path / ("\u5ca9" * 84 + ".mp4"), observer=observer)
    export(clip, tmp_path / ("\u5ca9" * 83 + ".mp4"))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        export(clip, tmp_path / "folder.mp4", observer=observer)
    assert observer.seen == []


def test_what_the_encoder_refuses_is_not_blamed_on_the_disk(clip, tmp_path, monkeypatch):
    wrong = replace(ENCODINGS[X264], encoder_options={"preset": "none such"})
    monkeypatch.setattr("cosmos_predict25.pipeline.export.encodings.ENCODINGS", {X264: wrong})
    with pytest.raises(ExportError, match="the encoder refused it") as error:
        save(clip, tmp_path, X264)
    assert "disk" not in str(error.value)


class Removes(StopsAfter):
    def __init__(self, folder: Path) -> None:
        super().__init__(1000)
        self.folder = folder

    def raise_if_stopped(self) -> None:
        if len(self.seen) == 4:
            for file in self.folder.iterdir():
                file.unlink()
            self.folder.rmdir()
            self.seen.append((0, 0))


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_a_folder_that_vanishes_meanwhile_is_explained(clip, tmp_path, format):
    folder = tmp_path / "soon gone"
    folder.mkdir()
    with pytest.raises(ExportError, match="make the folder again"):
        save(clip, folder, format, observer=Removes(folder))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sample(13)
@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("rate", [8000, 11025, 48000, 192000])
@pytest.mark.parametrize("format", [X264, VP9, PRORES])
def test_sound_of_every_rate_and_number_of_channels_is_kept(clip, tmp_path, format, rate, channels):
    if channels > 6:
        with pytest.raises(InvalidRequestError, match="at most 6"):
            save(clip, tmp_path, format, audio=tone(0.3, rate, channels))
        return
    saved = save(clip, tmp_path, format, audio=tone(0.3, rate, channels))
    with av.open(str(saved.path)) as container:
        stream = container.streams.audio[0]
        assert stream.channels == channels
        seconds = sum(frame.samples for frame in container.decode(audio=0)) / stream.rate
    # It is shorter than the pictures, which take 9/16 s, and stays so.
    assert seconds == pytest.approx(0.3, abs=max(0.03, 1024 / stream.rate))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32])
def test_integer_sound_is_scaled(clip, tmp_path, dtype):
    sound = tone(0.5)
    full = -int(torch.iinfo(dtype).min)
    integers = {**sound, "waveform": (sound["waveform"].double() * full).to(dtype)}
    wanted, samples = (decoded_sound(save(clip, tmp_path, PRORES, audio=each).path) for each in (sound, integers))
    assert np.abs(samples - wanted).max() <= 1 / 2**15


def decoded_sound(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1) / 2**15


def test_gray_frames_are_written_as_rgb(clip, tmp_path):
    gray = clip[..., :1]
    first, second = (save(frames, tmp_path, PRORES).path.read_bytes() for frames in (gray, gray.repeat(1, 1, 1, 3)))
    assert first == second


@pytest.mark.parametrize("format", [X264, VP9, PRORES])
def test_sound_without_samples_is_no_sound(clip, tmp_path, format):
    with av.open(str(save(clip, tmp_path, format, audio=tone(0)).path)) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("alpha", [False, True], ids=["rgb", "rgba"])
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_remux_copies_every_packet_and_adds_metadata(clip, tmp_path, format, alpha):
    frames = with_alpha(clip) if alpha else clip
    audio = tone(1)
    source = save(
        frames, tmp_path, format, audio=audio, metadata={"prompt": "old", "Workflow": "old", "comment": "kept"}
    )
    copy = remux(source.path, tmp_path / f"copy{SUFFIX[format]}", format=format, metadata=METADATA)
    assert copy is not None
    assert (copy.width, copy.height, copy.num_frames) == (96, 64, 9)
    # The delays of a GIF are whole hundredths of a second.
    assert copy.fps == (pytest.approx(16, rel=0.01) if format == GIF else 16)
    assert packets(copy.path) == packets(source.path)
    one, other = pictures(source.path), pictures(copy.path)
    assert [frame.format.name for frame in one] == [frame.format.name for frame in other]
    assert all((rgb(a) == rgb(b)).all() for a, b in zip(one, other, strict=True))
    if format == GIF:
        assert (tmp_path / "copy.gif.json").exists()
    else:
        with av.open(str(copy.path)) as container:
            kept = {key.lower(): value for key, value in container.metadata.items()}
            assert {key: kept[key] for key in (*METADATA, "comment")} == {**METADATA, "comment": "kept"}
            context = container.streams.video[0].codec_context
            assert (int(context.color_primaries), int(context.color_trc), int(context.colorspace)) == (1, 1, 1)


def packets(path: Path) -> list[tuple[str, Fraction, Fraction, bytes]]:
    """Of which stream, when they are shown and decoded, in seconds, and what they hold."""
    with av.open(str(path)) as container:
        return [
            (packet.stream.type, packet.pts * packet.time_base, packet.dts * packet.time_base, bytes(packet))
            for packet in container.demux()
            if packet.dts is not None
        ]


@pytest.mark.parametrize("format", [X264, VP9, PRORES])
def test_remux_drops_the_graph_of_the_source(clip, tmp_path, format):
    source = save(clip, tmp_path, format, metadata=METADATA).path
    copy = tmp_path / f"copy{SUFFIX[format]}"
    assert remux(source, copy, format=format)
    with av.open(str(copy)) as container:
        assert not {key.lower() for key in container.metadata} & METADATA.keys()


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_remux_reports_and_stops(clip, tmp_path, format):
    source = save(clip, tmp_path, format, audio=tone(1)).path
    copy = tmp_path / f"copy{SUFFIX[format]}"
    observer = StopsAfter(4)
    with pytest.raises(StoppedError):
        remux(source, copy, format=format, observer=observer)
    assert not copy.exists()
    observer = StopsAfter(1000)
    assert remux(source, copy, format=format, observer=observer)
    assert observer.seen == [(done, 9) for done in range(1, 10)]


def test_remux_names_a_source_that_cannot_be_read(clip, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for name in ("broken.mp4", "missing.mp4"):
        with pytest.raises(InvalidRequestError, match=rf"{name} cannot be read \(.*\): "):
            remux(tmp_path / name, tmp_path / "copy.mp4", format=X264)
    assert not (tmp_path / "copy.mp4").exists()


def test_remux_does_not_take_another_format(clip, tmp_path):
    for made in VIDEO_OUTPUT_TYPES:
        source = save(clip, tmp_path, made).path
        for asked in VIDEO_OUTPUT_TYPES:
            target = tmp_path / f"copy{SUFFIX[asked]}"
            assert (remux(source, target, format=asked) is None) == (made != asked)
            assert target.exists() == (made == asked)
            target.unlink(missing_ok=True)


@pytest.mark.parametrize("profile", ["proxy", "hq", "4444xq"])
def test_remux_takes_no_other_prores_for_4444(tmp_path, profile):
    source, is_422 = tmp_path / "source.mov", profile != "4444xq"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("prores_ks", rate=16, options={"profile": profile})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv422p10le" if is_422 else "yuv444p10le"
        container.mux(stream.encode(av.VideoFrame(64, 64, stream.pix_fmt)))
        container.mux(stream.encode(None))
    assert remux(source, tmp_path / "copy.mov", format=PRORES) is None
    assert not (tmp_path / "copy.mov").exists()


def video_with_another_stream(path: Path, kind: str) -> Path:
    """Four black frames, and a packet of subtitles or of data."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=16)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        if kind == "subtitle":
            other = container.add_stream("mov_text")
            other.codec_context.subtitle_header = b"[Script Info]\n[V4+ Styles]\n[Events]\n"
        else:
            other = container.add_data_stream("bin_data")
        for _ in range(4):
            black = np.zeros((64, 64, 3), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
        container.mux(video.encode(None))
        packet = av.Packet(b"\0\5hello")
        packet.stream, packet.pts, packet.dts, packet.duration = other, 0, 0, 200
        packet.time_base = Fraction(1, 1000)
        container.mux(packet)
    return path


@pytest.mark.parametrize("kind", ["subtitle", "data"])
def test_remux_takes_no_file_with_more_than_video_and_sound(tmp_path, kind):
    """Subtitles and data would go along unseen, and not every container takes them: the frames are exported instead."""
    source = video_with_another_stream(tmp_path / "source.mp4", kind)
    with av.open(str(source)) as container:
        assert [stream.type for stream in container.streams] == ["video", kind]
    assert remux(source, tmp_path / "copy.mp4", format=X264) is None
    assert not (tmp_path / "copy.mp4").exists()


def test_remux_says_what_is_wrong_with_the_target(clip, tmp_path):
    source = save(clip, tmp_path, X264).path
    with pytest.raises(ExportError, match="make the folder again"):
        remux(source, tmp_path / "gone" / "copy.mp4", format=X264)


PEAK = """
import ctypes, os, sys
import torch
from cosmos_predict25.devtools.clip import moving_clip
from cosmos_predict25.devtools.peak import PeakRss
from cosmos_predict25.pipeline.export import export
torch.set_num_threads(1)  # none that a fork would lose
still = moving_clip(1, {height}, {width})[0].to({dtype})
frames = torch.stack([still.roll((index, 3 * index), (0, 1)) for index in range({num_frames})])
alpha = frames[..., 0].clone().float()
module = sys.modules["cosmos_predict25.pipeline.export.export"]
module.THREADS = module.MAX_THREADS
ctypes.CDLL(None).malloc_trim(0)  # what is free already would not be counted when it is used
for suffix, format, with_alpha in {cases}:
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    path = {folder!r} + "/video" + suffix
    export(frames[:1, :64, :64], path, format=format)
    with PeakRss() as rss:
        export(frames, path, format=format, alpha=alpha if with_alpha else None)
    print(format, with_alpha, rss.mib, flush=True)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dtype", "choices", "most"),
    [
        ((24, 704, 1280), "torch.float32", [(X264, True), (PRORES, True), (GIF, True)], 220),
        pytest.param(
            (93, 704, 1280),
            "torch.float32",
            [(X264, False), (VP9, True), (PRORES, True), (GIF, False), (GIF, True)],
            220,
            marks=pytest.mark.exhaustive,
        ),
        # Without VP9, of which libvpx alone takes 600 MiB.
        pytest.param(
            (12, 2160, 3840),
            "torch.float16",
            [(X264, True), (PRORES, False), (PRORES, True), (GIF, True)],
            250,
            marks=pytest.mark.exhaustive,
        ),
    ],
    ids=["24 frames of 720p", "720p", "4K"],
)
def test_memory_stays_low_beside_the_frames(tmp_path, size, dtype, choices, most):
    """Each in a fork of one process, which has imported all and made the frames."""
    cases = [(SUFFIX[format], format, alpha) for format, alpha in choices]
    values = dict(zip(("num_frames", "height", "width"), size, strict=True))
    program = PEAK.format(cases=cases, folder=str(tmp_path), dtype=dtype, **values)
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ)
    print(f"\n{result.stdout}", end="")
    peaks = [float(line.split()[-1]) for line in result.stdout.splitlines()]
    assert len(peaks) == len(choices)
    assert max(peaks) <= most


def test_the_palette_of_a_line_of_pixels_has_its_colour(tmp_path):
    frames = torch.full((1000, 1, 1100, 3), 0.9)
    saved = export(frames, tmp_path / "line.gif", format=GIF)
    with av.open(str(saved.path)) as container:
        assert next(container.decode(video=0)).to_ndarray(format="rgb24").mean() == pytest.approx(0.9 * 255, abs=2)
