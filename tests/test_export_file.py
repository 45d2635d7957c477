"""A video file that is exported: decoded and encoded picture by picture, with its colours and its sound."""

import io
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.clip import moving_clip
from cosmos_predict25.pipeline.clip import FileClip
from cosmos_predict25.pipeline.errors import ExportError, InvalidRequestError
from cosmos_predict25.pipeline.export import export
from cosmos_predict25.pipeline.export.file import check_room
from cosmos_predict25.pipeline.request import VIDEO_OUTPUT_TYPES
from cosmos_predict25.tests.posix import only_posix
from cosmos_predict25.tests.test_export import GIF, PRORES, SUFFIX, VP9, X264, StoppedError, StopsAfter

NUM_FRAMES, HEIGHT, WIDTH, FPS = 12, 64, 96, 16
RATE = 48000


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """Each a tenth lighter than the one before."""
    return moving_clip(1, HEIGHT, WIDTH) * torch.linspace(0.4, 1, NUM_FRAMES)[:, None, None, None]


def tone(seconds: float) -> dict:
    wave = torch.sin(2 * torch.pi * 440 * torch.arange(round(seconds * RATE)) / RATE) / 2
    return {"waveform": wave.expand(1, 2, -1), "sample_rate": RATE}


@pytest.fixture(scope="module")
def source(frames: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    return export(frames, path, quality="maximum", audio=tone(NUM_FRAMES / FPS)).path


def test_a_file_is_refused_before_it_is_made_where_it_cannot_be_written(tmp_path):
    check_room(tmp_path / "new folder" / "clip.mp4")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "taken").touch()
    for path, says in {
        tmp_path / f"{'a' * 260}.mp4": "choose a shorter name",
        tmp_path / "taken" / "clip.mp4": "choose another folder",
    }.items():
        with pytest.raises(ExportError, match=says):
            check_room(path)
    with pytest.raises(ExportError, match=r"MB free and 1,000,000,000,000 are the least\. Free some disk space"):
        check_room(tmp_path / "clip.mp4", least=10**18)


@only_posix
def test_a_folder_that_nobody_may_write_to_is_refused_before():
    with pytest.raises(ExportError, match=r"/proc/cosmos/clip\.mp4 could not be written"):
        check_room(Path("/proc/cosmos/clip.mp4"))


def decoded(file: Path | io.BytesIO) -> list[Tensor]:
    return [frame.float() / (255 if frame.dtype == torch.uint8 else 1) for frame in FileClip(file).frames()]


def luma(file: Path) -> np.ndarray:
    with av.open(str(file)) as container:
        return np.array([frame.to_ndarray(format="gray") for frame in container.decode(video=0)]).astype(float)


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_a_file_gives_the_pictures_and_the_sound_that_are_in_it(frames, source, tmp_path, format):
    copy = tmp_path / f"copy{SUFFIX[format]}"
    saved = export(FileClip(source), copy, format=format, quality="maximum", audio=FileClip(source).sound())
    assert (saved.num_frames, saved.width, saved.height, saved.fps) == (NUM_FRAMES, WIDTH, HEIGHT, FPS)
    for shown, wanted in zip(decoded(copy), frames, strict=True):
        assert (shown[..., :3] - wanted).abs().mean() * 255 < (6 if format == GIF else 3)
    with av.open(str(copy)) as container:
        heard = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)] if format != GIF else []
    if heard:
        loudest = np.abs(np.concatenate(heard).astype(float)).max() / (32768 if format == PRORES else 1)
        assert loudest == pytest.approx(0.5, abs=0.05)
    assert bool(heard) == (format != GIF)


