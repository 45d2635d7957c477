"""Jobs to files on one device: load once, make what nobody else makes, export while the next video is made."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..export.export import export
from ..local.extend import extend
from ..local.many import FAULTS, Result, Wanted, generate_many
from ..local.model import LocalModel
from ..local.placement import OneAtATime, Placement
from ..local.prompt_cache import weights_hash
from ..observer import Observer
from ..request import SEED
from ..start import Start
from ..video import LocalVideo
from .jobs import Job
from .output import Claim, Output, values_of
from .progress import Outcome, memory_in_use, reason
from .settings import Settings
from .starts import load_start

if TYPE_CHECKING:
    from .together import Team

VERSIONS = ("cosmos-predict25", "torch", "diffusers", "transformers")


class Worker:
    """Keeps one checkpoint on one device."""

    def __init__(self, settings: Settings, output: Output, team: "Team | None" = None) -> None:
        """Load the checkpoint. Raises `CheckpointNotFoundError` and `WrongCheckpointError`."""
        self._settings, self._output, self._team = settings, output, team
        self.model = team.load(settings) if team else settings.load()
        self._made_by = {
            "checkpoint": settings.checkpoint.name,
            "checkpoint_sha256": hash_of(self.model),
            "versions": versions(),
        }

    def work(self, jobs: Sequence[Job], observer: Observer) -> Iterator[Outcome]:
        """Yield what came of each job that this process made. A job of another process or of before is left out."""
        claims: dict[int, Claim] = {}

        def take(index: int) -> bool:
            claim = self._output.claim(jobs[index])
            if claim:
                claims[index] = claim
            return claim is not None

        for note in sorted(filter(None, {self._note_on(job) for job in jobs})):
            print(f"Note: {note}", file=sys.stderr)
        options: Any = {"take": take, "placement": OneAtATime(self._settings.device), "faults": FAULTS}
        options |= self._team.options(take) if self._team else {}
        begun, exporting = time.monotonic(), None
        try:
            with ThreadPoolExecutor(1) as exporter:
                for result in make(self.model, jobs, observer, **options):
                    if exporting:
                        yield exporting.result()
                    claim, seconds, begun = claims.pop(result.index), time.monotonic() - begun, time.monotonic()
                    exporting = exporter.submit(self._finish, jobs[result.index], claim, result, seconds)
                if exporting:
                    yield exporting.result()
        finally:
            for claim in claims.values():
                claim.release()

    def _note_on(self, job: Job) -> str:
        """Return a warning if the job's schedule does not suit the checkpoint, or an empty string."""
        return self.model.variant.warning(job.request.schedule)

    def _finish(self, job: Job, claim: Claim, result: Result, seconds: float) -> Outcome:
        """Write the video."""
        try:
            if result.video is None:
                raise result.error or RuntimeError("there is no video")
            self._publish(job, claim.folder, result.video, seconds)
        except FAULTS as error:
            return Outcome(job, seconds, reason(error), memory_in_use())
        finally:
            claim.release()
        return Outcome(job, seconds, memory=memory_in_use())

    def _publish(self, job: Job, folder: Path, video: LocalVideo, seconds: float) -> None:
        settings = self._settings
        made = {"prompt": job.request.prompt, "seed": str(video.seed)}
        file = export(
            video.frames,
            folder / f"video{self._output.suffix}",
            fps=video.fps,
            format=settings.format,
            quality=settings.quality,
            metadata={"comment": json.dumps(made, ensure_ascii=False)},
        )
        notes = {"notes": [*file.notes, *filter(None, [self._note_on(job)])]}
        values = {**values_of(job, file), **notes, **self._made_by, "seconds": round(seconds, 2)}
        self._output.publish(job, file.path, values)


def make(
    model: LocalModel,
    jobs: Sequence[Job],
    observer: Observer,
    *,
    take: Callable[[int], bool],
    placement: Placement,
    faults: tuple[type[Exception], ...],
) -> Iterator[Result]:
    """Yield the videos of `generate_many`, with all segments of a job that has several."""
    wanted = [Wanted(job.request, partial(load_start, job) if job.input_path else None) for job in jobs]
    options: Any = {"placement": placement, "observer": observer}
    for result in generate_many(model, wanted, take=take, faults=faults, **options):
        yield extended(model, jobs[result.index], result, faults, **options)


def extended(
    model: LocalModel, job: Job, result: Result, faults: tuple[type[Exception], ...], **options: Any
) -> Result:
    """Return the video with the frames that it lacks, for a job of several segments. `options`: of `extend`."""
    if not (job.new_frames and result.video):
        return result
    request = replace(job.request, seed=(job.request.seed_or_random() + 1) % (SEED.maximum + 1))
    try:
        start = Start(result.video.frames)
        frames = extend(model, request, start, job.new_frames, overlap=job.overlap, **options).frames
        return replace(result, video=replace(result.video, frames=frames))
    except faults as error:
        return Result(result.index, error=error)


def versions() -> dict[str, str]:
    """Return the versions of the pack, where it was installed by pip, and of what the videos depend on."""
    found = {}
    for name in VERSIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def hash_of(model: LocalModel) -> str:
    """Return a hash of the checkpoint, as of `weights_hash` for each part."""
    digest = hashlib.sha256()
    for part in (model.text_encoder, model.transformer, model.vae):
        digest.update(weights_hash(dict(part.named_parameters())))
    return digest.hexdigest()
