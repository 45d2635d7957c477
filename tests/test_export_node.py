"""The export node in a real ComfyUI: files, metadata, previews, refusals, Stop."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
from PIL import Image

from cosmos_predict25.devtools import environment
from cosmos_predict25.devtools.comfyui import ComfyUI, Message, PromptFailedError, PromptRefusedError
from cosmos_predict25.pipeline.request import VIDEO_QUALITIES
from cosmos_predict25.tests.test_comfyui import events

REPO = Path(__file__).resolve().parents[1]
NUM_FRAMES, WIDTH, HEIGHT, FPS = 10, 64, 48, Fraction(25, 2)
LEVELS = [20 + 20 * index for index in range(NUM_FRAMES)]
SAMPLE_RATE = 48000
WORKFLOW = {"id": "a-workflow", "nodes": [], "links": [], "version": 0.4, "extra": {"made": "by a test"}}
CODECS = {
    "X264 (.mp4)": ("h264", "aac"),
    "VP9 (.webm)": ("vp9", "opus"),
    "PRORES4444 (.mov)": ("prores", "pcm_s16le"),
    "GIF (.gif)": ("gif", None),
}
MP4, WEBM, MOV, GIF = CODECS
all_formats = pytest.mark.parametrize("format", CODECS)


def suffix(format: str) -> str:
    return format[format.index("(") + 1 : -1]


def make_clip(path: Path) -> None:
    """Grey frames, each lighter than the one before, with a tone, as an MP4 of another program."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "4"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        for level in LEVELS:
            pixels = numpy.full((HEIGHT, WIDTH, 3), level, numpy.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        seconds = numpy.arange(int(SAMPLE_RATE * NUM_FRAMES / FPS)) / SAMPLE_RATE
        tone = 0.5 * numpy.sin(2 * numpy.pi * 440 * seconds).astype(numpy.float32)
        frame = av.AudioFrame.from_ndarray(numpy.stack((tone, tone)), format="fltp", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def make_noise(path: Path, count: int) -> None:
    noise = numpy.random.default_rng(0).integers(0, 256, (360, 640, 3), numpy.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "30"})
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        for index in range(count):
            picture = av.VideoFrame.from_ndarray(numpy.roll(noise, 7 * index, axis=1), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))


def make_half_transparent_picture(path: Path) -> None:
    """Green; the left half is transparent."""
    pixels = numpy.zeros((HEIGHT, WIDTH, 4), numpy.uint8)
    pixels[..., 1] = 255
    pixels[:, WIDTH // 2 :, 3] = 255
    Image.fromarray(pixels).save(path)


def prompt_with(clip: str = "clip.mp4", **inputs: Any) -> dict[str, Any]:
    """A file as VIDEO, and as `["parts", 0]` images, `["parts", 1]` audio, into the export node."""
    values = {"video": ["clip", 0], "format": MP4, "quality": "high", "filename_prefix": "video/cosmos", **inputs}
    return {
        "clip": {"class_type": "LoadVideo", "inputs": {"file": clip}},
        "parts": {"class_type": "GetVideoComponents", "inputs": {"video": ["clip", 0]}},
        "export": {
            "class_type": "CosmosPredict25ExportVideo",
            "inputs": {name: value for name, value in values.items() if value is not None},
        },
    }


def with_picture(prompt: dict[str, Any], name: str, count: int) -> dict[str, Any]:
    """Exports a picture of the input folder, with its alpha, `count` times."""
    prompt["picture"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    prompt["rgba"] = {
        "class_type": "JoinImageWithAlpha",
        "inputs": {"image": ["picture", 0], "alpha": ["picture", 1]},
    }
    prompt["repeated"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["rgba", 0], "amount": count}}
    prompt["export"]["inputs"]["images"] = ["repeated", 0]
    prompt["export"]["inputs"].pop("video", None)
    return prompt


def run(server: ComfyUI, prompt: dict[str, Any]) -> tuple[dict[str, Any], list[Message]]:
    """The export node's output in the history, and all messages of the run."""
    make_clip(server.base / "input" / "clip.mp4")
    messages = list(server.follow(prompt))
    entry = server.wait(messages[-1].data["prompt_id"])
    if entry["status"]["status_str"] != "success":
        raise PromptFailedError(entry)
    return entry["outputs"]["export"], messages


def export(server: ComfyUI, prompt: dict[str, Any]) -> Path:
    output, _ = run(server, prompt)
    return saved_file(server, output)


def saved_file(server: ComfyUI, output: dict[str, Any]) -> Path:
    (result,) = [each for each in [*output["images"], *output.get("files", [])] if each["type"] == "output"]
    return server.output / result["subfolder"] / result["filename"]


def texts(messages: list[Message]) -> list[str]:
    return [message.data["text"] for message in messages if message.type == "text" and message.data["node"] == "export"]


def said(output: dict[str, Any]) -> str:
    """What the node says when it has run."""
    return " ".join(output["cosmos_predict25"])


def grey_levels(file: Path) -> list[float]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]


