"""What an answer means: one table of stage, answer, how often and for how long it came, and the verdict.

"Model errors", "Request errors" and "Inference API reference" are pages of fal's documentation. What they leave open is
decided so that no job is paid for twice and none that is paid for is forgotten: reading is free, sending is not.
"""

import enum
import time
from dataclasses import dataclass

from .policy import NetworkPolicy
from .reply import Reply, TransportFailure


class Stage(str, enum.Enum):
    """What fal, or its CDN, is asked for."""

    UPLOAD = "upload"
    SUBMIT = "submit"
    STATUS = "status"
    RESULT = "result"
    CANCEL = "cancel"
    MEDIA = "download"


class Answer(enum.Enum):
    """What came back. A reply is fal's own if it has `x-fal-request-id` or a body that fal documents."""

    NOT_SENT = "no connection was made, so that nothing was sent"
    BAD_CERTIFICATE = "the other side could not prove who it is"
    LOST = "the connection broke, or was silent, after the request was sent"
    UNREADABLE = "a reply that is too large, or no JSON"
    OK = "2xx"
    REDIRECT = "3xx"
    BUSY = "429"
    NOT_ALLOWED = "401 or 403"
    REFUSED = "another 4xx, to a request that changes something"
    IN_PROGRESS = "400, Request is still in progress"
    TOO_LATE = "400, ALREADY_COMPLETED"
    NOT_FOUND = "404 of fal itself; 403, 404 or 410 of its CDN"
    CANCELLED = "499 of fal itself"
    CANCELLED_AS_ASKED = "499 of fal itself, for a job whose cancellation fal has confirmed"
    REJECTED = "422 of fal itself: the model does not take the input"
    FAILED = "another error of the model or the platform, as documented"
    OTHER = "anything else, such as the page of a gateway, a proxy or a relay"


class Verdict(enum.Enum):
    """What is done about it."""

    AGAIN = "ask again after a pause"
    ANSWERED = "go on with the answer"
    REFUSED = "there is no job and nothing to pay"
    UNKNOWN = "there may be a job: look for it, and never send it again"
    GIVE_UP = "end this run and keep the job for the next one"
    FAILED = "the job is over, without a video"
    CANCELLED = "the job is over, as it was cancelled"
    EXPIRED = "fal has nothing any more: keep the record until the user dismisses it"


@dataclass(frozen=True)
class Rule:
    """`verdict`, once the answer has come `times` times and for `seconds`; before that it is asked for again.

    A text is the name of a field of the policy.
    """

    verdict: Verdict
    times: int | str = 1
    seconds: int | str = 0


A, V = Answer, Verdict
TROUBLE = (A.NOT_SENT, A.LOST, A.BUSY, A.OTHER)
READING = {
    A.OK: Rule(V.ANSWERED),
    **dict.fromkeys(TROUBLE, Rule(V.GIVE_UP, times="read_tries")),
    A.UNREADABLE: Rule(V.GIVE_UP, times=5),
    A.NOT_ALLOWED: Rule(V.GIVE_UP, times=3),
    **dict.fromkeys((A.BAD_CERTIFICATE, A.REDIRECT), Rule(V.GIVE_UP)),
    A.NOT_FOUND: Rule(V.EXPIRED, times=2, seconds="gone_patience"),
}
TABLE: dict[Stage, dict[Answer, Rule]] = {
    Stage.UPLOAD: {
        A.OK: Rule(V.ANSWERED),
        **dict.fromkeys(TROUBLE, Rule(V.REFUSED, times="submit_tries")),
        **dict.fromkeys((A.NOT_ALLOWED, A.REFUSED), Rule(V.REFUSED, times=2)),
        **dict.fromkeys((A.BAD_CERTIFICATE, A.UNREADABLE, A.REDIRECT), Rule(V.REFUSED)),
    },
    Stage.SUBMIT: {
        A.OK: Rule(V.ANSWERED),
        A.NOT_SENT: Rule(V.REFUSED, times="submit_tries"),
        A.BUSY: Rule(V.REFUSED, seconds="wait_limit"),
        **dict.fromkeys((A.BAD_CERTIFICATE, A.NOT_ALLOWED, A.REFUSED), Rule(V.REFUSED)),
        **dict.fromkeys((A.LOST, A.UNREADABLE, A.REDIRECT, A.OTHER), Rule(V.UNKNOWN)),
    },
    Stage.STATUS: READING,
    Stage.RESULT: {
        **READING,
        A.IN_PROGRESS: Rule(V.GIVE_UP, seconds="wait_limit"),
        A.REJECTED: Rule(V.FAILED, times=3),
        A.FAILED: Rule(V.FAILED, times=2, seconds="gone_patience"),
        A.CANCELLED: Rule(V.EXPIRED, times=2, seconds="gone_patience"),
        A.CANCELLED_AS_ASKED: Rule(V.CANCELLED),
    },
    Stage.CANCEL: {
        **dict.fromkeys((A.OK, A.NOT_FOUND, A.TOO_LATE), Rule(V.ANSWERED)),
        **dict.fromkeys((*TROUBLE, A.UNREADABLE), Rule(V.GIVE_UP, times=3)),
        **dict.fromkeys((A.BAD_CERTIFICATE, A.REDIRECT, A.NOT_ALLOWED, A.REFUSED), Rule(V.GIVE_UP)),
    },
    Stage.MEDIA: {
        A.OTHER: Rule(V.GIVE_UP, times=5),
        A.NOT_FOUND: Rule(V.EXPIRED, times=2, seconds="media_patience"),
    },
}


