"""Writing a video: ours beside ComfyUI's own nodes, diffusers, and FFmpeg as VideoHelperSuite runs it.

    .demo/env/bin/python benchmarks/export.py                       # against the others, a made clip
    .demo/env/bin/python benchmarks/export.py --clip FILE           # the start of a real one
    .demo/env/bin/python benchmarks/export.py --clip FILE --large   # the same, enlarged to 3840x2160
    .demo/env/bin/python benchmarks/export.py --table               # all formats at all qualities

Each case runs in a process of its own, by turns, three rounds; the figures are medians. Peak RSS is what comes on top
of the frames. Quality is of every frame, decoded as ComfyUI's loader does and compared with the frames that were given:
PSNR of RGB, then of luma and both colour differences at full size; "level" is how much lighter the video became.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cosmos_predict25.devtools.clip import moving_clip
from cosmos_predict25.devtools.metrics import plane_ssim, psnr, yuv
from cosmos_predict25.devtools.report import publish

COMFYUI = Path(__file__).resolve().parents[1] / ".demo" / "ComfyUI-0.30.0"
NUM_FRAMES, HEIGHT, WIDTH = 93, 704, 1280
LARGE = 81, 2160, 3840
SUFFIXES = {"X264 (.mp4)": ".mp4", "VP9 (.webm)": ".webm", "PRORES4444 (.mov)": ".mov", "GIF (.gif)": ".gif"}

QUALITIES = ("low", "medium", "high", "maximum")
MEASURED = ("seconds", "cpu", "mib", "mb")

PLANES = ("Y", "Cb", "Cr")

Write = Callable[[Tensor, Path], None]


def ours(format: str, quality: str) -> Write:
    from cosmos_predict25.pipeline.export import export

    def write(frames: Tensor, path: Path) -> None:
        export(frames, path, format=format, quality=quality)

    return write


def core() -> None:
    sys.path.append(str(COMFYUI))
    from comfy.cli_args import args

    args.cpu = True


def core_h264(crf: str) -> Write:
    core()
    from comfy_api.latest import InputImpl, Types

    def write(frames: Tensor, path: Path) -> None:
        components = Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(16))
        InputImpl.VideoFromComponents(components).save_to(str(path), crf=float(crf))

    return write


def core_webm(crf: str) -> Write:
    core()
    import folder_paths
    from comfy_extras.nodes_video import SaveWEBM

    SaveWEBM.hidden = SimpleNamespace(prompt=None, extra_pnginfo=None)

    def write(frames: Tensor, path: Path) -> None:
        folder_paths.set_output_directory(str(path.parent))
        SaveWEBM.execute(frames, "vp9", 16.0, path.stem, float(crf))
        next(path.parent.glob(f"{path.stem}_*")).rename(path)

    return write


def diffusers() -> Write:
    from diffusers.utils import export_to_video

    def write(frames: Tensor, path: Path) -> None:
        export_to_video(list(frames.numpy()), str(path), fps=16)

    return write


def to_av(frame: Tensor, index: int) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(frame.mul(255).clamp(0, 255).byte().numpy(), format="rgb24")
    picture.pts, picture.time_base = index, Fraction(1, 16)
    return picture


def vhs_prores() -> Write:
    """prores_ks as it comes, which searches a quantiser for each slice, at VideoHelperSuite's default, hq."""

    def write(frames: Tensor, path: Path) -> None:
        with av.open(str(path), "w") as output:
            stream = output.add_stream("prores_ks", rate=16, options={"profile": "hq"})
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv422p10le"
            stream.codec_context.colorspace = 1
            for index, frame in enumerate(frames):
                picture = to_av(frame, index).reformat(format="yuv422p10le", dst_colorspace="ITU709")
                output.mux(stream.encode(picture))
            output.mux(stream.encode(None))

    return write