@pytest.mark.parametrize("format", [X264, VP9])
def test_samples_and_colour_tags_stay_where_the_format_has_the_same_samples(tmp_path, format):
    """BT.601, as ComfyUI's own files, which say nothing of it: neither becomes BT.709."""
    file = tmp_path / "601.mp4"
    bars = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    bars[:, ::32, 0] = bars[:, 1::2, 2] = 200
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.colorspace = 6
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(bars, format="rgb24")))
        container.mux(stream.encode(None))
    copy = export(FileClip(file), tmp_path / f"copy{SUFFIX[format]}", format=format, quality="maximum").path
    with av.open(str(copy)) as one, av.open(str(file)) as other:
        shown, wanted = next(one.decode(video=0)), next(other.decode(video=0))
    assert (shown.colorspace, shown.color_primaries) == (wanted.colorspace, wanted.color_primaries) == (6, 2)
    assert np.abs(shown.to_ndarray().astype(float) - wanted.to_ndarray()).mean() < 2


def test_a_part_of_a_file_has_the_frames_of_that_time(frames, source, tmp_path):
    clip = FileClip(source, 4 / FPS, 5 / FPS)
    saved = export(clip, tmp_path / "part.mov", format=PRORES, audio=clip.sound())
    assert (clip.num_frames, saved.num_frames) == (5, 5)
    for shown, wanted in zip(decoded(saved.path), frames[4:9], strict=True):
        assert (shown - wanted).abs().mean() * 255 < 2


