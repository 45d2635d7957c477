"""Make one video on fal: charged once, and never lost.

A job's record is on disk from before the job is sent until the video is saved. The finished file is named after the
request, so its name tells that the same video need not be bought again.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..observer import NullObserver, Observer
from ..request import GenerationRequest
from ..video import RemoteVideo
from .client import FalClient
from .display import Display, naming_seed
from .endpoints import TEXT_TO_VIDEO, Endpoint
from .journal import Journal
from .media.upload import Media
from .paid_job import PaidJob, log
from .queue.policy import NetworkPolicy
from .redaction import private_texts
from .submission import make_submission


async def generate(
    request: GenerationRequest,
    *,
    folder: Path,
    journal: Journal,
    endpoint: Endpoint = TEXT_TO_VIDEO,
    media: Path | bytes | str | Media | None = None,
    key: str | None = None,
    policy: NetworkPolicy | None = None,
    observer: Observer | None = None,
    webhook_url: str | None = None,
    store: bool = True,
    on_charge: Callable[[float], object] = log.debug,
) -> RemoteVideo:
    """Make the video of `request` on fal and save the server's own file in `folder`.

    The same request resumes its unfinished job, even after a crash, or uses the finished file. A file that was moved or
    deleted is fetched again. None of this is charged again. Without a seed, a new one is drawn, unless such a job is
    unfinished.

    If the observer stops the work, the job is cancelled at fal. This ends when the outcome is known, at most the
    policy's `cancel_wait` later. If the task is cancelled, the job keeps running, and the same request resumes it.

    `media`: for the endpoint's `image_url` or `video_url`. Either a file or its bytes, at most 64 MiB, uploaded and
    readable for a day by anyone who knows the URL; or a URL, sent unchanged, which then identifies the job; or a data
    URI with at most 256 KiB of content, which fal does not keep without `store`. The same content is the same job.
    `key`, `policy`: see `FalClient`. `webhook_url`, `store`: see `FalClient.prepare`. `on_charge`: receives the dollars
    of a job that fal has accepted. The cost of a day's jobs is limited, see `budget.day_limit`.
    Raises `InvalidRequestError`, `MissingKeyError`, `FalError`, `OutcomeUnknownError`, `JobKeptError` and
    `JobExpiredError`.
    """
    observer = observer or NullObserver()
    submission = make_submission(request, endpoint, journal, folder, media)
    display = Display(observer, endpoint.typical_seconds, submission.seed)
    options = {"webhook_url": webhook_url, "store": store}
    private = private_texts(submission.arguments)
    async with FalClient(key, policy, on_trouble=display.announce, private=private) as client:
        limit = client.policy.wait_limit
        async with journal.claim(submission.fingerprint, submission.target, observer, limit):
            job = PaidJob(client, journal, submission, observer, display, options, on_charge)
            with naming_seed(submission.seed):
                video = await job.run()
    return replace(video, job_name=submission.fingerprint)