class Attempts:
    """Counts the answers to one question, and gives the verdict on each."""

    def __init__(self, stage: Stage, policy: NetworkPolicy) -> None:
        self.times: dict[Answer, int] = {}
        self.stage = stage
        self._policy = policy
        self._first: dict[Answer, float] = {}

    def add(self, answer: Answer) -> Verdict:
        """Return the verdict on an answer that has just come."""
        self.times[answer] = self.times.get(answer, 0) + 1
        first = self._first.setdefault(answer, time.monotonic())
        rule = TABLE[self.stage][answer]
        times, seconds = (
            getattr(self._policy, limit) if isinstance(limit, str) else limit for limit in (rule.times, rule.seconds)
        )
        is_enough = self.times[answer] >= times and time.monotonic() - first >= seconds
        return rule.verdict if is_enough else Verdict.AGAIN


def classify(stage: Stage, reply: Reply | TransportFailure, is_cancelled: bool = False) -> Answer:
    """Return the kind of a reply of the queue. `is_cancelled`: fal has confirmed that it cancels the job."""
    if isinstance(reply, TransportFailure):
        return Answer[reply.kind]
    status = reply.status
    common = {429: Answer.BUSY, 401: Answer.NOT_ALLOWED, 403: Answer.NOT_ALLOWED}
    if reply.is_success:
        needs_json = stage not in (Stage.CANCEL, Stage.UPLOAD)
        return Answer.UNREADABLE if reply.unreadable and needs_json else Answer.OK
    if reply.is_redirect:
        return Answer.REDIRECT
    if status in common:
        return common[status]
    if stage in (Stage.SUBMIT, Stage.UPLOAD):  # 499 is fal's `client_disconnected`: a job may be behind it
        return Answer.OTHER if status in (408, 499) or status >= 500 else Answer.REFUSED
    if status == 404 and reply.is_fals_own:
        return Answer.NOT_FOUND
    if stage is Stage.RESULT:
        return classify_result(reply, is_cancelled)
    if stage is Stage.CANCEL and status < 500 and status not in (408, 409, 425):
        return Answer.TOO_LATE if reply.says("status", "ALREADY_COMPLETED") else Answer.REFUSED
    return Answer.OTHER


def classify_result(reply: Reply, is_cancelled: bool) -> Answer:
    """Return the kind of a result. fal gives the model's own answer unchanged ("Inference API reference", result)."""
    if reply.is_in_progress:
        return Answer.IN_PROGRESS
    if not reply.is_fals_own:
        return Answer.OTHER
    if reply.status == 499:
        return Answer.CANCELLED_AS_ASKED if is_cancelled else Answer.CANCELLED
    if reply.status == 422:
        return Answer.REJECTED
    return Answer.FAILED if reply.is_documented_error else Answer.OTHER
