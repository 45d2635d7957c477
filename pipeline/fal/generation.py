"""One video from fal: paid once, never twice, never lost.

A job's record is on disk before the job is sent and until the video is. The finished file's name is made of what was
asked for, so the file itself tells that the same video need not be paid for again.
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

    The same request goes on with its unfinished job, after a crash too, and takes the finished file where there is
    one; a file that was moved or deleted is fetched again. None of that is paid for again. Without a seed, a new one is
    drawn unless such a job is unfinished.

    An observer that stops the work cancels the job at fal; that ends when the outcome is known, at most the policy's
    `cancel_wait` later. Cancelling the task leaves the job running, for the same request to go on with.

    `media`: what the endpoint's `image_url` or `video_url` stands for: a file or its bytes, at most 64 MiB, which are
    uploaded and can be read by whoever knows their address for a day; or an address, sent as it is, by which the job is
    then named; or a data URI of at most 256 KiB of content, of which fal keeps nothing without `store`. The same
    content again is the same job.
    `key`, `policy`: see `FalClient`. `webhook_url`, `store`: see `FalClient.prepare`. `on_charge`: is told the
    dollars of a job that fal has taken. What the jobs of a day may cost is limited, see `budget.day_limit`.
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