def test_sound_stays_with_the_pictures(tmp_path):
    """A click at half a second, in a file whose sound begins late, of which a part is taken."""
    wave = torch.zeros(1, 1, RATE)
    wave[..., RATE // 2] = 1
    file = tmp_path / "late.mov"
    frames = torch.zeros(FPS, 16, 16, 3)
    export(frames, file, format=PRORES, audio={"waveform": wave[..., RATE // 4 :], "sample_rate": RATE})
    late = tmp_path / "shifted.mov"
    with av.open(str(file)) as container, av.open(str(late), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts += RATE // 4
                    packet.dts += RATE // 4
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    for start in (0.0, 0.125, 0.375):
        sound = FileClip(late, start).sound()
        assert sound is not None
        assert (sound.channels, sound.sample_rate) == (1, RATE)
        heard = np.concatenate(list(sound.chunks()), 1)[0]
        assert heard.argmax() == pytest.approx(RATE * (0.5 - start), abs=2)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pictures_and_sound_that_begin_late_begin_together(tmp_path, suffix):
    """Light and a click half a second after the first picture, which is shown at 5 s."""
    file, click = tmp_path / f"late.{suffix}", np.zeros((1, RATE), np.float32)
    click[:, RATE // 2 :][:, :100] = 0.9
    with av.open(str(file), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for index in range(FPS):
            picture = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 200 * (index >= 8), np.uint8))
            picture.pts, picture.time_base = 5 * FPS + index, Fraction(1, FPS)
            container.mux(video.encode(picture))
        heard = av.AudioFrame.from_ndarray(click, format="fltp", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = RATE, 5 * RATE, Fraction(1, RATE)
        container.mux([*sound.encode(heard), *sound.encode(None), *video.encode(None)])
    saved = export(FileClip(file), tmp_path / "copy.mov", format=PRORES, audio=FileClip(file).sound()).path
    assert [round(frame.mean().item() * 255) > 100 for frame in decoded(saved)] == [False] * 8 + [True] * 8
    sound = FileClip(saved).sound()
    assert sound
    assert np.abs(np.concatenate(list(sound.chunks()), 1)[0]).argmax() / RATE == pytest.approx(0.5, abs=0.03)


def file_of(path: Path, times: list[float]) -> Path:
    """Pictures at these seconds, each lighter than the one before, with times in milliseconds."""
    time_base = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.codec_context.time_base = time_base
        for index, time in enumerate(times):
            pixels = np.full((HEIGHT, WIDTH, 3), 20 + 200 * index // len(times), np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels)
            picture.pts, picture.time_base = round(time / time_base), time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def times_in(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_a_picture_is_shown_when_the_file_shows_it(tmp_path, format):
    """A recording that rests for two seconds, and one in which nothing is regular."""
    rests = [index / 30 + 2 * (index >= 30) for index in range(60)]
    uneven = [0.0, 0.9, 1.0, 1.033, 1.1, 2.35, 2.4, 3.75]
    for times in (rests, uneven):
        saved = export(
            FileClip(file_of(tmp_path / "source.mkv", times)), tmp_path / f"c{SUFFIX[format]}", format=format
        )
        assert times_in(saved.path) == pytest.approx(times, abs=0.011 if format == GIF else 0.001)
        assert saved.num_frames == len(times)


def test_the_last_picture_stays_as_long_as_in_the_file(tmp_path):
    file = tmp_path / "held.gif"
    first, *others = [Image.new("RGB", (WIDTH, HEIGHT), (level, 0, 0)) for level in (40, 120, 200)]
    first.save(file, save_all=True, append_images=others, duration=[100, 100, 1000])
    saved = export(FileClip(file), tmp_path / "held.mp4")
    assert times_in(saved.path) == pytest.approx([0, 0.1, 0.2, 1.1], abs=0.001)
    assert saved.duration == pytest.approx(1.2, abs=0.001)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30), Fraction(60)], ids=str)
def test_times_that_a_file_rounds_become_even_again(tmp_path, rate):
    file = file_of(tmp_path / "rounded.mkv", [float(index / rate) for index in range(200)])
    clip = FileClip(file)
    assert (clip.frame_rate, clip.num_frames) == (rate, 200)
    saved = export(clip, tmp_path / "even.mp4", quality="low")
    assert (saved.fps, saved.num_frames) == (rate, 200)
    assert times_in(saved.path) == pytest.approx([float(index / rate) for index in range(200)], abs=1e-5)


def test_a_file_with_alpha_in_the_formats_own_samples_is_written(tmp_path):
    file = tmp_path / "alpha.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuva420p"
        half = np.full((HEIGHT, WIDTH, 4), 128, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(half, format="rgba")))
        container.mux(stream.encode(None))
    (shown,) = decoded(export(FileClip(file), tmp_path / "alpha.webm", format=VP9).path)
    assert (shown - 128 / 255).abs().max() < 0.02


@pytest.mark.parametrize("format", [X264, VP9, PRORES])
def test_more_channels_than_5_1_has_are_mixed_down(frames, tmp_path, format):
    file = tmp_path / "surround.mkv"
    with av.open(str(file), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("flac", rate=RATE, layout="7.1")
        for _ in range(FPS):
            container.mux(video.encode(av.VideoFrame(WIDTH, HEIGHT, "yuv420p")))
        loud = av.AudioFrame.from_ndarray(np.full((1, 8 * RATE), 8000, np.int16), format="s16", layout="7.1")
        loud.sample_rate, loud.pts = RATE, 0
        container.mux([*sound.encode(loud), *sound.encode(None), *video.encode(None)])
    saved = export(FileClip(file), tmp_path / f"copy{SUFFIX[format]}", format=format, audio=FileClip(file).sound())
    assert "The sound's 8 channels became 6 (5.1)." in saved.notes
    with av.open(str(saved.path)) as container:
        assert container.streams.audio[0].layout.name == "5.1"
        assert max(np.abs(frame.to_ndarray().astype(float)).max() for frame in container.decode(audio=0)) > 0.1


@pytest.mark.parametrize("first", [0.2, 0.6])
def test_of_several_sounds_the_one_is_taken_that_comfyui_plays(core, tmp_path, first):
    from comfy_api.latest import InputImpl

    file, loudness = tmp_path / "two sounds.mkv", (first, 0.8 - first)
    with av.open(str(file), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sounds = [container.add_stream("flac", rate=RATE, layout="mono") for _ in loudness]
        container.mux([*video.encode(av.VideoFrame(WIDTH, HEIGHT, "yuv420p")), *video.encode(None)])
        for sound, level in zip(sounds, loudness, strict=True):
            samples = np.full((1, RATE), round(level * 32767), np.int16)
            heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            heard.sample_rate, heard.pts = RATE, 0
            container.mux([*sound.encode(heard), *sound.encode(None)])
    audio: Any = InputImpl.VideoFromFile(str(file)).get_components().audio
    played, sound = audio["waveform"].abs().max().item(), FileClip(file).sound()
    assert played in [pytest.approx(level, abs=0.01) for level in loudness]
    assert sound
    assert np.abs(np.concatenate(list(sound.chunks()), 1)).max() == pytest.approx(played, abs=0.01)


def test_an_all_intra_file_does_not_become_another_one(frames, tmp_path):
    """As editors write them: each picture says that it was one whole, which is the encoder's to choose anew."""
    file, kinds = tmp_path / "intra.mp4", []
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "1", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray((frame * 255).byte().numpy(), format="rgb24")))
        container.mux(stream.encode(None))
    for path in (file, export(FileClip(file), tmp_path / "copy.mp4").path):
        with av.open(str(path)) as container:
            kinds.append([packet.is_keyframe for packet in container.demux(video=0) if packet.size])
    assert kinds == [[True] * NUM_FRAMES, [True, *[False] * (NUM_FRAMES - 1)]]


def test_a_silent_file_has_no_sound(frames, tmp_path):
    assert FileClip(export(frames, tmp_path / "silent.mp4").path).sound() is None


def test_a_file_in_memory_is_as_one_on_disk(source, tmp_path):
    inside = io.BytesIO(source.read_bytes())
    export(FileClip(inside), tmp_path / "copy.mp4", audio=FileClip(inside).sound())
    for one, other in zip(decoded(inside), decoded(source), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize(("alpha", "channels"), [(None, 3), (1.0, 3), (0.0, 4)], ids=["none", "opaque", "transparent"])
def test_a_file_has_alpha_only_where_something_is_seen_through(frames, tmp_path, alpha, channels):
    file = tmp_path / "source.mov"
    opacity = None if alpha is None else torch.ones(frames.shape[:3])
    if opacity is not None:
        opacity[-1, :32] = alpha
    export(frames, file, format=PRORES, alpha=opacity)
    clip = FileClip(file)
    assert clip.channels == channels
    shown = list(clip.frames())[-1]
    assert shown.shape == (HEIGHT, WIDTH, channels)
    if channels == 4:
        assert shown[:30, :, 3].max() < 0.01 < 0.99 < shown[34:, :, 3].min()
    saved = export(clip, tmp_path / "copy.mp4")
    assert any("background" in note for note in saved.notes) == (channels == 4)


def test_a_picture_that_lies_on_its_side_is_put_upright(frames, source, tmp_path):
    data = bytearray(source.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2, version 0
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data)
    clip = FileClip(turned)
    assert (clip.width, clip.height) == (HEIGHT, WIDTH)
    saved = export(clip, tmp_path / "copy.mp4", quality="maximum")
    assert (saved.width, saved.height) == (HEIGHT, WIDTH)
    assert (decoded(saved.path)[0] - frames[0].rot90(-1)).abs().mean() * 255 < 3


@pytest.mark.parametrize("step", [2, 3])
def test_a_thinned_file_has_every_nth_pixel(source, step):
    clip = FileClip(source)
    whole, thin = next(clip.frames()), next(clip.thinned(step).frames())
    assert (thin == whole[::step, ::step]).all()
    assert (clip.thinned(step).height, clip.thinned(step).width) == thin.shape[:2]


@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_progress_and_stop(source, tmp_path, format):
    observer = StopsAfter(1000)
    export(FileClip(source), tmp_path / f"whole{SUFFIX[format]}", format=format, observer=observer)
    assert observer.seen == [(done, NUM_FRAMES) for done in range(1, NUM_FRAMES + 1)]
    observer = StopsAfter(4)
    stopped = tmp_path / f"stopped{SUFFIX[format]}"
    with pytest.raises(StoppedError):
        export(FileClip(source), stopped, format=format, audio=FileClip(source).sound(), observer=observer)
    assert len(observer.seen) == 4
    assert not stopped.exists()


def test_stop_ends_the_look_for_transparency(frames, tmp_path):
    file = export(frames, tmp_path / "opaque.mov", format=PRORES, alpha=torch.ones(frames.shape[:3])).path
    with pytest.raises(StoppedError):
        _ = FileClip(file, raise_if_stopped=StopsAfter(0).raise_if_stopped).channels


@pytest.mark.parametrize("name", ["broken.mp4", "missing.mp4"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(InvalidRequestError, match=rf"{name} cannot be read"):
        FileClip(tmp_path / name)


def test_a_part_without_pictures_is_refused(source):
    with pytest.raises(InvalidRequestError, match="no pictures"):
        FileClip(source, 100.0)


def raw_h264(width: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame(width, 64, "yuv420p")))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_a_file_whose_size_changes_is_refused(tmp_path):
    file = tmp_path / "two.h264"
    file.write_bytes(raw_h264(64) + raw_h264(128))
    with pytest.raises(InvalidRequestError, match="size changes from 64x64 to 128x64"):
        export(FileClip(file), tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").exists()


PEAK = """
import sys
from cosmos_predict25.devtools.peak import PeakRss
from cosmos_predict25.pipeline.export import export
from cosmos_predict25.pipeline.clip import FileClip
short, long, format, target = sys.argv[1:]
export(FileClip(short), target, format=format, audio=FileClip(short).sound())
with PeakRss() as rss:
    export(FileClip(long), target, format=format, audio=FileClip(long).sound())
print(rss.mib)
"""


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES)
def test_memory_does_not_grow_with_length(tmp_path, format):
    """12 s of 640x360, of which all frames would be 0.5 GB of floats."""
    still = (moving_clip(1, 360, 640) * 255).byte()
    files = []
    for count in (2 * FPS, 12 * FPS):
        audio = {"waveform": torch.rand(1, 2, count * RATE // FPS) - 0.5, "sample_rate": RATE}
        files.append(
            export(still.expand(count, -1, -1, -1), tmp_path / f"{count}.mp4", quality="low", audio=audio).path
        )
    command = [sys.executable, "-c", PEAK, *map(str, files), format, str(tmp_path / f"target{SUFFIX[format]}")]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    print(f"\n{format}: {result.stdout}", end="")
    assert float(result.stdout) < 60


PART = """
import json, sys
import torch
from cosmos_predict25.devtools import comfy_on_cpu
from comfy_api.latest import InputImpl
from cosmos_predict25.nodes.host.videos import source_of
from cosmos_predict25.pipeline.clip import FileClip

found = []
for part in ({}, {"start_time": 0.25, "duration": 0.25}, {"start_time": 0.5}, {"start_time": -0.25}):
    video = InputImpl.VideoFromFile(sys.argv[1], **part)
    clip, wanted = source_of(video, None, lambda: None).frames, video.get_components().images
    assert isinstance(clip, FileClip), part
    shown = [frame.float() / (255 if frame.dtype == torch.uint8 else 1) for frame in clip.frames()]
    found.append([len(shown), max(float((a - b).abs().mean()) for a, b in zip(shown, wanted, strict=True))])
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", [environment.NEWEST.comfyui, environment.OLDEST.comfyui])
def test_a_part_of_a_file_is_what_comfyui_takes_and_is_decoded_picture_by_picture(source, version):
    command, values = [sys.executable, "-c", PART, str(source)], {**os.environ, "TESTED_COMFYUI": version}
    output = subprocess.run(command, env=values, check=True, capture_output=True, text=True).stdout
    numbers, distances = zip(*json.loads(output.splitlines()[-1]), strict=True)
    assert numbers == (NUM_FRAMES, 4, 4, 4)
    assert max(distances) * 255 < 1
