"""Writing 93 frames of 1280x704: ours beside ComfyUI's own nodes, diffusers, and the usual FFmpeg way.

    .demo/env/bin/python benchmarks/export.py            # against the others
    .demo/env/bin/python benchmarks/export.py --table    # all formats at all qualities

Each case runs in a process of its own, by turns, three rounds; the figures are medians. Peak RSS is what comes on
top of the frames. PSNR and SSIM are measured on every eighth frame, decoded to RGB with the writer's matrix.
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
from pathlib import Path
from types import SimpleNamespace

import av
import torch
from torch import Tensor

from cosmos_predict25.benchmarks.clip import moving_clip
from cosmos_predict25.benchmarks.metrics import psnr, ssim

COMFYUI = Path(__file__).resolve().parents[1] / ".demo" / "ComfyUI-0.30.0"
NUM_FRAMES, HEIGHT, WIDTH = 93, 704, 1280
SUFFIXES = {"X264 (.mp4)": ".mp4", "VP9 (.webm)": ".webm", "PRORES4444 (.mov)": ".mov", "GIF (.gif)": ".gif"}

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


def usual_prores() -> Write:
    """prores_ks as it comes, which searches a quantiser for each slice."""

    def write(frames: Tensor, path: Path) -> None:
        with av.open(str(path), "w") as output:
            stream = output.add_stream("prores_ks", rate=16, options={"profile": "4444"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p10le"
            for index, frame in enumerate(frames):
                output.mux(stream.encode(to_av(frame, index).reformat(format="yuv444p10le")))
            output.mux(stream.encode(None))

    return write


def usual_gif() -> Write:
    """FFmpeg's palettegen and paletteuse as they come."""

    def write(frames: Tensor, path: Path) -> None:
        graph = av.filter.Graph()
        source = graph.add_buffer(width=WIDTH, height=HEIGHT, format="rgb24", time_base=Fraction(1, 16))
        split, palette = graph.add("split"), graph.add("palettegen")
        use, sink = graph.add("paletteuse"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(palette, 0, 0)
        split.link_to(use, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        with av.open(str(path), "w") as output:
            stream = output.add_stream("gif", rate=16)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "pal8"
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
    "prores_ks as it comes": (usual_prores, (), ".mov"),
    "ours ProRes maximum": (ours, ("PRORES4444 (.mov)", "maximum"), ".mov"),
    "ours ProRes high": (ours, ("PRORES4444 (.mov)", "high"), ".mov"),
    "palettegen, paletteuse": (usual_gif, (), ".gif"),
    "ours GIF medium": (ours, ("GIF (.gif)", "medium"), ".gif"),
    "ours GIF high": (ours, ("GIF (.gif)", "high"), ".gif"),
}
SIXTEEN: dict[str, tuple[Callable[..., Write], tuple[str, ...], str]] = {
    f"{format} {quality}": (ours, (format, quality), suffix)
    for format, suffix in SUFFIXES.items()
    for quality in ("low", "medium", "high", "maximum")
}


def quality_of(path: Path, frames: Tensor) -> dict[str, float]:
    pairs = []
    with av.open(str(path)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index % 8 == 0:
                pairs.append((torch.from_numpy(picture.to_ndarray(format="rgb24")).float() / 255, frames[index]))
    assert index + 1 == len(frames)
    return {
        "psnr": statistics.mean(psnr(*pair) for pair in pairs),
        "ssim": statistics.mean(ssim(*pair) for pair in pairs),
    }


def measure(name: str, frames_file: Path, path: Path, score: bool) -> None:
    """Run one case in this process and print its figures as JSON."""
    from cosmos_predict25.benchmarks.peak import PeakRss

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
        torch.save(moving_clip(NUM_FRAMES, HEIGHT, WIDTH), frames_file)
        for turn in range(given.rounds):
            for name, (_, _, suffix) in cases.items():
                path = Path(temporary) / f"video{suffix}"
                found[name].append(measure_in_a_fresh_process(name, frames_file, path, score=turn == 0))
    print("| | s | CPU s | MB | PSNR, dB | SSIM | peak RSS, MiB |\n|---|---|---|---|---|---|---|")
    for name, rounds in found.items():
        median = {key: statistics.median(figures[key] for figures in rounds) for key in ("seconds", "cpu", "mib", "mb")}
        print(
            f"| {name} | {median['seconds']:.2f} | {median['cpu']:.2f} | {median['mb']:.2f} | {rounds[0]['psnr']:.2f} "
            f"| {rounds[0]['ssim']:.4f} | {median['mib']:.0f} |"
        )
    return None


if __name__ == "__main__":
    main()
