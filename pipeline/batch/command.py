"""`python -m cosmos_predict25.batch JOBS OUT`: every job of a file becomes a video in a folder."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CosmosError, InvalidRequestError
from ..formats import FORMATS, find_format
from ..local.load.find import DEMO_FOLDER
from ..request import FPS, VIDEO_QUALITIES
from .files import place_of
from .jobs import InvalidJobsError, Job, read_jobs, shard_of, value_of
from .output import FAILED, Output
from .settings import Checkpoint, Settings, lora_of

if TYPE_CHECKING:
    from .progress import Display

SMALL_BYTES = 2**30
"""Of a checkpoint whose matrices are too small for several cores to share. A core makes a video of its own instead."""
MADE, SOME_FAILED, REFUSED = 0, 1, 2
"""Exit codes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return 0 when every job has its video, 1 when some failed, 2 when none was begun."""
    options = parser().parse_args(arguments)
    if not is_started_by_torchrun():
        return run(options)
    from .together import run_together

    try:
        return run_together(options, run)
    except CosmosError as error:
        print(error, file=sys.stderr)
        return REFUSED


def run(options: argparse.Namespace) -> int:
    """Do what `main` does, and return its exit code."""
    output: Output | None = None
    try:
        jobs = shard_of(read_jobs(*options.jobs, defaults=defaults_of(options.default)), options.shard)
        output = output_of(options)
        return make_all(jobs, output, options)
    except CosmosError as error:
        print(error, file=sys.stderr)
        return REFUSED
    finally:
        if output:
            output.close()


def make_all(jobs: list[Job], output: Output, options: argparse.Namespace) -> int:
    """Make the videos that are not finished, and return the exit code. Raises `CosmosError`."""
    finished = output.finished(jobs)
    if problems := output.check(jobs, finished):
        raise InvalidJobsError(problems)
    left = [job for job in jobs if job.name not in finished]
    print(f"{len(jobs)} jobs, {len(finished)} of them finished before.")
    if options.dry_run:
        print_plan(left, output, options)
        return MADE
    failed = make(left, output, options) if left else 0
    output.tidy_failed()
    finished = output.finished(jobs)
    if options.contact_sheet:
        from .contact_sheet import write_contact_sheet

        print(f"Contact sheet: {write_contact_sheet(output, [job for job in jobs if job.name in finished])}")
    print(f"{len(finished)} of {len(jobs)} videos are in {output}.")
    if failed:
        print(f"{failed} failed: {FAILED} there says why. Run the same again to try them again.")
    return SOME_FAILED if failed else MADE


def output_of(options: argparse.Namespace) -> Output:
    """Return the output. Raises `InvalidRequestError` for a URL with `--fal`."""
    suffix = find_format(options.format).suffix
    if isinstance(options.out, Path):
        return Output(options.out, suffix)
    if options.fal:
        raise InvalidRequestError(
            f"OUT is {options.out}, but with --fal it must be a folder, which keeps the records of the paid jobs."
        )
    from .remote import RemoteOutput

    return RemoteOutput.at(options.out, suffix)


def defaults_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return the fields of "FIELD=VALUE". Raises `InvalidRequestError` for another form."""
    for text in texts:
        if "=" not in text:
            raise InvalidRequestError(f"--default is {text!r}, but must be FIELD=VALUE, as num_frames=61.")
    return {name: value_of(name, value) for name, _, value in (text.partition("=") for text in texts)}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m cosmos_predict25.batch", description=__doc__)
    add = made.add_argument
    add(
        "jobs",
        type=place_of,
        nargs="+",
        metavar="JOBS",
        help="a .jsonl, .json or .csv file, or a folder of .txt prompts; or a URL that fsspec knows, such as s3://",
    )
    add("out", type=place_of, metavar="OUT", help="the folder or URL for the videos; a finished one is not made again")
    add("--default", action="append", default=[], metavar="FIELD=VALUE", help="for every job without this field")
    add(
        "--checkpoint",
        type=Path,
        default=DEMO_FOLDER,
        metavar="PLACE",
        help="a folder in diffusers layout, or a file of the transformer; the demo by default",
    )
    add("--base", type=Path, metavar="FOLDER", help="with a file: the folder in diffusers layout for the other parts")
    add("--vae", type=Path, metavar="FILE", help="with a file: the Wan 2.1 VAE")
    add("--text-encoder", type=Path, metavar="FOLDER", help="with a file: the text encoder and its tokenizer")
    add("--lora", action="append", default=[], metavar="FILE[:STRENGTH]", help="a LoRA; several add up")
    add("--device", metavar="DEVICE", help="cuda:1, cpu, or several with commas: one process each; all GPUs by default")
    add("--shard", default="0/1", metavar="I/N", help="only every N-th job, from I on, counted from 0")
    add("--format", choices=list(FORMATS), default=next(iter(FORMATS)))
    add("--quality", choices=VIDEO_QUALITIES, default="high")
    add("--dry-run", action="store_true", help="print what would be made and how long it would take")
    add("--contact-sheet", action="store_true", help="write OUT/contact-sheet.html with a frame of each video")
    add("--ray", nargs="?", const="local", metavar="ADDRESS", help="make the videos on a Ray cluster")
    add("--workers", type=int, metavar="N", help="processes on a CPU, or Ray actors with one GPU each")
    add("--fal", action="store_true", help="make the videos on fal, after the price of all was confirmed")
    add("--at-once", type=int, default=4, metavar="N", help="jobs that run at fal at the same time")
    add("--yes", action="store_true", help="pay fal's price without a question")
    return made


