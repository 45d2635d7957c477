"""Many videos with one model: prompts first, then each video is decoded while the next one is denoised."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import CosmosError
from ..observer import NullObserver, Observer
from ..request import GenerationRequest
from ..start import Start
from ..video import LocalVideo
from .generate import GUARDRAIL_BYTES, Progress, Run, prepare
from .guardrail import SafetyCheckerFactory, check_frames, check_prompt
from .model import LocalModel
from .placement import OneAtATime, Placement
from .prompt_cache import PromptCache
from .unfinished import UnfinishedVideo

PROMPTS_AT_ONCE = 256
"""Videos whose prompts are encoded together: the text encoder is loaded once for them. 1 MB each for the 2B model."""

FAULTS = (CosmosError, OSError, RuntimeError, ValueError, MemoryError)
"""Of one video. Neither Ctrl+C nor ComfyUI's interruption is among them."""


@dataclass(frozen=True)
class Wanted:
    """One video of `generate_many`. `load_start`: gives the picture or clip that it starts from, at its turn."""

    request: GenerationRequest
    load_start: Callable[[], Start] | None = None


@dataclass(frozen=True)
class Result:
    """The video of the `index`-th request, or the error in its place."""

    index: int
    video: LocalVideo | None = None
    error: Exception | None = None


def generate_many(
    model: LocalModel,
    wanted: Sequence[Wanted | GenerationRequest],
    *,
    take: Callable[[int], bool] = lambda index: True,
    placement: Placement | None = None,
    observer: Observer | None = None,
    guardrail: SafetyCheckerFactory | None = None,
    faults: tuple[type[Exception], ...] = FAULTS,
) -> Iterator[Result]:
    """Yield a result for each of `wanted`, in their order: the same videos as `generate` makes, in less time.

    Equal prompts are encoded once, before the first video. On a CPU a video is decoded while the next one is denoised.
    `take`: asked with a video's index before its turn; it is left out, without a result, where the answer is False.
    `placement`, `guardrail`: as of `generate`. What `observer` raises to stop the work passes through. Any other error
    of one video is its result, and the next one goes on. `faults`: these errors, before the video is decoded.
    """
    items = [item if isinstance(item, Wanted) else Wanted(item) for item in wanted]
    factory = _Factory(model, placement or OneAtATime("cpu"), observer or NullObserver(), guardrail, faults)
    for begin in range(0, len(items), PROMPTS_AT_ONCE):
        part = {index: items[index] for index in range(begin, min(begin + PROMPTS_AT_ONCE, len(items)))}
        yield from factory.make(part, take)


@dataclass(frozen=True)
class _Factory:
    model: LocalModel
    placement: Placement
    observer: Observer
    guardrail: SafetyCheckerFactory | None
    faults: tuple[type[Exception], ...]

    def make(self, items: dict[int, Wanted], take: Callable[[int], bool]) -> Iterator[Result]:
        prompts = self._encode([item.request for item in items.values()])
        # Once, and before a thread works: it makes room. A GPU would take memory for both and win no time.
        decodes_beside = self.placement.make_room(0).type == "cpu"
        with ThreadPoolExecutor(1) as thread:
            decoding: Future[Result] | None = None
            for index, item in items.items():
                if not take(index):
                    continue
                denoised = self._denoise(index, item, prompts)
                if decoding:
                    yield decoding.result()
                decoding = thread.submit(self._decode, index, denoised)
                if not decodes_beside:
                    yield decoding.result()
                    decoding = None
            if decoding:
                yield decoding.result()

    def _encode(self, requests: Sequence[GenerationRequest]) -> PromptCache:
        """Return the embeddings of all prompts. One plan serves them, as a new one takes the encoder off the GPU."""
        prompts, run = PromptCache(2 * len(requests)), None
        for request in requests:
            with suppress(*self.faults):  # raised again when its turn comes
                run = replace(run, request=request) if run else self._run(request, None)
                run.encode_prompts(prompts)
        return prompts

    def _run(self, request: GenerationRequest, start: Start | None) -> Run:
        prepared = prepare(self.model, replace(request, seed=request.seed_or_random()), start, self.placement)
        progress = Progress(self.observer, prepared.plan, prepared.request)
        return Run(self.model, prepared.request, self.placement, prepared.plan, progress)

    def _denoise(self, index: int, item: Wanted, prompts: PromptCache) -> "tuple[Run, Tensor] | Exception":
        try:
            start = self.model.variant.start_of(item.load_start() if item.load_start else None)
            run = self._run(item.request, start)
            if self.guardrail:
                check_prompt(self.guardrail, run.request.prompt, self.placement.make_room(GUARDRAIL_BYTES))
            size = run.request.width, run.request.height
            frames = start.conditioning_frames(*size) if start else torch.empty(0)
            return run, run.make_latents(frames, prompts)
        except self.faults as error:
            return error

    def _decode(self, index: int, denoised: "tuple[Run, Tensor] | Exception") -> Result:
        if isinstance(denoised, Exception):
            return Result(index, error=denoised)
        run, latents = denoised
        try:
            frames = run.decode(latents, UnfinishedVideo())
            if self.guardrail:
                frames = check_frames(self.guardrail, frames, self.placement.make_room(GUARDRAIL_BYTES))
        except FAULTS as error:
            return Result(index, error=error)
        return Result(index, LocalVideo(frames, latents.cpu(), run.request.seed_or_random(), self.model.variant.fps))
