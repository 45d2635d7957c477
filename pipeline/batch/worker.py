"""Jobs to files on one device: load once, make what nobody else makes, export while the next video is made."""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..export.export import export
from ..local.extend import extend
from ..local.many import FAULTS, Result, Wanted, generate_many
from ..local.model import LocalModel
from ..local.placement import OneAtATime
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

VERSIONS = ("cosmos-predict25", "torch", "diffusers", "transformers")


class Worker:
    """Keeps one checkpoint on one device."""

    def __init__(self, settings: Settings, output: Output) -> None:
        """Load the checkpoint. Raises `CheckpointNotFoundError` and `WrongCheckpointError`."""
        self._settings, self._output = settings, output
        self.model = settings.load()
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
        wanted = [Wanted(job.request, partial(load_start, job) if job.input_path else None) for job in jobs]
        options: Any = {"placement": OneAtATime(self._settings.device), "observer": observer}
        begun, exporting = time.monotonic(), None
        try:
            with ThreadPoolExecutor(1) as exporter:
                for made in generate_many(self.model, wanted, take=take, **options):
                    result = self._extended(jobs[made.index], made, **options)
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
        """Return a warning if the job's schedule does not suit the checkpoint, whose training a LoRA may change."""
        return "" if self._settings.checkpoint.loras else self.model.variant.warning(job.request.schedule)

    def _extended(self, job: Job, result: Result, **options: Any) -> Result:
        """Return the video with the frames that it lacks, for a job of several segments."""
        if not (job.new_frames and result.video):
            return result
        request = replace(job.request, seed=(job.request.seed_or_random() + 1) % (SEED.maximum + 1))
        try:
            start = Start(result.video.frames)
            frames = extend(self.model, request, start, job.new_frames, overlap=job.overlap, **options).frames
            return replace(result, video=replace(result.video, frames=frames))
        except FAULTS as error:
            return Result(result.index, error=error)

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