def metadata_of(file: Path) -> dict[str, str]:
    with av.open(str(file)) as container:
        return {name.lower(): value for name, value in container.metadata.items()}


def packets(file: Path) -> list[bytes]:
    with av.open(str(file)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def left_and_right(file: Path) -> tuple[list[int], list[int]]:
    """RGBA in the middle of both halves of the last frame. FFmpeg's own VP9 decoder leaves alpha out."""
    with av.open(str(file)) as container:
        if container.streams.video[0].codec_context.name == "vp9":
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            frames = [frame for packet in container.demux(video=0) for frame in decoder.decode(packet)]
        else:
            frames = list(container.decode(video=0))
    pixels = frames[-1].to_ndarray(format="rgba")
    return pixels[HEIGHT // 2, WIDTH // 4].tolist(), pixels[HEIGHT // 2, WIDTH * 3 // 4].tolist()


@pytest.mark.sample(7)
@pytest.mark.parametrize("quality", VIDEO_QUALITIES)
@all_formats
def test_a_video_is_saved_in_every_format_and_quality(any_comfyui, format, quality):
    file = export(any_comfyui, prompt_with(format=format, quality=quality))
    assert file.parent == any_comfyui.output / "video"
    assert re.fullmatch(r"cosmos_\d{5}_", file.stem)
    assert file.suffix == suffix(format)
    video_codec, audio_codec = CODECS[format]
    with av.open(str(file)) as container:
        (video,) = container.streams.video
        assert video.codec_context.name.removeprefix("lib") == video_codec
        assert (video.width, video.height) == (WIDTH, HEIGHT)
        assert video.average_rate == FPS
        assert container.duration / av.time_base == pytest.approx(NUM_FRAMES / FPS, abs=0.03)
        assert [stream.codec_context.name.removeprefix("lib") for stream in container.streams.audio] == (
            [audio_codec] if audio_codec else []
        )
        if audio_codec:
            sound = numpy.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
            loudest = numpy.abs(sound.astype(float)).max() / (32768 if sound.dtype == numpy.int16 else 1)
            assert loudest == pytest.approx(0.5, abs=0.05)
    assert grey_levels(file) == pytest.approx(LEVELS, abs=3)


@all_formats
def test_images_are_saved_in_every_format(any_comfyui, format):
    prompt = prompt_with(video=None, images=["parts", 0], audio=["parts", 1], fps=20.0, format=format)
    file = export(any_comfyui, prompt)
    with av.open(str(file)) as container:
        assert container.streams.video[0].average_rate == 20
        assert bool(container.streams.audio) == (format != GIF)
    assert grey_levels(file) == pytest.approx(LEVELS, abs=3)


@all_formats
def test_the_preview_is_something_that_a_browser_shows(any_comfyui, format):
    output, _ = run(any_comfyui, prompt_with(format=format))
    (shown,) = output["images"]
    assert output["animated"] == [True]
    if format in (MOV, GIF):
        assert shown["type"] == "temp"
        proxy = any_comfyui.base / "temp" / shown["filename"]
        assert grey_levels(proxy) == pytest.approx(LEVELS, abs=3)
        with av.open(str(proxy)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.video[0].average_rate == FPS
    else:
        assert shown["type"] == "output"
    assert saved_file(any_comfyui, output).suffix == suffix(format)


def test_the_preview_of_large_prores_is_small(comfyui):
    Image.new("RGBA", (1282, 722)).save(comfyui.base / "input" / "large.png")
    output, _ = run(comfyui, with_picture(prompt_with(format=MOV), "large.png", 2))
    with av.open(str(comfyui.base / "temp" / output["images"][0]["filename"])) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (642, 362)


@pytest.mark.parametrize("format", [MP4, WEBM, MOV])
def test_the_graph_is_kept_in_the_file(any_comfyui, format):
    metadata = metadata_of(export_with_workflow(any_comfyui, prompt_with(format=format)))
    assert json.loads(metadata["workflow"]) == WORKFLOW
    assert json.loads(metadata["prompt"])["export"]["inputs"]["format"] == format


def test_the_graph_is_kept_beside_a_gif(any_comfyui):
    prompt = prompt_with(format=GIF)
    sidecar = json.loads(export_with_workflow(any_comfyui, prompt).with_suffix(".gif.json").read_text(encoding="utf-8"))
    extra = sidecar.pop("extra")
    assert extra["made"] == "by a test"
    extra["prompt"]["export"].pop("is_changed", None)  # ComfyUI's own note, where a node has a fingerprint
    assert extra["prompt"]["export"] == prompt["export"]
    assert sidecar == {name: value for name, value in WORKFLOW.items() if name != "extra"}


def prompt_of_the_demo(format: str) -> dict[str, Any]:
    """A video of 9 frames of the demo, asked for in a size that it does not make."""
    settings = {"num_frames": 9, "num_inference_steps": 1, "guidance_scale": 1.0, "seed": 5, "width": 128, "height": 64}
    files = dict.fromkeys(("transformer", "vae", "text_encoder"), "none")
    nodes = {
        "loader": ("Loader", {"checkpoint": "Demo: moving shapes (CPU)", "guardrail": False, **files}),
        "text": ("Prompt", {"prompt": "A red circle.", "negative_prompt": ""}),
        "settings": ("SamplerSettings", settings),
        "video": ("Generate", {"model": ["loader", 0], "prompt": ["text", 0], "settings": ["settings", 0]}),
        "export": (
            "ExportVideo",
            {"video": ["video", 0], "format": format, "quality": "low", "filename_prefix": "video/demo"},
        ),
    }
    return {name: {"class_type": f"CosmosPredict25{kind}", "inputs": inputs} for name, (kind, inputs) in nodes.items()}


MADE_WITH = {
    **{"checkpoint": "moving-shapes", "prompt": "A red circle.", "negative_prompt": "", "seed": 5},
    **{"num_frames": 9, "num_inference_steps": 1, "guidance_scale": 1.0, "width": 96, "height": 64},
    "schedule": "standard",
}


@all_formats
def test_the_file_says_what_the_video_was_made_with(comfyui, format):
    file = export(comfyui, prompt_of_the_demo(format))
    if format == GIF:
        assert json.loads(file.with_suffix(".gif.json").read_text(encoding="utf-8"))["comment"] == MADE_WITH
    else:
        assert json.loads(metadata_of(file)["comment"]) == MADE_WITH


def export_with_workflow(server: ComfyUI, prompt: dict[str, Any]) -> Path:
    """As the frontend queues a prompt."""
    make_clip(server.base / "input" / "clip.mp4")
    body = {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": WORKFLOW}}}
    entry = server.wait(server.request("/prompt", body)["prompt_id"])
    return saved_file(server, entry["outputs"]["export"])


@pytest.fixture(scope="module")
def comfyui_without_metadata(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    base = tmp_path_factory.mktemp("without-metadata")
    source = environment.source_folder(environment.NEWEST)
    with ComfyUI(source, base, REPO, arguments=["--disable-metadata"]) as server:
        yield server


@all_formats
def test_disable_metadata_is_honoured(comfyui_without_metadata, format):
    file = export_with_workflow(comfyui_without_metadata, prompt_with(format=format))
    assert not {"prompt", "workflow"} & set(metadata_of(file))
    assert not file.with_name(f"{file.name}.json").exists()
    assert b"a-workflow" not in file.read_bytes()


@all_formats
def test_disable_metadata_leaves_out_what_the_video_was_made_with(comfyui_without_metadata, format):
    file = export(comfyui_without_metadata, prompt_of_the_demo(format))
    assert b"moving-shapes" not in file.read_bytes()
    assert not file.with_name(f"{file.name}.json").exists()


@all_formats
def test_transparent_images_stay_so_or_get_the_background(comfyui, format):
    make_half_transparent_picture(comfyui.base / "input" / "half.png")
    file = export(comfyui, with_picture(prompt_with(format=format, background="#ff0000"), "half.png", 3))
    left, right = left_and_right(file)
    assert right == pytest.approx([0, 255, 0, 255], abs=4)
    if format == MP4:
        assert left == pytest.approx([255, 0, 0, 255], abs=4)
    else:
        assert left[3] <= 2


def test_an_opaque_video_with_alpha_gets_no_background(comfyui):
    Image.new("RGBA", (WIDTH, HEIGHT), "green").save(comfyui.base / "input" / "green.png")
    mov = export(comfyui, with_picture(prompt_with(format=MOV), "green.png", 3))
    mov.replace(comfyui.base / "input" / "green.mov")
    output, _ = run(comfyui, prompt_with("green.mov"))
    assert "background" not in said(output)


def test_transparency_of_a_video_file_is_kept(comfyui):
    make_half_transparent_picture(comfyui.base / "input" / "half.png")
    export(comfyui, with_picture(prompt_with(format=MOV), "half.png", 3)).replace(comfyui.base / "input" / "half.mov")
    left, right = left_and_right(export(comfyui, prompt_with("half.mov", format=GIF)))
    assert (left[3], right[3]) == (0, 255)


@all_formats
def test_the_saved_file_goes_on_as_video(any_comfyui, format):
    prompt = prompt_with(format=format, filename_prefix="goes-on")
    prompt["again"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["export", 0]}}
    prompt["save"] = {"class_type": "SaveImage", "inputs": {"images": ["again", 0], "filename_prefix": "goes-on/frame"}}
    make_clip(any_comfyui.base / "input" / "clip.mp4")
    entry = any_comfyui.run(prompt)
    frames = [any_comfyui.output / each["subfolder"] / each["filename"] for each in entry["outputs"]["save"]["images"]]
    assert [numpy.asarray(Image.open(frame)).mean() for frame in frames] == pytest.approx(LEVELS, abs=3)


def test_a_gif_goes_on_with_its_own_frame_rate(any_comfyui):
    prompt = prompt_with(format=GIF, filename_prefix="slow")
    inputs = {**prompt["export"]["inputs"], "video": ["export", 0], "format": MP4, "filename_prefix": "again"}
    prompt["again"] = {"class_type": "CosmosPredict25ExportVideo", "inputs": inputs}
    # 16 fps have delays of 6 and 7 hundredths of a second.
    black = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 12, "color": 0}}
    inputs = {"images": ["black", 0], "fps": 16.0, "format": GIF, "quality": "high", "filename_prefix": "uneven"}
    prompt |= {"black": black, "uneven": {"class_type": "CosmosPredict25ExportVideo", "inputs": inputs}}
    prompt["of it"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["uneven", 0]}}
    prompt["fps"] = {"class_type": "PreviewAny", "inputs": {"source": ["of it", 2]}}
    make_clip(any_comfyui.base / "input" / "clip.mp4")
    outputs = any_comfyui.run(prompt)["outputs"]
    assert float(outputs["fps"]["text"][0]) == pytest.approx(16, rel=0.01)
    with av.open(str(saved_file(any_comfyui, outputs["again"]))) as container:
        assert container.streams.video[0].average_rate == FPS
    saved_file(any_comfyui, outputs["export"]).replace(any_comfyui.base / "input" / "slow.gif")
    with av.open(str(export(any_comfyui, prompt_with("slow.gif", format=MP4)))) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(float(FPS), rel=0.02)


def test_as_is_copies_a_file_of_the_same_format(any_comfyui):
    output, _ = run(any_comfyui, prompt_with(quality="as is"))
    file = saved_file(any_comfyui, output)
    assert packets(file) == packets(any_comfyui.base / "input" / "clip.mp4")
    assert "prompt" in metadata_of(file)
    assert "copied" in said(output)


@all_formats
def test_as_is_copies_what_the_node_saved(comfyui, format):
    prompt = prompt_with(format=format, filename_prefix=f"first/{format}")
    inputs = {**prompt["export"]["inputs"], "video": ["export", 0], "quality": "as is", "filename_prefix": "second"}
    prompt["copy"] = {"class_type": "CosmosPredict25ExportVideo", "inputs": inputs}
    make_clip(comfyui.base / "input" / "clip.mp4")
    outputs = comfyui.run(prompt)["outputs"]
    first, second = (saved_file(comfyui, outputs[name]) for name in ("export", "copy"))
    assert packets(first) == packets(second)
    assert grey_levels(second) == pytest.approx(LEVELS, abs=3)


def test_as_is_encodes_another_format_and_says_so(comfyui):
    output, _ = run(comfyui, prompt_with(quality="as is", format=WEBM))
    assert grey_levels(saved_file(comfyui, output)) == pytest.approx(LEVELS, abs=3)
    assert "Encoded at high" in said(output)


def test_as_is_encodes_a_part_of_a_file(any_comfyui):
    prompt = prompt_with(video=["part", 0], quality="as is")
    values = {"start_time": 0.0, "duration": 0.4, "strict_duration": False}
    prompt["part"] = {"class_type": "Video Slice", "inputs": {"video": ["clip", 0], **values}}
    output, _ = run(any_comfyui, prompt)
    assert grey_levels(saved_file(any_comfyui, output)) == pytest.approx(LEVELS[:5], abs=3)
    assert "Encoded at high" in said(output)


def test_as_is_encodes_images(comfyui):
    output, _ = run(comfyui, prompt_with(video=None, images=["parts", 0], quality="as is"))
    assert "Encoded at high" in said(output)


def test_progress_and_notes_are_shown(any_comfyui):
    Image.new("RGBA", (63, 47)).save(any_comfyui.base / "input" / "odd.png")
    prompt = with_picture(prompt_with(filename_prefix="notes/odd"), "odd.png", 7)
    output, messages = run(any_comfyui, prompt)
    bars = [message.data for message in messages if message.type == "progress" and message.data["node"] == "export"]
    assert bars[-1]["value"] == bars[-1]["max"] == 7
    assert "Writing odd_00001_.mp4" in texts(messages)
    assert re.fullmatch(r"odd_00001_\.mp4, \d+ kB\.", output["cosmos_predict25"][0])
    assert "63x47 became 64x48" in said(output)
    assert "background" in said(output)


def test_a_gif_says_that_it_drops_the_audio(comfyui):
    output, _ = run(comfyui, prompt_with(format=GIF))
    assert "audio was left out" in said(output)


def test_files_are_numbered_and_patterns_filled_in(any_comfyui):
    year = time.localtime().tm_year
    for number in (1, 2):
        prompt = prompt_with(filename_prefix="%year%/%width%x%height%", quality=("low", "high")[number - 1])
        assert export(any_comfyui, prompt) == any_comfyui.output / f"{year}" / f"64x48_0000{number}_.mp4"


def test_dates_and_values_of_other_nodes_are_filled_in(any_comfyui):
    prompt = prompt_with(filename_prefix="%date:yyyy-MM-dd%/%Clip.file%_%export node.quality%_%date:h%")
    prompt["clip"]["_meta"] = {"title": "Clip (Cosmos Predict2.5)"}
    make_clip(any_comfyui.base / "input" / "clip.mp4")
    drawn = {**WORKFLOW, "nodes": [{"id": "export", "properties": {"Node name for S&R": "export node"}}]}
    before = time.localtime()
    body = {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": drawn}}}
    entry = any_comfyui.wait(any_comfyui.request("/prompt", body)["prompt_id"])
    file = saved_file(any_comfyui, entry["outputs"]["export"])
    names = {
        any_comfyui.output / time.strftime("%Y-%m-%d", now) / f"clip.mp4_high_{now.tm_hour}_00001_.mp4"
        for now in (before, time.localtime())
    }
    assert file in names


def test_a_filled_in_value_makes_no_folder_and_no_name_that_windows_forbids(comfyui):
    prompt = prompt_with(filename_prefix="%text.value%_%date:hh:mm%")
    prompt["text"] = {"class_type": "PrimitiveString", "inputs": {"value": "a/b:c"}, "_meta": {"title": "text"}}
    assert re.fullmatch(r"a_b_c_\d\d_\d\d_00001_\.mp4", export(comfyui, prompt).name)


@pytest.mark.parametrize(
    ("prefix", "portable"),
    [
        ("a:b./CON/x?y", "a_b_/CON_/x_y"),
        ("aux.txt/com1/LPT9 /console.", "aux_.txt/com1_/LPT9_/console_"),
        ('.../a<b>c"d|e*f\x1f', "___/a_b_c_d_e_f_"),
    ],
)
def test_a_name_that_windows_forbids_is_changed_and_the_node_says_so(comfyui, prefix, portable):
    output, _ = run(comfyui, prompt_with(filename_prefix=prefix))
    assert saved_file(comfyui, output) == comfyui.output / f"{portable}_00001_.mp4"
    assert repr(prefix) in said(output)
    assert repr(portable) in said(output)


def test_a_backslash_parts_folders_on_every_system(comfyui):
    output, _ = run(comfyui, prompt_with(filename_prefix="parted\\clip"))
    assert saved_file(comfyui, output) == comfyui.output / "parted" / "clip_00001_.mp4"
    assert "Windows" not in said(output)


@contextmanager
def linked(link: Path, target: Path) -> Iterator[None]:
    """`link` to a new folder `target`, in the place of the folder that was there."""
    target.mkdir()
    aside = link.with_name("aside")
    if link.exists():
        link.rename(aside)
    link.symlink_to(target)
    yield
    link.unlink()
    if aside.exists():
        aside.rename(link)


def takes(server: ComfyUI, prompt: dict[str, Any]) -> bool:
    entry = server.wait(list(server.follow(prompt))[-1].data["prompt_id"])
    return entry["status"]["status_str"] == "success"


def test_a_linked_folder_is_taken_where_comfyuis_own_nodes_take_it(any_comfyui, tmp_path):
    prompt = prompt_with(filename_prefix="linked/clip")
    core = {name: prompt[name] for name in ("clip", "parts")}
    core["save"] = {"class_type": "SaveImage", "inputs": {"images": ["parts", 0], "filename_prefix": "linked/picture"}}
    make_clip(any_comfyui.base / "input" / "clip.mp4")
    with linked(any_comfyui.output / "linked", tmp_path / "other disk"):
        if not takes(any_comfyui, core):
            with pytest.raises(PromptFailedError, match=r"'linked/clip', but must name a file .* try video/cosmos"):
                run(any_comfyui, prompt)
            return
        output, _ = run(any_comfyui, prompt)
        (shown,) = output["images"]
        assert shown["subfolder"] == "linked"
        assert (tmp_path / "other disk" / shown["filename"]).is_file()


def test_the_advice_names_no_prefix_that_is_refused_too(comfyui, tmp_path):
    with (
        linked(comfyui.output / "video", tmp_path / "other disk"),
        pytest.raises(PromptFailedError, match=r"'video/cosmos', but must name a file .* try cosmos\."),
    ):
        run(comfyui, prompt_with())


def test_a_file_deleted_in_one_workflow_does_not_make_the_node_of_this_id_in_another_save_again(any_comfyui):
    first, second = (prompt_with(filename_prefix=f"{name}/{time.time_ns()}") for name in ("deleted", "other"))
    deleted, saved = (export(any_comfyui, prompt) for prompt in (first, second))
    deleted.unlink()
    (cached,) = events(any_comfyui.run(second), "execution_cached")
    assert "export" in cached["nodes"]
    assert list(saved.parent.iterdir()) == [saved]


def test_audio_takes_the_place_of_a_videos_own(any_comfyui):
    prompt = prompt_with(audio=["silence", 0])
    prompt["silence"] = {"class_type": "EmptyAudio", "inputs": {"duration": 0.8, "sample_rate": 48000, "channels": 2}}
    with av.open(str(export(any_comfyui, prompt))) as container:
        sound = numpy.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    assert numpy.abs(sound).max() < 0.01


def test_as_is_does_not_keep_the_sound_that_other_audio_takes_the_place_of(comfyui):
    prompt = prompt_with(audio=["silence", 0], quality="as is")
    prompt["silence"] = {"class_type": "EmptyAudio", "inputs": {"duration": 0.8, "sample_rate": 48000, "channels": 2}}
    with av.open(str(export(comfyui, prompt))) as container:
        sound = numpy.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    assert numpy.abs(sound).max() < 0.01


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"format": "AVI (.avi)"}, "AVI (.avi)"),
        ({"quality": "best"}, "best"),
        ({"fps": 0}, "Value 0.0 smaller than min of 0.01: fps"),
    ],
    ids=str,
)
def test_a_value_that_no_widget_has_is_refused_by_comfyui(any_comfyui, values, says):
    make_clip(any_comfyui.base / "input" / "clip.mp4")
    files = sorted(any_comfyui.output.rglob("*"))
    with pytest.raises(PromptRefusedError) as refused:
        any_comfyui.run(prompt_with(**values))
    errors = refused.value.node_errors["export"]["errors"]
    assert says in f"{errors[0]['message']}: {errors[0]['details']}"
    assert sorted(any_comfyui.output.rglob("*")) == files


