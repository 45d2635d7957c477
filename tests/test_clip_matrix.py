"""The files that people have through all ways: Export in four formats, Extend, the start of a video, fal's upload.

Each has flashes and beeps at 1, 2 and 3 s, and a patch in its top left corner. `pytest -s` prints the table.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from cosmos_predict25.devtools.clip_files import (
    FPS,
    HEIGHT,
    MARKS,
    MILLISECOND,
    SAMPLE_RATE,
    SECONDS,
    WIDTH,
    Sound,
    Video,
    damaged,
    without_default_duration,
)
from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.export import export, mp4_bytes
from cosmos_predict25.pipeline.request import VIDEO_OUTPUT_TYPES
from cosmos_predict25.tests.test_export import GIF, SUFFIX

BEEP_TOLERANCE = 0.02 + 0.005
"""Seconds: 20 ms, and what an encoder blurs."""


@dataclass(frozen=True)
class Case:
    """A file, and how it should come out. `make`: its bytes. `part`: start and duration of what is taken.

    `shape`: width and height as displayed. `flashes`, `beeps`: in seconds. `interval`: the longest time between two
    pictures around the flashes. `corner`: where the patch is, (bottom, right). `note`: a part of a note.
    """

    suffix: str
    make: Callable[[], bytes]
    part: tuple[float, float] = (0.0, 0.0)
    shape: tuple[int, int] = (WIDTH, HEIGHT)
    flashes: tuple[float, ...] = MARKS
    beeps: tuple[float, ...] | None = MARKS
    interval: float = 1 / FPS
    corner: tuple[bool, bool] = (False, False)
    note: str = ""
    has_start: bool = True


BASE = Video()
NTSC = Fraction(24000, 1001)
MS = {"time_base": MILLISECOND}
RANDOM = np.random.default_rng(1)
LATE = (0.5, 1.5)
"""What comes after 1.5 s."""


def even(rate: Fraction | int) -> tuple[float, ...]:
    return tuple(float(index / Fraction(rate)) for index in range(int(SECONDS * rate)))


def uneven() -> tuple[float, ...]:
    """As of a browser: every 25 to 50 ms."""
    times, now = [], 0.0
    while now < SECONDS:
        times.append(round(now, 3))
        now += RANDOM.uniform(0.025, 0.05)
    return tuple(times)


def jittering() -> tuple[float, ...]:
    """As of a phone: 30 a second, give or take 4 ms."""
    return tuple(max(0.0, index / 30 + RANDOM.uniform(-0.004, 0.004)) for index in range(96))


UNEVEN, JITTERING = uneven(), jittering()
FREEZE = tuple(time for time in even(60) if time < 1.3 or time > 1.9)
SPARSE = (0.0, 1.0, 1.2, 2.0, 2.2, 3.0, 3.15)
"""As of a screen recorder, which writes what changes."""
GAP = ((0.0, 0.5, 2, SAMPLE_RATE), (1.7, SECONDS, 2, SAMPLE_RATE))
WITHOUT_FIRST = (2.0, 3.0)


def vary(**values: Any) -> Callable[[], bytes]:
    return replace(BASE, **values).content


def with_aspect(aspect: Fraction) -> Callable[[Any], None]:
    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    return prepare


def turned(degrees: int, **flips: bool) -> Callable[[Any], None]:
    return lambda stream: stream.set_display_rotation(degrees, **flips)


def interlaced(stream: Any) -> None:
    stream.codec_context.flags |= 0x40000 | 0x20000000  # ildct and ilme


def joined(*files: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: b"".join(file() for file in files)


def cut(file: Callable[[], bytes], share: float) -> Callable[[], bytes]:
    return lambda: (content := file())[: round(share * len(content))]


def broken(file: Callable[[], bytes], begin: float, end: float) -> Callable[[], bytes]:
    return lambda: damaged(file(), begin, end)


def browser(**values: Any) -> Callable[[], bytes]:
    return lambda: without_default_duration(vary(container="webm", codec="libvpx", **values)())


def faststart() -> bytes:
    """An MP4 whose index comes first."""
    file = io.BytesIO(vary()())
    copy = io.BytesIO()
    with (
        av.open(file) as source,
        av.open(copy, "w", format="mp4", options={"movflags": "empty_moov+frag_keyframe"}) as out,
    ):
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return copy.getvalue()


def with_cover(first: bool) -> Callable[[], bytes]:
    def make() -> bytes:
        copy = io.BytesIO()
        with av.open(io.BytesIO(vary()())) as source, av.open(copy, "w", format="matroska") as out:

            def add_cover() -> Any:
                cover: Any = out.add_stream("mjpeg", rate=1)
                cover.width, cover.height, cover.pix_fmt = 200, 200, "yuvj420p"
                cover.disposition = av.stream.Disposition.attached_pic
                return cover

            cover = add_cover() if first else None
            streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
            cover = cover or add_cover()
            out.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((200, 200, 3), 200, np.uint8), format="rgb24")))
            out.mux(cover.encode(None))
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
        return copy.getvalue()

    return make


OPUS, MP2, PCM = Sound("libopus"), Sound("mp2", form="s16"), Sound("pcm_s16le", form="s16")
FLAC = Sound("flac", form="s16")
MONO_44 = Sound("aac", "mono", ((0.0, SECONDS, 1, 44100),))
WEBM = {"container": "webm", "codec": "libvpx-vp9", "sound": OPUS}
MKV = {"container": "matroska"}
TS = {"container": "mpegts"}
PS = {"container": "mpeg", "codec": "mpeg2video", "sound": MP2}
AVI = {"container": "avi", "sound": PCM, "options": (("g", "12"), ("bf", "2"))}
SURROUND = {layout: ((0.0, SECONDS, count, SAMPLE_RATE),) for layout, count in (("5.1", 6), ("7.1", 8))}
QUARTER_RIGHT = {"shape": (HEIGHT, WIDTH), "corner": (False, True)}

CASES = {
    "mp4": Case("mp4", vary()),
    "mp4, 30 fps": Case("mp4", vary(rate=30, times=even(30))),
    "mp4, 60 fps": Case("mp4", vary(rate=60, times=even(60))),
    "mp4, 23.976 fps": Case("mp4", vary(rate=NTSC, times=even(NTSC)), interval=0.042),
    "mp4, mono at 44100": Case("mp4", vary(sound=MONO_44)),
    "mp4, no sound": Case("mp4", vary(sound=None), beeps=None),
    "mp4, fragmented": Case("mp4", faststart),
    "mp4, 4:4:4": Case("mp4", vary(pixel_format="yuv444p")),
    "mp4, HEVC": Case("mp4", vary(codec="libx265", options=(("x265-params", "log-level=none"),))),
    "mov, ProRes": Case("mov", vary(container="mov", codec="prores_ks", pixel_format="yuv422p10le", sound=PCM)),
    "mkv, FLAC": Case("mkv", vary(**MKV, sound=FLAC)),
    "mkv, Opus": Case("mkv", vary(**MKV, sound=OPUS)),
    "webm, VP8": Case("webm", vary(**{**WEBM, "codec": "libvpx"})),
    "webm, VP9": Case("webm", vary(**WEBM)),
    "avi, MPEG-4": Case("avi", vary(**{**AVI, "codec": "mpeg4", "options": ()})),
    "avi, B-frames": Case("avi", vary(**AVI)),
    "ts": Case("ts", vary(**TS)),
    "ts, MPEG-2": Case("ts", vary(**TS, codec="mpeg2video", sound=MP2)),
    "mpeg-ps": Case("mpg", vary(**PS)),
    "flv": Case("flv", vary(container="flv")),
    "gif": Case("gif", vary(container="gif", codec="gif", pixel_format="rgb8", sound=None, options=()), beeps=None),
    "raw h264": Case("h264", vary(container="h264", sound=None), beeps=None),
    "webm of a browser": Case("webm", browser(times=UNEVEN, rate=1000, sound=OPUS, **MS), interval=0.05),
    "webm of a browser, even": Case("webm", browser(times=even(30), rate=1000, sound=OPUS, **MS)),
    "webm that says 1000 fps": Case(
        "webm", vary(**{**WEBM, "codec": "libvpx"}, times=UNEVEN, rate=1000, **MS), interval=0.05
    ),
    "mkv that says 1000 fps": Case("mkv", vary(**MKV, times=UNEVEN, rate=1000, **MS), interval=0.05),
    "freeze in mp4": Case("mp4", vary(times=FREEZE, rate=60)),
    "freeze in mkv": Case("mkv", vary(**MKV, times=FREEZE, rate=60)),
    "freeze in webm": Case("webm", vary(**WEBM, times=FREEZE, rate=60)),
    "screen recording, mp4": Case("mp4", vary(times=SPARSE, rate=30, **MS)),
    "screen recording, mkv": Case("mkv", vary(**MKV, times=SPARSE, rate=30, **MS)),
    "screen recording, browser": Case("webm", browser(times=SPARSE, rate=1000, sound=OPUS, **MS)),
    "phone's jitter, mp4": Case("mp4", vary(times=JITTERING, rate=30, **MS)),
    "phone's jitter, mov": Case("mov", vary(container="mov", times=JITTERING, rate=30, **MS)),
    "hole in the sound, mkv": Case("mkv", vary(**MKV, sound=replace(OPUS, parts=GAP)), beeps=WITHOUT_FIRST),
    "hole in the sound, ts": Case("ts", vary(**TS, sound=replace(MP2, parts=GAP)), beeps=WITHOUT_FIRST),
    "sound that begins late": Case(
        "mkv", vary(**MKV, sound=replace(FLAC, parts=((1.5, SECONDS, 2, SAMPLE_RATE),))), beeps=WITHOUT_FIRST
    ),
    "sound that ends early": Case("mp4", vary(sound=Sound(parts=((0.0, 1.5, 2, SAMPLE_RATE),))), beeps=(1.0,)),
    "5.1": Case("mkv", vary(**MKV, sound=Sound("flac", "5.1", SURROUND["5.1"], "s16"))),
    "7.1, FLAC": Case("mkv", vary(**MKV, sound=Sound("flac", "7.1", SURROUND["7.1"], "s16")), note="became 6"),
    "7.1, AAC": Case("mp4", vary(sound=Sound("aac", "7.1", SURROUND["7.1"], "s16")), note="became 6"),
    "from 5 s, mkv": Case("mkv", vary(**MKV, late=5.0)),
    "from 5 s, ts": Case("ts", vary(**TS, late=5.0)),
    "wide pixels, mp4": Case("mp4", vary(prepare=with_aspect(Fraction(4, 3))), shape=(85, HEIGHT)),
    "wide pixels, mov": Case("mov", vary(container="mov", prepare=with_aspect(Fraction(4, 3))), shape=(85, HEIGHT)),
    "narrow pixels, mkv": Case("mkv", vary(**MKV, prepare=with_aspect(Fraction(8, 9))), shape=(WIDTH, 54)),
    "interlaced": Case("mkv", vary(**MKV, codec="mpeg2video", prepare=interlaced), note="interlaced"),
    "turned right": Case("mp4", vary(prepare=turned(-90)), **QUARTER_RIGHT),
    "turned left": Case("mp4", vary(prepare=turned(90)), shape=(HEIGHT, WIDTH), corner=(True, False)),
    "upside down": Case("mp4", vary(prepare=turned(180)), corner=(True, True)),
    "mirrored": Case("mp4", vary(prepare=turned(0, hflip=True)), corner=(False, True)),
    "flipped": Case("mp4", vary(prepare=turned(0, vflip=True)), corner=(True, False)),
    "wide pixels, turned right": Case(
        "mov",
        vary(container="mov", prepare=lambda stream: (with_aspect(Fraction(4, 3))(stream), turned(-90)(stream))),
        shape=(HEIGHT, 85),
        corner=(False, True),
    ),
    "cover first, mkv": Case("mkv", with_cover(first=True)),
    "cover last, mkv": Case("mkv", with_cover(first=False)),
    "from 1.5 s, mp4": Case("mp4", vary(), (1.5, 0.0), flashes=LATE, beeps=LATE),
    "from 1.5 s, mkv": Case("mkv", vary(**MKV), (1.5, 0.0), flashes=LATE, beeps=LATE),
    "from 1.5 s, ts": Case("ts", vary(**TS), (1.5, 0.0), flashes=LATE, beeps=LATE),
    "from 1.5 s, mpeg-ps": Case("mpg", vary(**PS), (1.5, 0.0), flashes=LATE, beeps=LATE),
    "from 1.5 s, avi": Case("avi", vary(**AVI), (1.5, 0.0), flashes=LATE, beeps=LATE),
    "from 6.5 s, ts from 5 s": Case("ts", vary(**TS, late=5.0), (1.5, 0.0), flashes=LATE, beeps=LATE),
    "from 0.5 to 2.5 s": Case("mp4", vary(), (0.5, 2.0), flashes=LATE, beeps=LATE, has_start=False),
    "cut at 75 %, fragmented mp4": Case(
        "mp4", cut(faststart, 0.75), flashes=MARKS[:2], beeps=MARKS[:2], note="", has_start=False
    ),
    "cut at 60 %, mkv": Case(
        "mkv", cut(vary(**MKV), 0.6), flashes=MARKS[:2], beeps=MARKS[:2], note="ends early", has_start=False
    ),
    "damaged in the middle, mkv": Case(
        "mkv",
        broken(vary(**MKV, options=(("g", "12"), ("crf", "1"))), 0.7, 0.72),
        flashes=MARKS[:2],
        beeps=MARKS[:2],
        note="damaged",
        has_start=False,
    ),
}


def edges(levels: list[tuple[float, float]], limit: float) -> tuple[float, ...]:
    """The times at which levels rise above `limit`."""
    return tuple(
        time
        for index, (time, level) in enumerate(levels)
        if level > limit and (index == 0 or levels[index - 1][1] <= limit)
    )


def middle(picture: np.ndarray) -> float:
    """How light the middle is of (H, W, 3)."""
    height, width = picture.shape[:2]
    return float(picture[height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8].mean())


def corner_of(picture: np.ndarray) -> tuple[bool, bool]:
    """(bottom, right) of the patch in a dark picture."""
    height, width = picture.shape[0] // 8, picture.shape[1] // 8
    corners = {
        (bottom, right): float(picture[-height:, :][:, slice(-width, None) if right else slice(width)].mean())
        if bottom
        else float(picture[:height, :][:, slice(-width, None) if right else slice(width)].mean())
        for bottom in (False, True)
        for right in (False, True)
    }
    return max(corners, key=lambda place: corners[place])


def beeps_in(samples: np.ndarray, rate: int) -> tuple[float, ...]:
    """`samples`: (channels, n). The loudness of each millisecond tells."""
    step = rate // 1000
    loud = np.abs(samples[0, : samples.shape[1] // step * step]).reshape(-1, step).max(axis=1)
    times = np.flatnonzero(loud > 0.15) * step / rate
    return tuple(float(time) for index, time in enumerate(times) if index == 0 or time - times[index - 1] > 0.05)


@dataclass(frozen=True)
class Seen:
    """What a way made of a file."""

    shape: tuple[int, int]
    flashes: tuple[float, ...]
    beeps: tuple[float, ...] | None
    corner: tuple[bool, bool]

    def __str__(self) -> str:
        beeps = "-" if self.beeps is None else " ".join(f"{time:.2f}" for time in self.beeps)
        return f"{self.shape[0]}x{self.shape[1]} {' '.join(f'{time:.2f}' for time in self.flashes)} | {beeps}"


def seen_in(path: Path) -> Seen:
    """What is in a file that was exported."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        aspect = stream.sample_aspect_ratio or Fraction(1)
        aspect = aspect if path.suffix != ".gif" else Fraction(1)
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]
    dark = next(frame for _, frame in frames if middle(frame) < 100)
    with av.open(str(path)) as container:
        sounds = container.streams.audio
        beeps = None
        if sounds:
            resampler = av.AudioResampler("fltp", rate=SAMPLE_RATE)
            parts = [part for frame in container.decode(sounds[0]) for part in resampler.resample(frame)]
            late = np.zeros((1, max(0, round(parts[0].time * SAMPLE_RATE))), np.float32)
            beeps = beeps_in(np.concatenate([late, *(part.to_ndarray()[:1] for part in parts)], 1), SAMPLE_RATE)
    height, width = dark.shape[:2]
    shape = (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))
    return Seen(shape, edges([(time, middle(frame)) for time, frame in frames], 140), beeps, corner_of(dark))


