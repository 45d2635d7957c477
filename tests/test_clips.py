"""What a node goes on from: a file is decoded frame by frame, and one that says little of itself is read too."""

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy
import pytest
import torch
from PIL import Image

from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.tests.test_extend_node import HEIGHT, SAMPLE_RATE, WIDTH, make_clip

RED = (200, 30, 30)
STREAM_FRAMES = 20


def nothing() -> None:
    pass


def make_picture(path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT), RED).save(path)


def make_stream(path: Path) -> None:
    """Each frame is lighter than the one before."""
    with av.open(str(path), "w", format="h264") as container:
        video = container.add_stream("libx264", rate=16, options={"crf": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(STREAM_FRAMES):
            pixels = numpy.full((HEIGHT, WIDTH, 3), 20 + 10 * index, numpy.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))


@pytest.mark.parametrize(
    ("name", "make", "num_frames"),
    [("one picture.gif", make_picture, 1), ("raw.h264", make_stream, STREAM_FRAMES)],
    ids=["a GIF of one picture", "a raw stream"],
)
def test_a_file_that_does_not_say_how_long_it_is_can_be_saved_started_from_and_gone_on_from(
    core: None, tmp_path: Path, name: str, make: Callable[[Path], None], num_frames: int
) -> None:
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.clips import clip_of
    from cosmos_predict25.nodes.host.videos import end_of, file_of, source_of, with_gif_frame_rate
    from cosmos_predict25.pipeline.export import export

    make(tmp_path / name)
    video = InputImpl.VideoFromFile(str(tmp_path / name))
    assert file_of(video) == str(tmp_path / name)
    source = source_of(with_gif_frame_rate(video), None, nothing)
    assert export(**vars(source), path=tmp_path / "saved.mp4").num_frames == num_frames
    clip, audio = clip_of(video, nothing)
    frames = [torch.as_tensor(frame).float().mean() for frame in clip.frames()]
    assert (clip.num_frames, len(frames), clip.width, clip.height, audio) == (
        num_frames,
        num_frames,
        WIDTH,
        HEIGHT,
        None,
    )
    assert frames == sorted(frames)
    end = end_of(video)
    assert len(end.frames) <= num_frames
    assert end.conditioning_frames(8, 8)[-1].mean() == pytest.approx(
        sum(RED) / 3 / 255 if num_frames == 1 else (20 + 10 * (num_frames - 1)) / 255, abs=0.02
    )


@pytest.mark.parametrize("trim", [None, (0.5, 1.0), (-1.0, 0.0)], ids=["whole", "a part", "the end"])
def test_a_clip_of_a_file_has_the_frames_the_rate_and_the_sound_that_comfyui_gives(
    core: None, tmp_path: Path, trim: tuple[float, float] | None
) -> None:
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.clips import clip_of

    make_clip(tmp_path / "clip.mp4", 60, 30, 2)
    video = InputImpl.VideoFromFile(str(tmp_path / "clip.mp4"))
    if trim:
        video = video.as_trimmed(*trim, strict_duration=False)
        assert video
    clip, audio = clip_of(video, nothing)
    wanted = video.get_components()
    indices = Start(wanted.images, wanted.frame_rate).frame_indices()
    assert (clip.num_frames, clip.height, clip.width) == (len(indices), *wanted.images.shape[1:3])
    assert clip.frame_rate == wanted.frame_rate == Fraction(30)
    for frame, expected in zip(clip.frames(), wanted.images[indices], strict=True):
        assert (frame - expected).abs().mean() < 1 / 255
    assert audio
    assert wanted.audio
    assert audio["sample_rate"] == wanted.audio["sample_rate"]
    ours, cores = audio["waveform"], wanted.audio["waveform"]
    assert ours.shape[:2] == cores.shape[:2]
    length = min(ours.shape[2], cores.shape[2])
    # Ours begins with the first picture, where ComfyUI's begins at the time that was asked for.
    assert cores.shape[2] - SAMPLE_RATE // 30 <= ours.shape[2] <= cores.shape[2] + 1
    assert torch.equal(ours[..., -length:], cores[..., -length:])


def test_a_gif_has_its_own_rate(core: None, tmp_path: Path) -> None:
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.clips import clip_of

    pictures = [Image.new("RGB", (WIDTH, HEIGHT), (10 * index, 0, 0)) for index in range(16)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[60, 70] * 8)
    clip, _ = clip_of(InputImpl.VideoFromFile(str(tmp_path / "a.gif")), nothing)
    assert (clip.num_frames, float(clip.frame_rate)) == (16, pytest.approx(1000 / 65, rel=0.01))


def test_a_video_of_another_packs_class_is_gone_on_from_as_it_is(core: None, tmp_path: Path) -> None:
    from comfy_api.latest import InputImpl, Types

    from cosmos_predict25.nodes.host.clips import clip_of

    class Inverted(InputImpl.VideoFromFile):
        def get_components(self) -> Types.VideoComponents:
            components = super().get_components()
            components.images = 1 - components.images
            return components

    make_clip(tmp_path / "clip.mp4", 7, 16, 0.5)
    video = Inverted(str(tmp_path / "clip.mp4"))
    clip, _ = clip_of(video, nothing)
    assert torch.stack(list(clip.frames())).equal(video.get_components().images)


PEAK = """
import resource, sys
from cosmos_predict25.devtools import comfy_on_cpu
from comfy_api.latest import InputImpl
from cosmos_predict25.nodes.host.clips import clip_of
from cosmos_predict25.pipeline.extension import Extension
from cosmos_predict25.pipeline.observer import NullObserver
from cosmos_predict25.pipeline.request import GenerationRequest

def grow(name):
    clip, _ = clip_of(InputImpl.VideoFromFile(name), lambda: None)
    request = GenerationRequest(prompt="a cat", num_frames=13, width=32, height=32)
    next(Extension(clip, request, 8).parts(NullObserver()))
    return clip.num_frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

_, before = grow(sys.argv[1])
count, after = grow(sys.argv[2])
print(count, (after - before) / 1024)
"""


@pytest.mark.slow
def test_a_long_source_is_never_held_at_its_own_size(tmp_path: Path) -> None:
    """150 frames of 640x360, which would be 415 MB of floats."""
    from cosmos_predict25.pipeline.export import export

    still = torch.full((1, 360, 640, 3), 100, dtype=torch.uint8)
    files = [export(still.expand(count, -1, -1, -1), tmp_path / f"{count}.mp4").path for count in (20, 150)]
    command = [sys.executable, "-c", PEAK, *map(str, files)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
    count, megabytes = output.splitlines()[-1].split()
    assert int(count) == 150
    assert float(megabytes) < 60