def make(jobs: list[Job], output: Output, options: argparse.Namespace) -> int:
    """Make the videos, and return how many jobs failed. Raises `CosmosError` where none can be made."""
    from .progress import Display

    display = Display(len(jobs), output)
    if options.fal:
        from .on_fal import FalSettings, make_on_fal

        settings = FalSettings(options.format, options.quality, options.at_once, options.yes)
        return make_on_fal(jobs, output, settings, display)
    if options.ray is not None:
        from .on_ray import make_on_ray

        return make_on_ray(
            jobs, output, settings_of(options, options.device or ""), options.ray, options.workers, display
        )
    if is_started_by_torchrun():
        from .together import lead, own_device

        return lead(jobs, output, settings_of(options, own_device(options)), display)
    settings = processes_of(options, len(jobs))
    if len(settings) == 1:
        return make_here(jobs, output, settings[0], display)
    from .processes import make_in_processes

    return make_in_processes(jobs, output, settings, display)


def is_started_by_torchrun() -> bool:
    """Whether torchrun has started several processes, which make each video together."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def make_here(jobs: list[Job], output: Output, settings: Settings, display: "Display") -> int:
    """Make the videos in this process."""
    from .worker import Worker

    with display:
        return sum(display.add(outcome) for outcome in Worker(settings, output).work(jobs, display))


def processes_of(options: argparse.Namespace, num_jobs: int) -> list[Settings]:
    """Return the settings of each process: one per GPU, or one per core for a model that is too small to share them."""
    import torch

    devices, threads = devices_of(options.device), torch.get_num_threads()
    if devices == ["cpu"]:
        small = checkpoint_of(options).bytes < SMALL_BYTES
        devices *= min(num_jobs, options.workers or (threads if small else 1))
    share = max(1, threads // devices.count("cpu")) if devices.count("cpu") > 1 else None
    return [settings_of(options, device, share) for device in devices]


def settings_of(options: argparse.Namespace, device: str, threads: int | None = None) -> Settings:
    return Settings(checkpoint_of(options), device, options.format, options.quality, threads)


def checkpoint_of(options: argparse.Namespace) -> Checkpoint:
    """Return the checkpoint of the options. Raises `CheckpointNotFoundError` and `InvalidRequestError`."""
    loras = tuple(lora_of(text) for text in options.lora)
    checkpoint = Checkpoint(options.checkpoint, options.vae, options.text_encoder, options.base, loras)
    checkpoint.check()
    return checkpoint


def devices_of(wanted: str | None) -> list[str]:
    """The devices of `--device`, or all GPUs, or the CPU. Raises `InvalidRequestError` for one that is not there."""
    import torch

    if wanted is None:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices = wanted.split(",")
    for device in devices:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InvalidRequestError(f"--device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    return devices


def print_plan(jobs: list[Job], output: Output, options: argparse.Namespace) -> None:
    """Print how many videos of which length would be made, and how long that takes on each device."""
    frames = sum(job.num_frames for job in jobs)
    print(f"{len(jobs)} videos would be made, {frames} frames, {frames / FPS:.0f} s of video.")
    if options.fal:
        from .on_fal import print_price

        print_price(jobs, output)
    else:
        print_time(jobs, options)


def print_time(jobs: list[Job], options: argparse.Namespace) -> None:
    """Print how long the passes of all jobs take on the devices."""
    from .estimate import seconds_on

    devices = devices_of(options.device)
    for device in sorted(set(devices)):
        requests = [job.request for job in jobs for _ in range(job.num_segments)]
        hours = seconds_on(device, settings_of(options, device).load(), requests) / 3600
        print(f"About {hours / len(devices):.1f} h on {len(devices)} x {device}, by the rate of its matrix products.")