@pytest.mark.parametrize(
    ("name", "kind", "value", "says"),
    [
        ("filename_prefix", "PrimitiveString", "../outside", "filename_prefix is '../outside', but must name a file"),
        ("fps", "PrimitiveFloat", 0.0, "fps is 0, but must be 0.01 to 1000: change it"),
        ("fps", "PrimitiveFloat", 1001.0, "fps is 1001, but must be 0.01 to 1000: change it"),
    ],
)
def test_bad_values_from_other_nodes_end_in_an_error_at_the_node(comfyui, name, kind, value, says):
    files = sorted(file for file in comfyui.base.rglob("*") if file.suffix in (".mp4", ".part"))
    prompt = prompt_with(video=None, images=["parts", 0], **{name: ["value", 0]})
    prompt["value"] = {"class_type": kind, "inputs": {"value": value}}
    with pytest.raises(PromptFailedError) as failed:
        run(comfyui, prompt)
    _, error = failed.value.entry["status"]["messages"][-1]
    assert error["node_id"] == "export"
    assert error["exception_type"] == "cosmos_predict25.InvalidRequestError"
    assert error["exception_message"].startswith(says)
    assert sorted(file for file in comfyui.base.rglob("*") if file.suffix in (".mp4", ".part")) == files


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"video": None}, "Neither video nor images is connected: connect one"),
        ({"images": ["parts", 0]}, "Both video and images are connected: disconnect one"),
        ({"background": "reddish"}, "background is 'reddish', but must be a colour: try #000000 or white."),
        ({"filename_prefix": "%Nobody.seed%"}, "filename_prefix has %Nobody.seed%, but no node called 'Nobody' has"),
        ({"filename_prefix": "%LoadVideo.size%"}, "filename_prefix has %LoadVideo.size%, but no node called 'LoadVide"),
        ({"filename_prefix": "../outside"}, "filename_prefix is '../outside', but must name a file in the output"),
        ({"filename_prefix": "C:\\outside"}, "filename_prefix is 'C:/outside', but must name a file in the output"),
        ({"filename_prefix": "/tmp/outside"}, "filename_prefix is '/tmp/outside', but must name a file in the output"),
        ({"filename_prefix": ""}, "filename_prefix is '', but must name a file in the output folder"),
    ],
    ids=str,
)
def test_bad_input_is_refused_on_the_node_before_the_video_is_made(any_comfyui, values, says):
    make_clip(any_comfyui.base / "input" / "clip.mp4")
    files = sorted(any_comfyui.output.rglob("*"))
    with pytest.raises(PromptFailedError) as failed:
        any_comfyui.run(prompt_with(**values))
    _, error = failed.value.entry["status"]["messages"][-1]
    assert error["node_id"] == "export"
    assert error["exception_message"].startswith(says)
    assert error["executed"] == []
    assert sorted(any_comfyui.output.rglob("*")) == files