def vhs_gif() -> Write:
    """FFmpeg's palettegen and paletteuse with VideoHelperSuite's options."""

    def write(frames: Tensor, path: Path) -> None:
        height, width = frames.shape[1:3]
        graph = av.filter.Graph()
        source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=Fraction(1, 16))
        split, palette = graph.add("split"), graph.add("palettegen", "reserve_transparent=on:transparency_color=ffffff")
        use, sink = graph.add("paletteuse", "dither=sierra2_4a"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(palette, 0, 0)
        split.link_to(use, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        with av.open(str(path), "w") as output:
            stream = output.add_stream("gif", rate=16)
            stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
            for index, frame in enumerate(frames):
                source.push(to_av(frame, index))
            source.push(None)
            for _ in frames:
                output.mux(stream.encode(sink.pull()))
            output.mux(stream.encode(None))

    return write


CONTENDERS: dict[str, tuple[Callable[..., Write], tuple[str, ...], str]] = {
    "core H.264 crf 23": (core_h264, ("23",), ".mp4"),
    "diffusers H.264": (diffusers, (), ".mp4"),
    "ours X264 medium": (ours, ("X264 (.mp4)", "medium"), ".mp4"),
    "core H.264 crf 18": (core_h264, ("18",), ".mp4"),
    "ours X264 high": (ours, ("X264 (.mp4)", "high"), ".mp4"),
    "core VP9 crf 32": (core_webm, ("32",), ".webm"),
    "ours VP9 medium": (ours, ("VP9 (.webm)", "medium"), ".webm"),
    "VHS ProRes hq": (vhs_prores, (), ".mov"),
    "ours ProRes high": (ours, ("PRORES4444 (.mov)", "high"), ".mov"),
    "VHS GIF": (vhs_gif, (), ".gif"),
    "ours GIF high": (ours, ("GIF (.gif)", "high"), ".gif"),
}
SIXTEEN: dict[str, tuple[Callable[..., Write], tuple[str, ...], str]] = {
    f"{format} {quality}": (ours, (format, quality), suffix)
    for format, suffix in SUFFIXES.items()
    for quality in QUALITIES
}


def frames_of(clip: Path | None, large: bool) -> Tensor:
    """(F, H, W, 3): float32, or float16 where they are large."""
    if clip is None:
        frames = moving_clip(NUM_FRAMES, HEIGHT, WIDTH)
    else:
        with av.open(str(clip)) as container:
            pictures = islice(container.decode(video=0), NUM_FRAMES)
            decoded = [torch.from_numpy(picture.to_ndarray(format="gbrpf32le")) for picture in pictures]
        frames = torch.stack(decoded)[:, :HEIGHT, :WIDTH].clamp(0, 1)
    if not large:
        return frames
    number, height, width = LARGE
    enlarged = torch.empty(number, height, width, 3, dtype=torch.float16)
    for frame, target in zip(frames, enlarged, strict=False):
        bigger = interpolate(frame.permute(2, 0, 1)[None], (height, width), mode="bicubic")
        target.copy_(bigger[0].permute(1, 2, 0).clamp(0, 1))
    return enlarged


def quality_of(path: Path, frames: Tensor) -> dict[str, float]:
    """Of every frame, decoded as ComfyUI's loader does: the mean, and as `lowest` that of the worst.

    `level`: how much lighter the video is, in levels of 255. `pulse`: the mean step of luma's PSNR between frames.
    """
    rows = []
    with av.open(str(path)) as container:
        for picture, wanted in zip(container.decode(video=0), frames, strict=True):
            shown = torch.from_numpy(picture.to_ndarray(format="gbrpf32le"))
            wanted = wanted.float()
            planes, true = yuv(shown.clamp(0, 1)), yuv(wanted)
            pairs = list(zip(planes[:, None, None], true[:, None, None], strict=True))
            rows.append(
                {
                    "psnr": psnr(shown, wanted),
                    **{f"psnr {name}": psnr(*pair) for name, pair in zip(PLANES, pairs, strict=True)},
                    **{f"ssim {name}": plane_ssim(*pair, step=4) for name, pair in zip(PLANES, pairs, strict=True)},
                    "level": 255 * float((shown - wanted).mean()),
                }
            )
    found = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    found |= {f"lowest {key}": min(row[key] for row in rows) for key in rows[0]}
    luma = [row["psnr Y"] for row in rows]
    return {**found, "pulse": statistics.mean(abs(after - before) for before, after in pairwise(luma))}


def measure(name: str, frames_file: Path, path: Path, score: bool) -> None:
    """Run one case in this process and print its figures as JSON."""
    from cosmos_predict25.devtools.peak import PeakRss

    make, arguments, _ = {**CONTENDERS, **SIXTEEN}[name]
    write = make(*arguments)
    frames = torch.load(frames_file)
    with PeakRss() as rss:
        cpu, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        write(frames, path)
        seconds, end = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = end.ru_utime + end.ru_stime - cpu.ru_utime - cpu.ru_stime + children.ru_utime + children.ru_stime
    figures = {"seconds": seconds, "cpu": used, "mib": rss.mib, "mb": path.stat().st_size / 1e6}
    print(json.dumps({**figures, **(quality_of(path, frames) if score else {})}))


def measure_in_a_fresh_process(name: str, frames_file: Path, path: Path, score: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", name, str(frames_file), str(path), *(["--score"] if score else [])]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    path.unlink()
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, help="a video whose first frames are taken; made ones if there is none")
    parser.add_argument("--large", action="store_true", help="3840x2160, 81 frames")
    parser.add_argument("--table", action="store_true", help="all formats at all qualities, ours alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="the cases whose name contains this")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--score", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        name, frames_file, path = given.case
        return measure(name, Path(frames_file), Path(path), given.score)

    cases = {name: case for name, case in (SIXTEEN if given.table else CONTENDERS).items() if given.only in name}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as temporary:
        frames_file = Path(temporary) / "frames.pt"
        torch.save(frames_of(given.clip, given.large), frames_file)
        for turn in range(given.rounds):
            for name, (_, _, suffix) in cases.items():
                path = Path(temporary) / f"video{suffix}"
                found[name].append(measure_in_a_fresh_process(name, frames_file, path, score=turn == 0))
    medians = {
        name: {**rounds[0], **{key: statistics.median(run[key] for run in rounds) for key in MEASURED}}
        for name, rounds in found.items()
    }
    if given.table:
        publish_qualities(medians)
    else:
        publish_contenders(medians)
    return None


def publish_contenders(medians: dict[str, dict[str, float]]) -> None:
    alone = {"seconds": ".2f", "cpu": ".2f", "mib": ".0f", "mb": ".3f", "psnr": ".2f", "level": "+.2f", "pulse": ".2f"}
    by_plane = {"psnr": ".2f", "lowest psnr": ".2f", "ssim": ".4f", "lowest ssim": ".4f"}
    rows = [
        [
            name,
            *(format(figures[key], spec) for key, spec in alone.items()),
            *(" / ".join(format(figures[f"{key} {p}"], spec) for p in PLANES) for key, spec in by_plane.items()),
        ]
        for name, figures in medians.items()
    ]
    head = ["s", "CPU s", "peak RSS, MiB", "MB", "PSNR, dB", "level", "pulse, dB"]
    publish(["", *head, "PSNR Y / Cb / Cr", "its lowest frame", "SSIM Y / Cb / Cr", "its lowest frame"], rows)


def publish_qualities(medians: dict[str, dict[str, float]]) -> None:
    cells = {name: f"{run['mb']:.2f} / {run['psnr']:.1f} / {run['seconds']:.1f}" for name, run in medians.items()}
    rows = [[name, *(cells.get(f"{name} {quality}", "") for quality in QUALITIES)] for name in SUFFIXES]
    publish(["MB / PSNR, dB / s", *QUALITIES], rows)


if __name__ == "__main__":
    main()
