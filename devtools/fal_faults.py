"""What can go wrong between the client and fal, stage by stage, and how a run then ends: one row for each fault.

Tests and the soak go through all rows. Stop, kills and the account's refusals have tests of their own.
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    BigHeaders,
    Body,
    Chop,
    Drip,
    EndlessBody,
    Fault,
    GzipBomb,
    Hang,
    Json,
    NoLength,
    Redirect,
    Relabel,
    Reply,
    Reset,
    Stall,
    Truncate,
    ingress,
    with_fields,
    without_fields,
)
from cosmos_predict25.pipeline.fal import NetworkPolicy

MIB = 2**20
DEEP_JSON = b"[" * 100_000
OTHER_ID = "00000000-0000-4000-8000-000000000000"
ENDPOINT = "fal-ai/cosmos-predict-2.5/text-to-video"
NOT_FOUND = Reply(404, body={"status": "NOT_FOUND"})
FAST = NetworkPolicy(
    wait_limit=60,
    poll_intervals=((0, 0.01),),
    backoff=0.01,
    backoff_cap=0.02,
    gone_patience=0.2,
    media_patience=0.2,
    reconcile_pauses=(0, 0.01),
    look_time=0,
)
"""As in production but for the pauses, and without the look for a job that another run has sent, so that a fault of the
listing meets the search for a lost one. What may not take long there may not here, as the machine may be busy."""


class Ending(enum.Enum):
    """How the run ends that meets the fault. In all of them no more than one job is accepted."""

    VIDEO = "the video"
    KEPT = "an error that keeps the job: without the fault, the same request has its video"
    FOUND = "an unknown outcome: the next run finds the job in fal's list"
    UNKNOWN = "an unknown outcome: no job was taken, and none is sent again"


@dataclass(frozen=True)
class Case:
    """`times`: how many requests of the stage meet the fault. `asked`: how many requests of the stage the run sends.

    `says`: what the message of an error holds. `policy`: changes of FAST.
    """

    stage: str
    what: str
    fault: Fault
    ending: Ending
    times: int = 1
    asked: int | None = None
    says: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.stage}: {self.what}"


def with_video(**fields: Any) -> Json:
    """The result with other members of its video."""
    return Json(lambda reply: {**reply, "video": {**reply["video"], **fields}})


def bad(status: int, *, accept: bool = False) -> Reply:
    return Reply(status, body={"detail": "Bad"}, accept=accept)


LITTLE = {"max_reply": 2**18}
IMPATIENT = {"api_timeout": 2, "result_timeout": 2, "submit_deadline": 2}
"""With what is silent, which is given up sooner than anything else could be late."""


def is_silent(fault: Fault) -> bool:
    return isinstance(fault, Hang | Stall | Drip)


def limits(fault: Fault) -> dict[str, float]:
    """Changes of FAST. Only silence ends at a limit of time."""
    return {**LITTLE, **(IMPATIENT if is_silent(fault) else {})}


def tries(fault: Fault, times: int) -> int | None:
    """How often it is asked. After silence one more answer may be given up, if the machine is busy."""
    return None if is_silent(fault) else times + 1


LOST_ANSWERS: dict[str, Fault] = {
    "a reset": Reset(accept=True),
    "a close": Reset(accept=True, rst=False),
    "no byte of a reply": Hang(accept=True),
    "half a reply": Truncate(150),
    "half a reply with the id in it": Truncate(300),
    "half a reply in chunks": Truncate(150, chunked=True),
    "half a reply in chunks with the id in it": Truncate(300, chunked=True),
    "a reply without its last brace": Body(lambda body: body[:-1]),
    "a reply that stalls": Stall(150),
    "a page": Body(lambda _: b"<html><body>OK</body></html>"),
    "an empty reply": Body(lambda _: b""),
    "a list": Body(lambda _: b"[]"),
    "null": Body(lambda _: b"null"),
    "no UTF-8": Body(lambda body: b"\xff\xfe" + body),
    "deep JSON": Body(lambda _: DEEP_JSON),
    "no id": without_fields("request_id"),
    "an id of null": with_fields(request_id=None),
    "an id of digits": with_fields(request_id=123456789),
    "an id with slashes": with_fields(request_id="../../../x/12345678"),
    "an id with a line break": with_fields(request_id=f"{OTHER_ID}\n"),
    "an id of 129 letters": with_fields(request_id="a" * 129),
    "an id in a list": Json(lambda reply: [reply]),
    "a 204": Relabel(204),
    "a gateway's page": ingress(503, accept=True),
    **{f"HTTP {status}": bad(status, accept=True) for status in (408, 500, 502, 503, 504)},
    "a head byte by byte": Drip(0.05),
    "a body byte by byte": Drip(0.05, head=False),
    "300 KB of headers": BigHeaders(300_000),
    "a body without end": EndlessBody(accept=True),
    "a gzip bomb": GzipBomb(accept=True),
}
NOT_TAKEN: dict[str, Fault] = {
    "a reset before the job": Reset(),
    "no byte of a reply, and no job": Hang(),
    "a gateway's page, and no job": ingress(),
    **{f"HTTP {status}, and no job": bad(status) for status in (408, 500, 502, 503, 504)},
}
ODD_BUT_WHOLE: dict[str, Fault] = {
    "100 KB of headers": BigHeaders(100_000),
    "chunks of one byte": Chop(1),
    "no length": NoLength(),
    "chunks": NoLength(chunked=True),
    "a 201": Relabel(201),
    "a 202": Relabel(202),
    "no queue position": without_fields("queue_position"),
    "no status": without_fields("status"),
    "nothing but the id and two URLs": without_fields("status", "queue_position", "cancel_url"),
}
SUBMISSION = [
    *(Case("submit", what, fault, Ending.FOUND, policy=limits(fault)) for what, fault in LOST_ANSWERS.items()),
    *(Case("submit", what, fault, Ending.UNKNOWN, FOREVER, policy=limits(fault)) for what, fault in NOT_TAKEN.items()),
    *(Case("submit", what, fault, Ending.VIDEO) for what, fault in ODD_BUT_WHOLE.items()),
]

ODD_STATES: dict[str, Fault] = {
    "a state that is not known": with_fields(status="PAUSED"),
    "no state": without_fields("status"),
    "a list for a state": Reply(200, body=[]),
    "null for a state": Reply(202, body=b"null"),
}
BURSTS: dict[str, tuple[Fault, int]] = {
    "HTTP 500": (Reply(500, body={"detail": "Internal Server Error"}), 7),
    "HTTP 502": (Reply(502), 7),
    "HTTP 503 and Retry-After that cannot be read": (Reply(503, {"retry-after": "soon"}, {"detail": "x"}), 7),
    "a gateway's page": (ingress(502), 7),
    "HTTP 408": (Reply(408), 7),
    "HTTP 425": (Reply(425), 7),
    "resets": (Reset(), 7),
    "closes": (Reset(rst=False), 7),
    "no byte of a reply": (Hang(), 1),
    "replies byte by byte": (Drip(0.02), 1),
    "half replies": (Truncate(20), 4),
    "half replies in chunks": (Truncate(20, chunked=True), 4),
    "300 KB of headers": (BigHeaders(300_000), 7),
    "gzip bombs": (GzipBomb(MIB), 4),
    "pages with 200": (ingress(200), 4),
    "no UTF-8": (Reply(200, body=b"\xff\xfe{"), 4),
    "JSON that breaks off": (Reply(200, body=b'{"status": "IN_QUE'), 4),
    "deep JSON": (Reply(200, body=DEEP_JSON), 4),
}
UNREADABLE: dict[str, Fault] = {
    "a page with 200": ingress(200),
    "an empty reply": Reply(200),
    "a gzip bomb": GzipBomb(MIB),
    "no JSON": Reply(200, body=b"{" * 10),
}
FRAMINGS: dict[str, Fault] = {
    "no length": NoLength(),
    "chunks": NoLength(chunked=True),
    "chunks of one byte": Chop(1),
}
REDIRECTS: dict[str, tuple[int, str, int]] = {
    "301 to elsewhere": (301, "https://evil.example/x", 1),
    "302 to the CDN": (302, "https://v3b.fal.media/x", 1),
    "303 to nowhere": (303, "", 1),
    "307 to itself": (307, "https://{host}{target}", 1),
    "308 to what is no URL": (308, "https://[", 1),
    "302 to a data URI": (302, "data:text/plain,x", 5),
    "300 to plain http": (300, "http://queue.fal.run{target}", 1),
}
FOLLOWING = [
    *(Case("status", f"{what}, four times", fault, Ending.VIDEO, 4) for what, fault in ODD_STATES.items()),
    *(
        Case("status", f"{what}, for ever", fault, Ending.KEPT, FOREVER, 5, "an unknown state")
        for what, fault in ODD_STATES.items()
        if what != "a state that is not known"
    ),
    *(
        Case("status", f"{what} in a row", *fault, policy=limits(fault[0]))
        for what, fault in ((w, (f, Ending.VIDEO, n)) for w, (f, n) in BURSTS.items())
    ),
    Case(
        "status",
        "twice unknown just after the submission",
        NOT_FOUND,
        Ending.VIDEO,
        2,
        policy={"gone_patience": math.inf},
    ),
    *(
        Case(stage, f"{what}, for ever", fault, Ending.KEPT, FOREVER, 5, "not understood")
        for stage in ("status", "result")
        for what, fault in UNREADABLE.items()
    ),
    *(
        Case(stage, f"always {what}", fault, Ending.VIDEO, FOREVER)
        for stage in ("status", "result")
        for what, fault in FRAMINGS.items()
    ),
    *(
        Case(stage, f"a {what}", Redirect(status, where), Ending.KEPT, FOREVER, asked, "redirect")
        for stage in ("status", "result")
        for what, (status, where, asked) in REDIRECTS.items()
    ),
]

NO_VIDEO: dict[str, Fault] = {
    "no video": without_fields("video"),
    **{
        f"a video of {video!r}": with_fields(video=video)
        for video in (None, [], [{"url": "x"}], "https://v3b.fal.media/files/b/0/a.mp4", 5, {})
    },
    **{
        f"a URL of {url!r}": with_video(url=url) for url in (None, "", 5, ["https://v3b.fal.media/files/b/0/a.mp4"], {})
    },
    **{f"a result of {body!r}": Reply(200, body=body) for body in ([], None, "text", 5, {}, {"detail": "no"})},
    "a 204": Reply(204),
}
RESULT_BURSTS: dict[str, tuple[Fault, int]] = {
    "a gateway's 502": (ingress(502), 7),
    "a gateway's 503": (ingress(503), 7),
    "a gateway's 504": (ingress(504), 7),
    "an empty 500": (Reply(500), 7),
    "a reset": (Reset(), 7),
    "no byte of a reply": (Hang(), 1),
    "half a reply": (Truncate(30), 4),
    "a page with 200": (ingress(200), 4),
    "a reply byte by byte": (Drip(0.02), 1),
    "still in progress": (Reply(400, body={"detail": "Request is still in progress"}), 2),
}
RESULT = [
    *(
        Case("result", f"{what}, {times} times", fault, Ending.VIDEO, times, tries(fault, times), policy=limits(fault))
        for what, (fault, times) in RESULT_BURSTS.items()
    ),
    *(
        Case("result", f"{what}, for ever", fault, Ending.KEPT, FOREVER, says="does not answer")
        for what, fault in {"a gateway's 503": ingress(503), "a reset": Reset(), "HTTP 429": Reply(429)}.items()
    ),
    *(
        Case("result", f"a gateway's {status}, for ever", ingress(status), Ending.KEPT, FOREVER)
        for status in (400, 405, 407, 413, 451)
    ),
    *(Case("result", what, fault, Ending.KEPT, FOREVER) for what, fault in NO_VIDEO.items()),
]

BROKEN: dict[str, Fault] = {
    "half a file": Truncate(500),
    "half a file in chunks": Truncate(500, chunked=True),
    "nothing of the file": Truncate(0),
    "a reset": Reset(),
    "a close": Reset(rst=False),
    "a file that stalls": Stall(500),
    "no byte of a reply": Hang(),
}


def page(kind: str) -> Reply:
    return Reply(200, {"content-type": kind}, b"<!doctype html><html><body>Sign in</body></html>")


NO_VIDEO_FILE: dict[str, Fault] = {
    "a page": page("text/html"),
    "a page in capitals": page("TEXT/HTML; charset=utf-8"),
    "text": page("text/plain"),
    "a page that is called a video": page("video/mp4"),
    "a page that is called nothing": page(""),
    "JSON": Reply(200, {"content-type": "application/json"}, {"detail": "no"}),
    "a video that is called text": Relabel(headers={"content-type": "text/plain"}),
    "an empty file": Reply(200, {"content-type": "video/mp4"}),
    "7 bytes": Body(lambda whole: whole[:7]),
    "24 bytes": Body(lambda whole: whole[:24]),
    "a half that is called the whole": Body(lambda whole: whole[: len(whole) // 2]),
    "zeros": Body(lambda whole: whole[:24] + bytes(len(whole) - 24)),
    "a byte too much in front": Body(lambda whole: b"\x00" + whole),
}
STRAY: dict[str, Fault] = {
    **{f"HTTP {status}": Reply(status) for status in (202, 203, 204, 400, 401, 402, 418, 451)},
    "a part that was not asked for": Reply(206, {"content-type": "video/mp4"}, b"part"),
}
COMPRESSED: dict[str, Fault] = {
    "a gzip bomb": GzipBomb(256 * MIB),
    **{
        f"a file encoded as {encoding}": Relabel(headers={"content-encoding": encoding})
        for encoding in ("gzip", "br", "deflate", "x", "GZIP, gzip")
    },
}
MEDIA = [
    *(
        Case("media", f"{what}, {times} times", fault, Ending.VIDEO, times, tries(fault, times), policy=limits(fault))
        for times in (1, 4)
        for what, fault in BROKEN.items()
        if times == 1 or not is_silent(fault)
    ),
    *(
        Case(
            "media",
            f"{what}, for ever",
            BROKEN[what],
            Ending.KEPT,
            FOREVER,
            says="was not downloaded",
            policy=limits(BROKEN[what]),
        )
        for what in ("half a file", "half a file in chunks", "a reset", "a file that stalls")
    ),
    *(
        Case("media", f"a file in {what}", fault, Ending.VIDEO)
        for what, fault in {**FRAMINGS, "chunks of 1000 bytes": Chop(1000)}.items()
    ),
    *(Case("media", what, fault, Ending.KEPT, FOREVER, 1, "is not used") for what, fault in NO_VIDEO_FILE.items()),
    *(Case("media", f"{what} twice", fault, Ending.VIDEO, 2, 3) for what, fault in STRAY.items()),
    *(Case("media", what, fault, Ending.KEPT, FOREVER, 5, "was not downloaded") for what, fault in STRAY.items()),
    *(Case("media", what, fault, Ending.KEPT, FOREVER, 1, "compressed") for what, fault in COMPRESSED.items()),
    *(
        Case("media", f"{fault.status} four times", fault, Ending.VIDEO, 4, 5)
        for fault in (Reply(500), ingress(502), ingress(503), Reply(504), Reply(408))
    ),
    *(
        Case("media", f"{fault.status} for ever", fault, Ending.KEPT, FOREVER, 5, "was not downloaded")
        for fault in (ingress(503), Reply(429))
    ),
]

USELESS_PRICES: dict[str, Fault] = {
    "HTTP 429": Reply(429, {"Retry-After": "100"}),
    "HTTP 500": Reply(500),
    "HTTP 401": Reply(401),
    "a gateway's page": ingress(),
    "a reset": Reset(),
    "no byte of a reply": Hang(),
    "a reply byte by byte": Drip(1),
    "a body without end": EndlessBody(),
    "a gzip bomb": GzipBomb(),
    "a redirect": Redirect(302, "https://evil.example/"),
    "a page": Reply(200, body=b"<html>"),
    "deep JSON": Reply(200, body=DEEP_JSON),
    "null": Reply(200, body=None),
    "prices of null": Reply(200, body={"prices": None}),
    "no object": Reply(200, body={"prices": {"endpoint_id": ENDPOINT}}),
    "beyond every number": Reply(
        200, body={"prices": [None, {"endpoint_id": ENDPOINT, "unit_price": "1e999", "unit": 1}]}
    ),
    "a price of null": Reply(
        200, body={"prices": [{"endpoint_id": ENDPOINT, "unit_price": None, "unit": "v", "currency": "USD"}]}
    ),
    "less than nothing": Reply(
        200, body={"prices": [{"endpoint_id": ENDPOINT, "unit_price": -1, "unit": [], "currency": {}}]}
    ),
    "a list of prices": Reply(200, body={"prices": [{"endpoint_id": ENDPOINT, "unit_price": [1]}]}),
}
PRICE = [Case("pricing", what, fault, Ending.VIDEO, FOREVER) for what, fault in USELESS_PRICES.items()]

USELESS_LISTS: dict[str, Fault] = {
    "HTTP 401": Reply(401, body={"error": {"type": "authorization_error", "message": "No"}}),
    "HTTP 403": Reply(403),
    "HTTP 429": Reply(429, {"Retry-After": "100"}),
    "a gateway's page": ingress(),
    "a reset": Reset(),
    "a redirect": Redirect(302, "https://evil.example/"),
    "a gzip bomb": GzipBomb(),
    "deep JSON": Reply(200, body=DEEP_JSON),
    "an empty reply": Reply(200, body=b""),
    "a list for the whole": Reply(200, body=[]),
    "an empty object": Reply(200, body={}),
    "items of null": Reply(200, body={"items": None}),
    "items in an object": Reply(200, body={"items": {"a": 1}}),
    "items that are none": Reply(
        200, body={"items": [None, 5, [], {}, {"request_id": 7}, {"request_id": "a/b/../cdefgh"}]}
    ),
    "inputs that are none": Reply(
        200, body={"items": [{"request_id": OTHER_ID, "json_input": value} for value in (None, "x", [], {})]}
    ),
    "a cursor that is none": Reply(200, body={"items": [], "has_more": True, "next_cursor": 5}),
    "ids that are none": Json(
        lambda reply: {**reply, "items": [{**item, "request_id": "a b"} for item in reply["items"]]}
    ),
    "lists for inputs": Json(
        lambda reply: {**reply, "items": [{**item, "json_input": [1]} for item in reply["items"]]}
    ),
}
LISTING = [Case("listing", what, fault, Ending.FOUND, FOREVER) for what, fault in USELESS_LISTS.items()]

FAULTS = [*SUBMISSION, *FOLLOWING, *RESULT, *MEDIA, *PRICE, *LISTING]