def test_a_name_too_long_for_the_workflow_beside_a_gif_is_refused_before_the_video_is_made(comfyui):
    """255 bytes are the most: ...g_00001_.gif has 252, and .gif.json five more."""
    make_clip(comfyui.base / "input" / "clip.mp4")
    with pytest.raises(PromptFailedError, match="choose a shorter name") as failed:
        comfyui.run(prompt_with(filename_prefix="g" * 241, format=GIF))
    assert failed.value.entry["status"]["messages"][-1][1]["executed"] == []


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("taken/clip", r"taken/clip_00001_\.mp4 could not be written \(.*\): choose another folder"),
        ("%LoadVideo.file%" * 40, r"could not be written \(.*\): choose a shorter name"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_video_is_made(comfyui, prefix, says):
    make_clip(comfyui.base / "input" / "clip.mp4")
    (comfyui.output / "taken").write_text("")
    with pytest.raises(PromptFailedError, match=says) as failed:
        comfyui.run(prompt_with(filename_prefix=prefix))
    (error,) = events(failed.value.entry, "execution_error")
    assert error["executed"] == []
    assert "filename_prefix" in error["exception_message"]


@pytest.mark.parametrize(("mode", "says"), [(2, "muted. Select that node and press Ctrl+M"), (4, "bypassed. Select")])
def test_a_node_that_is_switched_off_before_the_export_is_named(comfyui, mode, says):
    """The frontend leaves it out of the prompt, and draws its wire as ever."""
    generate = {"id": 7, "type": "CosmosPredict25Generate", "title": "My video", "mode": mode, "inputs": []}
    saver = {"id": 8, "type": "CosmosPredict25ExportVideo", "mode": 0, "inputs": [{"name": "video", "link": 3}]}
    workflow = {**WORKFLOW, "nodes": [generate, saver], "links": [[3, 7, 0, 8, 0, "VIDEO"]]}
    prompt = {"8": prompt_with(video=None)["export"]}
    body = {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
    entry = comfyui.wait(comfyui.request("/prompt", body)["prompt_id"])
    (error,) = events(entry, "execution_error")
    assert error["exception_message"].startswith(f"video gets no input, since the node 'My video' is {says}")


def stop_while_writing(server: ComfyUI, prompt: dict[str, Any]) -> None:
    """All of the 200 frames take seconds, so that 200 messages would tell that Stop was not heeded."""
    files = sorted(server.output.rglob("*"))
    writing = f"Writing stopped_00001_{suffix(prompt['export']['inputs']['format'])}"
    written = 0
    for message in server.follow(prompt):
        if message.type == "text" and message.data["text"] == writing:
            written += 1
            if written == 1:
                server.interrupt()
    entry = server.wait(message.data["prompt_id"])
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert "execution_interrupted" in kinds
    assert "execution_error" not in kinds
    assert 0 < written < 200
    assert sorted(server.output.rglob("*")) == files
    assert not list(server.base.rglob("*.part"))


@all_formats
def test_stop_ends_the_run_between_frames_and_leaves_no_file(comfyui, format):
    noise = numpy.random.default_rng(0).integers(0, 256, (360, 640, 4), numpy.uint8)
    Image.fromarray(noise).save(comfyui.base / "input" / "noise.png")
    prompt = prompt_with(format=format, quality="maximum", filename_prefix="stopped")
    stop_while_writing(comfyui, with_picture(prompt, "noise.png", 200))
    assert export(comfyui, prompt_with(format=format)).exists()


@pytest.mark.parametrize("format", [MP4, pytest.param(GIF, marks=pytest.mark.exhaustive)])
def test_stop_ends_the_export_of_a_file(any_comfyui, format):
    make_noise(any_comfyui.base / "input" / "noise.mp4", 200)
    prompt = prompt_with("noise.mp4", format=format, quality="maximum", filename_prefix="stopped")
    stop_while_writing(any_comfyui, prompt)