def extended(video: Any) -> tuple[Seen, list[str], float]:
    """What Extend keeps of a video: its frames at 16 a second, and its sound from the first of them on."""
    from cosmos_predict25.nodes.host.clips import clip_of, sound_from

    clip, audio = clip_of(video, lambda: None)
    frames = [(torch.as_tensor(frame)[..., :3].float().numpy()) for frame in clip.frames()]
    assert len(frames) == clip.num_frames
    frames = [frame * (255 if frame.max() <= 1 else 1) for frame in frames]
    audio = sound_from(audio, clip.skipped)
    beeps = beeps_in(audio["waveform"][0].numpy(), audio["sample_rate"]) if audio else None
    dark = next(frame for frame in frames if middle(frame) < 100)
    levels = [(index / 16, middle(frame)) for index, frame in enumerate(frames)]
    return (
        Seen((clip.width, clip.height), edges(levels, 140), beeps, corner_of(dark)),
        list(clip.notes),
        float(clip.skipped),
    )


@pytest.mark.sample(12)
@pytest.mark.parametrize("name", CASES)
def test_a_file_keeps_its_times_and_its_shape_on_all_ways(core, tmp_path, name):
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.videos import end_of, source_of
    from cosmos_predict25.pipeline.fal import Journal
    from cosmos_predict25.pipeline.fal.start import start_to_send

    case = CASES[name]
    file = tmp_path / f"source.{case.suffix}"
    file.write_bytes(case.make())
    video = InputImpl.VideoFromFile(str(file), start_time=case.part[0], duration=case.part[1])
    rows, notes = {}, []
    for format in VIDEO_OUTPUT_TYPES:
        source = source_of(video, None, lambda: None)
        saved = export(**vars(source), path=tmp_path / f"saved{SUFFIX[format]}", format=format)
        rows[format], notes = seen_in(saved.path), notes + list(saved.notes)
    rows["Extend"], more, skipped = extended(video)
    assert case.note in " ".join(notes)
    assert case.note in " ".join(more) or "became 6" in case.note
    for way, seen in rows.items():
        print(f"{name:28} {way:18} {seen}")
    for way, seen in rows.items():
        early = skipped if way == "Extend" else 0.0  # its first frame is not the file's
        flashes, beeps = ([time - early for time in times or ()] for times in (case.flashes, case.beeps))
        interval = 1 / 16 if way == "Extend" else 0.0
        lost = 1 / 50 if way == GIF else 0.0
        near = (pytest.approx(case.shape[0], abs=2), pytest.approx(case.shape[1], abs=2))
        assert seen.shape == near, way
        assert len(seen.flashes) == len(case.flashes), way
        assert seen.flashes == pytest.approx(tuple(flashes), abs=case.interval + interval + lost + 0.002), way
        if way != GIF:
            assert (seen.beeps or ()) == pytest.approx(tuple(beeps), abs=BEEP_TOLERANCE), way
        assert seen.corner == case.corner, way
    if not case.has_start:
        return
    frames = end_of(video).conditioning_frames(*case.shape)
    levels = [middle(frame.numpy() * 255) for frame in frames]
    print(f"{name:28} {'start':18} {' '.join(f'{level:.0f}' for level in levels)}")
    assert len(levels) == 5
    assert levels[0] < 100
    assert min(levels[3:]) > 140
    sent = start_to_send(end_of(video), mp4_bytes, Journal(tmp_path / "jobs"), size=(WIDTH, HEIGHT))
    with av.open(io.BytesIO(sent.media.content)) as container:
        uploaded = [middle(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert uploaded == pytest.approx(levels, abs=12)


def test_a_mirrored_video_is_mirrored():
    """As of a phone's camera in front: it is not turned."""
    from cosmos_predict25.pipeline.clip import FileClip

    clip = FileClip(io.BytesIO(CASES["mirrored"].make()))
    frame = (next(clip.frames()) * 255).numpy()
    assert corner_of(frame) == (False, True)


PATCHES = ((255, 255, 255), (200, 30, 30), (224, 160, 128), (128, 128, 128))
TO_BT2020 = ((0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956))
"""ITU-R BT.2087, linear light."""
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
PQ, HLG = 16, 18


def pq(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084."""
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(nits: np.ndarray) -> np.ndarray:
    """ARIB STD-B67 for a screen of 1000 nits, whose system gamma is 1.2 (ITU-R BT.2100)."""
    display = nits / 1000
    scene = display * np.maximum(display @ LUMA_2020, 1e-9)[:, None] ** (1 / 1.2 - 1)
    log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)


def hdr_frame(transfer: int) -> av.VideoFrame:
    """`PATCHES` in BT.2020 at a reference white of 203 nits (ITU-R BT.2408), 10 bits."""
    nits = 203 * (np.array(PATCHES) / 255) ** 2.4 @ np.array(TO_BT2020).T
    rgb = (pq if transfer == PQ else hlg)(nits)
    luma = rgb @ LUMA_2020
    blue, red = ((rgb[:, place] - luma) / (2 * (1 - LUMA_2020[place])) for place in (2, 0))
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv444p10le")
    for plane, values in zip(frame.planes, (64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red), strict=True):
        samples: Any = np.frombuffer(plane, np.uint16).reshape(HEIGHT, -1)  # pyright: ignore
        samples[:, :WIDTH] = np.repeat(values.round().astype(np.uint16), WIDTH // len(PATCHES))
    frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 9, 9, transfer, 1
    return frame


@pytest.mark.slow  # FFmpeg takes a second to make its table for each way
@pytest.mark.parametrize(
    ("transfer", "name"),
    [pytest.param(HLG, "HLG", id="HLG"), pytest.param(PQ, "PQ", id="PQ", marks=pytest.mark.exhaustive)],
)
def test_hdr_becomes_the_colours_that_a_standard_screen_shows(core, tmp_path, transfer, name):
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.videos import end_of
    from cosmos_predict25.pipeline.clip import FileClip

    file = tmp_path / "hdr.mkv"
    with av.open(str(file), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=16)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, transfer, 1
        output.mux(stream.encode(hdr_frame(transfer)))
        output.mux(stream.encode(None))
    clip = FileClip(file)
    ways = {"start": end_of(InputImpl.VideoFromFile(str(file))).frames[0]}
    saved = export(clip, tmp_path / "saved.mov", format="PRORES4444 (.mov)", quality="maximum")
    assert f"HDR ({name}) was converted to standard colours (BT.709)." in saved.notes
    saved_clip = FileClip(saved.path)
    assert (saved_clip.colours.primaries, saved_clip.colours.transfer) == (1, 1)
    ways["saved"] = next(saved_clip.frames())
    for way, frame in ways.items():
        found = [tuple((frame[HEIGHT // 2, 8 + 16 * place, :3] * 255).round().int().tolist()) for place in range(4)]
        print(f"{name:28} {way:18} {found}")
        for patch, wanted in zip(found, PATCHES, strict=True):
            assert patch == pytest.approx(wanted, abs=3 if way == "start" else 4), way


@pytest.mark.parametrize(
    ("second", "third"), [((1.5, 2.4, 6, SAMPLE_RATE), "5.1"), ((1.5, 2.4, 2, 44100), "stereo")], ids=["5.1", "44100"]
)
def test_sound_that_changes_in_mid_stream_goes_on(tmp_path, second, third):
    """A TS of three pieces, as broadcasters send them: the second has other sound."""
    from cosmos_predict25.pipeline.clip import FileClip

    pieces = (
        (Sound(parts=((0.0, 1.5, 2, SAMPLE_RATE),)), (0.0, 1.5)),
        (Sound("aac", third, (second,)), (1.5, 2.4)),
        (Sound(parts=((2.4, SECONDS, 2, SAMPLE_RATE),)), (2.4, SECONDS)),
    )
    file = tmp_path / "changes.ts"
    times = [tuple(time for time in BASE.times if begin <= time < end) for _, (begin, end) in pieces]
    sounds = [sound for sound, _ in pieces]
    made = (vary(**TS, sound=one, times=part, late=10.0)() for one, part in zip(sounds, times, strict=True))
    file.write_bytes(b"".join(made))
    sound = FileClip(file).sound()
    assert sound
    assert (sound.channels, sound.sample_rate) == (2, SAMPLE_RATE)
    samples = np.concatenate(list(sound.chunks()), 1)
    assert beeps_in(samples, SAMPLE_RATE) == pytest.approx(MARKS, abs=BEEP_TOLERANCE)


def test_times_that_begin_anew_go_on():
    """Two recordings in one file, each from 0 s on."""
    from cosmos_predict25.pipeline.clip import FileClip

    clip = FileClip(io.BytesIO(vary(**TS)() + vary(**TS)()))
    assert clip.num_frames in (len(BASE.times), 2 * len(BASE.times))
    assert len(list(clip.pictures())) == 2 * len(BASE.times)


@pytest.mark.parametrize("alpha", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("format", VIDEO_OUTPUT_TYPES[1:])
def test_a_transparent_webm_stays_transparent(tmp_path, alpha, format):
    from cosmos_predict25.pipeline.clip import FileClip

    def picture(_: float) -> np.ndarray:
        rgba = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
        rgba[:, : WIDTH // 2, 3], rgba[:, WIDTH // 2 :, 3] = 0, 255
        return rgba

    file = tmp_path / "transparent.webm"
    with av.open(str(file), "w") as output:
        stream: Any = output.add_stream(alpha, rate=FPS, options={"auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuva420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgba")))
        output.mux(stream.encode(None))
    clip = FileClip(file)
    assert clip.channels == 4
    saved = export(clip, tmp_path / f"saved{SUFFIX[format]}", format=format).path
    opacity = next(FileClip(saved).frames())[..., 3].float()
    opacity = opacity / (255 if format == GIF else 1)
    assert opacity[:, : WIDTH // 2 - 4].max() < 0.05
    assert opacity[:, WIDTH // 2 + 4 :].min() > 0.95


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "film.mp4 cannot be read .the file is empty.: choose another file."),
        (b"no video at all, but a text", "film.mp4 cannot be read .Invalid data.*: choose another file."),
        (vary()()[:-1500], "film.mp4 cannot be read .its index is missing.*: get the whole file."),
    ],
    ids=["empty", "a text", "no index"],
)
def test_a_broken_file_is_refused_everywhere_in_one_sentence_with_its_name(core, tmp_path, content, sentence):
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.clips import clip_of
    from cosmos_predict25.nodes.host.videos import end_of, source_of

    (tmp_path / "film.mp4").write_bytes(content)
    video = InputImpl.VideoFromFile(str(tmp_path / "film.mp4"))
    for way in (end_of, lambda video: clip_of(video, lambda: None), lambda video: source_of(video, None, lambda: None)):
        with pytest.raises(InvalidRequestError, match=f"^{sentence}$"):
            way(video)
