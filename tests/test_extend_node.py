"""Pictures and clips to start from, in a real ComfyUI: Generate and Extend with Load Image and Load Video."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
import torch
from PIL import Image

from cosmos_predict25.devtools.comfyui import ComfyUI, PromptFailedError
from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.tests.test_comfyui import events, images_of, node_id, said, shared_workflow

WIDTH, HEIGHT = 64, 48
SETTINGS = {"num_frames": 9, "num_inference_steps": 1, "guidance_scale": 1, "width": WIDTH, "height": HEIGHT}
SAMPLE_RATE = 48000


def make_clip(path: Path, frames: int, rate: int, sound_seconds: float) -> None:
    """Each frame is lighter than the one before; the sound is silent in its first half."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for index in range(frames):
            pixels = numpy.full((HEIGHT, WIDTH, 3), 20 + 200 * index // frames, numpy.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        wave = numpy.sin(numpy.arange(int(sound_seconds * SAMPLE_RATE)) / 20).astype(numpy.float32)
        wave[: len(wave) // 2] = 0
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def input_of(server: ComfyUI, name: str) -> Path:
    return server.base / "input" / name


def with_extend(prompt: dict[str, Any], video: list[Any], **values: Any) -> str:
    """Puts an Extend node into `prompt` with the same model, prompt and settings, and gives its id."""
    generate = prompt[node_id(prompt, "CosmosPredict25Generate")]
    shared = {name: generate["inputs"][name] for name in ("model", "prompt", "settings")}
    name = f"extend {len(prompt)}"
    inputs = {**shared, "video": video, "new_frames": 10, "overlap": 5, **values}
    prompt[name] = {"class_type": "CosmosPredict25Extend", "inputs": inputs}
    return name


def test_a_picture_starts_a_video(any_comfyui):
    Image.new("RGBA", (301, 77), (200, 30, 30, 255)).save(input_of(any_comfyui, "picture.png"))
    prompt = shared_workflow(any_comfyui, **SETTINGS, seed=1)
    generate = node_id(prompt, "CosmosPredict25Generate")
    prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": "picture.png"}}
    prompt[generate]["inputs"]["image"] = ["picture", 0]
    messages = list(any_comfyui.follow(prompt))
    assert any_comfyui.wait(messages[-1].data["prompt_id"])["status"]["status_str"] == "success"
    assert "Encoding the start" in [message.data["text"] for message in messages if message.type == "text"]

    prompt["clip"] = {"class_type": "CreateVideo", "inputs": {"images": ["picture", 0], "fps": 16}}
    prompt[generate]["inputs"]["video"] = ["clip", 0]
    with pytest.raises(PromptFailedError, match="Both image and video are connected"):
        any_comfyui.run(prompt)


def test_a_clip_goes_on_with_its_sound(any_comfyui):
    make_clip(input_of(any_comfyui, "clip.mp4"), 59, 30, 2)
    prompt = shared_workflow(any_comfyui, **SETTINGS, seed=2)
    prompt["clip"] = {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}}
    extend = with_extend(prompt, ["clip", 0])
    export = prompt[node_id(prompt, "CosmosPredict25ExportVideo")]
    export["inputs"]["video"] = [extend, 0]
    messages = list(any_comfyui.follow(prompt))
    entry = any_comfyui.wait(messages[-1].data["prompt_id"])
    (file,) = any_comfyui.saved_files(entry)
    with av.open(str(file)) as container:
        levels = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 16
    start = Start(torch.zeros(59, 1, 1, 3), 30)
    assert len(levels) == 31 + 10
    assert levels[:31] == pytest.approx([20 + 200 * index // 59 for index in start.frame_indices()], abs=2.5)
    with av.open(str(file)) as container:
        loud = numpy.concatenate([abs(frame.to_ndarray()[0]) for frame in container.decode(audio=0)])
    # Cut by what lies before the first moment, so that it stays with the pictures. AAC adds 21 ms each time.
    late = numpy.argmax(loud > 0.3) / SAMPLE_RATE - (1 - float(start.skipped()))
    assert 0 <= late <= 0.045 < start.skipped()
    lines = " ".join(entry["outputs"][extend]["cosmos_predict25"])
    assert lines.startswith("10 frames added to 31 in ")
    assert "from 30 fps to 16 fps" in lines
    texts = [message.data["text"] for message in messages if message.type == "text"]
    assert "Part 3 of 3: Denoising, step 1 of 1" in texts


def test_the_sources_frames_are_not_touched_and_only_what_changed_runs_again(comfyui):
    make_clip(input_of(comfyui, "sixteen.mp4"), 20, 16, 1)
    prompt = shared_workflow(comfyui, **SETTINGS, seed=3)
    prompt["clip"] = {"class_type": "LoadVideo", "inputs": {"file": "sixteen.mp4"}}
    prompt["source"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["clip", 0]}}
    first = with_extend(prompt, ["source", 0], new_frames=4)
    second = with_extend(prompt, [first, 0], new_frames=3)
    prompt["joined"] = {"class_type": "GetVideoComponents", "inputs": {"video": [second, 0]}}
    prompt["added"] = {"class_type": "GetVideoComponents", "inputs": {"video": [second, 1]}}
    del prompt[node_id(prompt, "CosmosPredict25Generate")]
    source, joined, added = (images_of(comfyui, prompt, [name, 0]) for name in ("source", "joined", "added"))
    assert (len(source), len(joined), len(added)) == (20, 27, 3)
    assert (joined[:20] == source).all()
    assert (joined[24:] == added).all()

    prompt["other"] = {"class_type": "CosmosPredict25Prompt", "inputs": {"prompt": "a dog", "negative_prompt": ""}}
    prompt[second]["inputs"]["prompt"] = ["other", 0]
    nodes = {name: node for name, node in prompt.items() if node["class_type"] != "CosmosPredict25ExportVideo"}
    nodes["save"] = {"class_type": "SaveImage", "inputs": {"images": ["joined", 0], "filename_prefix": "frame"}}
    (cached,) = events(comfyui.run(nodes), "execution_cached")
    assert first in cached["nodes"]
    assert second not in cached["nodes"]


def test_a_short_clip_is_told(comfyui):
    make_clip(input_of(comfyui, "short.mp4"), 3, 16, 0.2)
    prompt = shared_workflow(comfyui, **SETTINGS, seed=4)
    prompt["clip"] = {"class_type": "LoadVideo", "inputs": {"file": "short.mp4"}}
    prompt[node_id(prompt, "CosmosPredict25Generate")]["inputs"]["video"] = ["clip", 0]
    lines = " ".join(said(comfyui.run(prompt), prompt, "CosmosPredict25Generate"))
    assert "fewer than 5 frames at 16 fps" in lines


@pytest.mark.parametrize("trim", [None, (0.5, 1.0), (-1.0, 0.0)], ids=["whole", "a part", "the end"])
def test_of_a_long_file_only_the_end_is_decoded(core, tmp_path, trim):
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.videos import end_of, start_of

    make_clip(tmp_path / "long.mp4", 90, 30, 3 if trim == (-1.0, 0.0) else 4.5)
    video = InputImpl.VideoFromFile(str(tmp_path / "long.mp4"))
    if trim:
        video = video.as_trimmed(*trim, strict_duration=False)
        assert video
    whole, end = start_of(video.get_components()), end_of(video)
    assert (end.frame_rate, len(end.frames)) == (16, 5)
    assert (end.conditioning_frames(8, 8) - whole.conditioning_frames(8, 8)).abs().max() < 2 / 255


PLACES = {
    "webm.webm": (range(160), 16),
    "stream.ts": (range(160), 16),
    "the last picture a second late.mp4": ([*range(60), 90], 30),
    "a picture a second.mp4": (range(0, 16 * 12, 16), 16),
    "from 5 s.mkv": (range(80, 240), 16),
}
"""Where the pictures of a file lie, counted in frames of its rate."""


@pytest.mark.parametrize("name", PLACES)
def test_the_end_of_any_file_is_what_a_video_goes_on_from(core, tmp_path, name):
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.videos import end_of, start_of

    places, rate = PLACES[name]
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libvpx-vp9" if name.endswith(".webm") else "libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for count, place in enumerate(places):
            pixels = numpy.full((HEIGHT, WIDTH, 3), 20 + 200 * count // len(places), numpy.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = InputImpl.VideoFromFile(str(tmp_path / name))
    whole, end = start_of(video.get_components()), end_of(video)
    moments = [places[-1] / rate - back / 16 for back in (4, 3, 2, 1, 0)]
    shown = [sum(place / rate <= moment + 0.5 / rate for place in places) - 1 for moment in moments]
    assert len(end.frames) == 5
    assert (end.frames - whole.frames[shown]).abs().max() < 2 / 255
