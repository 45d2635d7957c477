"""The finished file: everything that can be wrong with its address, its download and its content."""

import io
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from cosmos_predict25.devtools.fal_faults import FAST, NOT_FOUND, with_video
from cosmos_predict25.devtools.fal_standin import (
    FIELD_ERROR,
    FOREVER,
    Body,
    Drip,
    EndlessBody,
    FalStandIn,
    Fault,
    Json,
    Redirect,
    Relabel,
    Reply,
    Reset,
    RetryAt,
)
from cosmos_predict25.devtools.fal_standin.media import colour_of, render
from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, JobKeptError
from cosmos_predict25.pipeline.fal.media import download, probe
from cosmos_predict25.pipeline.video import RemoteVideo
from cosmos_predict25.tests.fal import (
    REQUEST,
    Watcher,
    failed,
    goes_on,
    is_blocked,
    journal_of,
    make,
    policy_with,
    record_of,
    records_of,
    run,
    short_name,
    start,
    videos_of,
)
from cosmos_predict25.tests.fal_worker import outcome_of
from cosmos_predict25.tests.posix import only_posix

FORMATS = [
    ("X264 (.mp4)", "video/mp4"),
    ("VP9 (.webm)", "video/webm"),
    ("PRORES4444 (.mov)", "video/quicktime"),
    ("GIF (.gif)", "image/gif"),
]

NAMES = [name for name, _ in FORMATS]

MIB = 2**20
REPO = Path(__file__).resolve().parents[1]


def ids(value: Any) -> str:
    return value.__name__ if callable(value) else str(value)[:40]


def content(name: str = "X264 (.mp4)", num_frames: int = 9) -> bytes:
    """The stand-in's own file."""
    return render(name, "high", num_frames, colour_of(REQUEST.seed or 0))


def arrives(fal: FalStandIn, **options: Any) -> RemoteVideo:
    """The stand-in's file, byte for byte, at the first try in spite of the faults, and nothing else."""
    video = run(make(fal, **options))
    assert video.path.read_bytes() == content()
    assert list(videos_of(fal).iterdir()) == [video.path]
    assert records_of(fal) == []
    assert len(fal.requests("submit")) == fal.accepted == 1
    return video


def is_kept(fal: FalStandIn, says: str, **options: Any) -> None:
    """The download fails, so that nothing is there but the record, from which the same request goes on to the end."""
    error = failed(fal, JobKeptError, **options)
    assert error.stage == "download"
    assert says in str(error)
    assert len(str(error)) < 1000
    record = record_of(fal)
    assert record.result
    assert not list(videos_of(fal).glob("*"))
    looks = len(fal.requests("status"))
    assert goes_on(fal).path.read_bytes() == content()
    assert len(fal.requests("status")) == looks


@pytest.mark.parametrize(("name", "kind"), FORMATS)
@pytest.mark.parametrize("num_frames", [9, 12])
def test_every_format_is_the_servers_own_file(fal: FalStandIn, name: str, kind: str, num_frames: int) -> None:
    request = replace(REQUEST, video_output_type=name, num_frames=num_frames)
    video = run(make(fal, request))
    assert video.path.read_bytes() == content(name, num_frames)
    assert (video.content_type, video.file_size) == (kind, len(content(name, num_frames)))
    assert (video.width, video.height, video.num_frames, video.seed) == (96, 64, num_frames, 7)
    assert float(video.fps) == pytest.approx(16, rel=0.01 if name == "GIF (.gif)" else 0)
    assert video.duration == pytest.approx(num_frames / 16, rel=0.01)
    assert video.notes == ()
    before = len(fal.journal)
    assert run(make(fal, request)) == replace(video, url=None)
    assert len(fal.journal) == before
    assert fal.accepted == 1


def test_the_download_shows_nothing_of_us(fal: FalStandIn) -> None:
    fal.fault("media", Redirect(302, "https://v3.fal.media{target}"))
    arrives(fal)
    asked = fal.requests("media")
    assert [exchange.host for exchange in asked] == ["v3b.fal.media", "v3.fal.media"]
    for exchange in asked:
        assert exchange.headers.keys() <= {"host", "accept", "accept-encoding", "connection", "user-agent"}
        assert exchange.headers["accept-encoding"] == "identity"
        assert exchange.body == b""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (EndlessBody(), "more than 1 MiB"),
        (EndlessBody(first=b"\x00\x00\x00\x18ftypmp42"), "more than 1 MiB"),
        (EndlessBody(length=10**12), "the limit is 1 MiB"),
        (EndlessBody(length=MIB + 1), "the limit is 1 MiB"),
    ],
    ids=short_name,
)
def test_a_file_that_is_too_large_is_refused(fal: FalStandIn, fault: Fault, says: str) -> None:
    fal.fault("media", fault, FOREVER)
    is_kept(fal, says, policy=policy_with(max_media=MIB))
    assert len(fal.requests("media")) == 2
    fal.wait_for(lambda: fal.requests("media")[0].outcome in ("abandoned", "closed"))


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "length", [10**18, 2**63, 10**20, 10**40, "9" * 5000, "-1", "x", "\xb2"], ids=lambda length: str(length)[:9]
)
def test_a_length_beyond_every_disk_is_refused(fal: FalStandIn, length: Any) -> None:
    fal.fault("media", Relabel(headers={"content-length": str(length)}), FOREVER)
    is_kept(fal, "", policy=policy_with(max_media=2**62, result_timeout=0.5))
    assert len(fal.requests("media")) <= 6


def test_a_file_that_has_no_room_on_the_disk_is_not_brought(fal: FalStandIn, tmp_path: Path) -> None:
    size = shutil.disk_usage(tmp_path).total
    fal.fault("media", EndlessBody(length=size), FOREVER)
    is_kept(fal, "make room", policy=policy_with(max_media=2 * size))
    assert len(fal.requests("media")) == 2


@pytest.mark.slow
def test_a_drip_is_given_up_for_its_rate(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RATE_WINDOW", 0.4)
    monkeypatch.setattr(download, "MIN_RATE", 1000)
    fal.fault("media", Drip(0.05, head=False), FOREVER)
    is_kept(fal, "less than 1000 bytes per second")
    assert len(fal.requests("media")) == 6


@pytest.mark.parametrize("head", [True, False])
def test_a_drip_is_given_up_at_the_deadline(fal: FalStandIn, head: bool) -> None:
    fal.fault("media", Drip(0.05, head=head), FOREVER)
    is_kept(fal, "not complete within 1 s", policy=policy_with(media_deadline=1))


def other(name: str) -> Body:
    return Body(lambda _: content(name))


@pytest.mark.parametrize("wanted", NAMES)
def test_another_container_than_was_asked_for_is_refused(fal: FalStandIn, wanted: str) -> None:
    given = "GIF (.gif)" if wanted != "GIF (.gif)" else "X264 (.mp4)"
    request = replace(REQUEST, video_output_type=wanted)
    fal.fault("media", other(given), FOREVER)
    assert "first bytes" in str(failed(fal, JobKeptError, request=request))
    assert goes_on(fal, request=request).num_frames == 9


@pytest.mark.parametrize("kind", ["application/octet-stream", "", "binary/octet-stream", "Video/MP4; codecs=avc1"])
def test_a_content_type_that_tells_less_is_tolerated(fal: FalStandIn, kind: str) -> None:
    fal.fault("media", Relabel(headers={"content-type": kind}))
    assert arrives(fal).content_type == "video/mp4"


def test_more_pixels_than_allowed_are_refused(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_PIXELS", 96 * 64 * 49)
    fal.fault("media", Body(lambda _: content(num_frames=50)), FOREVER)
    is_kept(fal, "far more pixels")


def test_a_file_that_is_said_to_be_as_it_is_is_taken(fal: FalStandIn) -> None:
    fal.fault("media", Relabel(headers={"content-encoding": "Identity"}))
    arrives(fal)


@pytest.mark.parametrize(
    ("name", "value"),
    [("file_size", 5), ("file_size", 10**12), ("width", 1280), ("height", 704), ("fps", 24), ("num_frames", 93)],
)
def test_the_numbers_of_a_video_are_the_files_and_not_those_that_fal_announces(
    fal: FalStandIn, name: str, value: int
) -> None:
    fal.fault("result", with_video(**{name: value}))
    video = arrives(fal)
    assert (video.file_size, video.width, video.height, video.fps, video.num_frames) == (len(content()), 96, 64, 16, 9)


@pytest.mark.sample(6)
@pytest.mark.parametrize("value", [0, -1, 0.5, 10**400, math.nan, math.inf, True, "9", None, [9], {}, "x" * 10_000])
def test_numbers_that_fal_announces_may_be_anything(fal: FalStandIn, value: Any) -> None:
    names = ("file_size", "width", "height", "fps", "num_frames", "duration", "content_type")
    fal.fault("result", with_video(**dict.fromkeys(names, value)))
    assert arrives(fal).notes == ()


def test_other_frames_than_were_asked_for_are_noted(fal: FalStandIn) -> None:
    fal.fault("media", Body(lambda _: content(num_frames=12)))
    video = run(make(fal))
    assert (video.num_frames, video.duration) == (12, 0.75)
    assert video.notes == ("9 frames were asked for, and the file has 12",)


@pytest.mark.sample(10)
@pytest.mark.quick(4)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["https://{host}{target}", "{target}", "//{host}{target}", "HTTPS://V2.fal.media:443{target}"]
)
def test_redirects_to_the_cdn_are_followed(fal: FalStandIn, code: int, location: str) -> None:
    fal.fault("media", Redirect(code, location), times=3)
    arrives(fal)
    assert len(fal.requests("media")) == 4


ASTRAY = [
    "https://evil.example{target}",
    "//evil.example{target}",
    "http://{host}{target}",
    "https://{host}:8443{target}",
    "https://{host}:80{target}",
    "https://user@{host}{target}",
    "https://{host}@evil.example{target}",
    "https://{host}.evil.example{target}",
    "https://evil{host}.example{target}",
    "https://127.0.0.1{target}",
    "https://127.0.0.1:EVIL{target}",
    "https://localhost:EVIL{target}",
    "https://[::1]{target}",
    "https://10.0.0.1{target}",
    "https://169.254.169.254/latest/meta-data",
    "https://queue.fal.run{target}",
    "file:///etc/passwd",
    "ftp://{host}{target}",
    "data:video/mp4;base64,AAAA",
    "javascript:alert(1)",
    "https://[",
    "https://",
    "https:///x",
    "\\\\evil.example\\x",
]


@pytest.mark.sample(12)
@pytest.mark.quick(8)
@pytest.mark.parametrize("location", ASTRAY)
@pytest.mark.parametrize("after", [0, 2])
def test_redirects_astray_are_refused(fal: FalStandIn, location: str, after: int) -> None:
    if after:
        fal.fault("media", Redirect(302, "https://v3.fal.media{target}"), times=after)
    fal.fault("media", Redirect(302, location.replace("EVIL", str(fal.ports["evil"]))), FOREVER)
    is_kept(fal, "is not used")
    assert set(fal.connects) <= ALLOWED_CONNECTS


ALLOWED_CONNECTS = {f"{host}:443" for host in ("queue.fal.run", "api.fal.ai", "v3b.fal.media", "v3.fal.media")}


@pytest.mark.parametrize("location", ["https://{host}{target}", "https://v3.fal.media{target}", ""])
def test_redirects_without_end_are_refused(fal: FalStandIn, location: str) -> None:
    fal.fault("media", Redirect(307, location), FOREVER)
    is_kept(fal, "more than 3 redirects")
    assert len(fal.requests("media")) == 5
    assert set(fal.connects) <= ALLOWED_CONNECTS


def at(address: str) -> Json:
    """The video's URL with another beginning, up to its path."""
    return Json(
        lambda reply: {
            **reply,
            "video": {**reply["video"], "url": address + reply["video"]["url"].removeprefix("https://v3b.fal.media")},
        }
    )


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://fal.media", "fal.media"),
        ("https://v2.fal.media", "v2.fal.media"),
        ("https://a.b.fal.media", "a.b.fal.media"),
        ("https://v3b.fal.media:443", "v3b.fal.media"),
        ("https://V3B.FAL.Media", "v3b.fal.media"),
        ("HTTPS://v3b.fal.media", "v3b.fal.media"),
        ("https://v3b.fal.media.", "v3b.fal.media"),
    ],
)
def test_legal_addresses_are_used(fal: FalStandIn, address: str, host: str) -> None:
    fal.fault("result", at(address))
    arrives(fal)
    assert [exchange.host for exchange in fal.requests("media")] == [host]
    assert set(fal.connects) == {"queue.fal.run:443", "api.fal.ai:443", f"{host}:443"}


ILLEGAL = [
    "https://evilfal.media",
    "https://fal.media.evil",
    "https://fal.media.evil.example",
    "https://evil.example",
    "https://xn--fa-0ia.media",
    "https://f\u0430l.media",
    "https://\uff46al.media",
    "https://user@v3b.fal.media",
    "https://user:pass@v3b.fal.media",
    "https://v3b.fal.media@evil.example",
    "https://v3b.fal.media:443@evil.example",
    "https://evil.example\\@v3b.fal.media",
    "https://evil.example#@v3b.fal.media",
    "https://evil.example?.fal.media",
    "https://evil.example/.fal.media",
    "https://v3b.fal.media%2eevil.example",
    "https://v3b.fal.media%00.evil.example",
    "https://v3b.fal.media\x00.evil.example",
    "https://v3b.fal.media\n.evil.example",
    "https://127.0.0.1",
    "https://127.1",
    "https://2130706433",
    "https://0x7f000001",
    "https://0177.0.0.1",
    "https://[::1]",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:7f00:1]",
    "https://10.0.0.1",
    "https://169.254.169.254",
    "https://0.0.0.0",
    "https://localhost",
    "https://queue.fal.run",
    "https://rest.fal.ai",
    "https://v3b.fal.media:8443",
    "https://v3b.fal.media:80",
    "https://v3b.fal.media:99999",
    "https://v3b.fal.media:443:443",
    "http://v3b.fal.media",
    "http://v3b.fal.media:443",
    "ftp://v3b.fal.media",
    "file://v3b.fal.media",
    "file://",
    "//v3b.fal.media",
    "https:/v3b.fal.media",
    "https:v3b.fal.media",
    "https:///v3b.fal.media",
    "https://",
    "https://.",
    "https://.fal.media",
    " https://v3b.fal.media",
    "v3b.fal.media",
    "https://" + "a" * 70_000 + ".fal.media",
    "/etc/passwd",
]


@pytest.mark.sample(12)
@pytest.mark.quick(9)
@pytest.mark.parametrize("address", ILLEGAL, ids=lambda address: ascii(address)[:50])
def test_illegal_addresses_are_never_asked(fal: FalStandIn, address: str) -> None:
    fal.fault("result", at(address))
    error = failed(fal, JobKeptError)
    assert (error.stage, "address" in str(error)) == ("download", True)
    assert len(str(error)) < 1000
    assert set(fal.connects) == {"queue.fal.run:443", "api.fal.ai:443"}
    assert record_of(fal).result
    assert not list(videos_of(fal).glob("*"))
    assert fal.accepted == 1


@pytest.mark.sample(2)
@pytest.mark.parametrize("address", ILLEGAL, ids=lambda address: ascii(address)[:50])
def test_an_address_that_was_refused_is_read_again_in_the_next_run(fal: FalStandIn, address: str) -> None:
    fal.fault("result", at(address))
    failed(fal, JobKeptError)
    assert record_of(fal).result == {"video": {}}
    goes_on(fal)
    assert len(fal.requests("result")) == 2


def test_a_refused_address_in_a_record_of_before_is_read_again(fal: FalStandIn) -> None:
    fal.fault("media", Reply(500), FOREVER)
    failed(fal, JobKeptError)
    record = record_of(fal)
    record.result = {"video": {"url": "http://v3b.fal.media/files/a.mp4"}}
    journal_of(fal).save(record)
    goes_on(fal)


def test_a_file_that_was_refused_has_its_address_read_again_in_the_next_run(fal: FalStandIn) -> None:
    fal.fault("media", Reply(200, {"content-type": "text/html"}, b"<html>"))
    failed(fal, JobKeptError)
    goes_on(fal)
    assert len(fal.requests("result")) == 2


def test_a_video_whose_address_was_refused_is_not_taken_for_failed(fal: FalStandIn) -> None:
    fal.fault("result", at("http://v3b.fal.media/a.mp4"))
    failed(fal, JobKeptError)
    fal.fault("result", Reply(500, {"x-fal-request-id": "1"}, {"detail": "Runner died"}), FOREVER)
    failed(fal, JobKeptError)
    goes_on(fal)


@pytest.mark.parametrize("code", [403, 404, 410])
def test_an_address_that_is_over_is_asked_for_again(fal: FalStandIn, code: int) -> None:
    fal.fault("media", Reply(code))
    arrives(fal)
    assert (len(fal.requests("result")), len(fal.requests("media"))) == (2, 2)


def test_a_job_of_before_gets_a_new_address(fal: FalStandIn) -> None:
    fal.fault("media", Reply(500), FOREVER)
    failed(fal, JobKeptError)
    old = (record_of(fal).result or {})["video"]["url"]
    (request_id,) = fal.jobs
    fal.renew_media(request_id)
    assert goes_on(fal).path.read_bytes() == content()
    asked = [f"https://{exchange.host}{exchange.target}" for exchange in fal.requests("media")]
    assert (asked[-2], asked[-1] == old) == (old, False)


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_file_that_stays_gone_has_expired(fal: FalStandIn, code: int) -> None:
    fal.fault("media", Reply(code), FOREVER)
    begin = time.monotonic()
    error = failed(fal, JobExpiredError)
    assert time.monotonic() - begin >= FAST.media_patience
    assert (error.stage, f"HTTP {code}" in str(error)) == ("download", True)
    assert len(fal.requests("result")) == len(fal.requests("media")) >= 2
    is_blocked(fal)


@pytest.mark.parametrize("code", [403, 404, 410])
def test_an_address_that_leads_nowhere_for_a_moment_is_tried_again(fal: FalStandIn, code: int) -> None:
    fal.fault("media", Reply(code), times=4)
    arrives(fal, policy=policy_with(media_patience=math.inf))
    assert len(fal.requests("media")) == 5


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Reply(401), JobKeptError), (Reset(), JobKeptError), (NOT_FOUND, JobExpiredError)],
    ids=["key refused", "reset", "result gone"],
)
def test_a_file_that_is_gone_with_its_result_is_told(fal: FalStandIn, fault: Fault, kind: type[FalError]) -> None:
    fal.fault("media", Reply(404), FOREVER)
    fal.fault("result", fault, FOREVER, after=1)
    assert failed(fal, kind).stage == "result"
    if kind is JobKeptError:
        assert goes_on(fal).path.read_bytes() == content()
    assert fal.accepted == 1


OVER = {
    "a refusal": Reply(422, body=FIELD_ERROR.body),
    "an outage": Reply(503, body={"detail": "Lost", "error_type": "runner_connection_error"}),
}


@pytest.mark.parametrize("fault", OVER.values(), ids=OVER)
@pytest.mark.parametrize("was_saved", [True, False], ids=["saved before", "not yet saved"])
def test_a_job_that_has_made_its_video_never_counts_as_failed(fal: FalStandIn, fault: Reply, was_saved: bool) -> None:
    if was_saved:
        run(make(fal)).path.unlink()
    fal.fault("media", Reply(403), FOREVER)
    fal.fault("result", fault, FOREVER, after=0 if was_saved else 1)
    error = failed(fal, JobKeptError)
    (record,) = journal_of(fal).records()
    assert f"HTTP {fault.status}" in str(error)
    assert f"delete {journal_of(fal).path_of(record.fingerprint)} and run the same again" in str(error)
    assert goes_on(fal).path.read_bytes() == content()


@pytest.mark.slow
@pytest.mark.parametrize("value", ["1", pytest.param("date", marks=pytest.mark.slow), "", "soon"])
def test_a_download_that_is_too_early_waits(fal: FalStandIn, value: str) -> None:
    headers = {"retry-after": value} if value else {}
    fal.fault("media", RetryAt(2) if value == "date" else Reply(429, headers), times=2)
    arrives(fal)
    times = [exchange.time for exchange in fal.requests("media")]
    assert len(times) == 3
    if value in ("1", "date"):
        assert times[1] - times[0] > 0.9


FILE_NAMES = [
    "../../../evil.mp4",
    "/tmp/evil.mp4",
    "C:\\evil.mp4",
    "a\x00b.mp4",
    "CON",
    "con.mp4",
    "x" * 300 + ".mp4",
    "..",
    "",
    "evil.mp4\n",
    "evil.exe",
    5,
    ["a"],
]


@pytest.mark.sample(7)
@pytest.mark.parametrize("name", FILE_NAMES, ids=lambda name: ascii(name)[:30])
def test_the_file_name_is_ours(fal: FalStandIn, tmp_path: Path, name: Any) -> None:
    fal.fault("result", with_video(file_name=name))
    video = arrives(fal)
    assert video.path.name.startswith("cosmos_7_")
    assert video.path.suffix == ".mp4"
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name.lower()]


@pytest.mark.parametrize("name", ["evil.exe", "..%2f..%2fevil", "a;evil|c", "%00evil", "evil?evil#evil"])
def test_the_file_name_is_not_that_of_the_address(fal: FalStandIn, tmp_path: Path, name: str) -> None:
    fal.fault("result", with_video(url=f"https://v3b.fal.media/files/b/0/{name}"))
    fal.fault("media", Reply(200, {"content-type": "video/mp4"}, content()))
    assert arrives(fal).path.name.startswith("cosmos_7_")
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_a_disk_that_is_full_is_told_and_the_job_kept(fal: FalStandIn) -> None:
    name = "PRORES4444 (.mov)"
    order = {"request": {"video_output_type": name}}
    reply = outcome_of(start(fal, file_size=5000, **order))
    assert reply
    assert reply.keys() == {"error", "message"}, reply
    (request_id,) = fal.jobs
    assert reply["error"] == "JobKeptError"
    assert "make room" in reply["message"]
    assert str(videos_of(fal)) in reply["message"]
    assert request_id in reply["message"]
    assert not list(videos_of(fal).iterdir())
    assert record_of(fal).result
    assert goes_on(fal, request=replace(REQUEST, video_output_type=name)).path.read_bytes() == content(name)


def target_of(fal: FalStandIn) -> Path:
    """Where the video of `REQUEST` belongs."""
    record = record_of(fal)
    return videos_of(fal) / f"cosmos_7_{record.fingerprint[:12]}.mp4"


def test_another_file_of_the_same_name_is_left_alone(fal: FalStandIn) -> None:
    def take_the_name() -> None:
        target_of(fal).write_text("mine")

    error = failed(fal, JobKeptError, observer=Watcher("Running", take_the_name))
    target = target_of(fal)
    assert (error.stage, str(target) in str(error), "move it away" in str(error)) == ("download", True, True)
    assert target.read_text() == "mine"
    assert record_of(fal).result

    error = failed(fal, FalError)
    assert "Move it away" in str(error)
    assert "at no charge" in str(error)
    assert target.read_text() == "mine"

    target.unlink()
    assert goes_on(fal).path == target


def test_another_file_of_the_same_name_is_told_before_anything_is_paid(fal: FalStandIn) -> None:
    target = run(make(fal)).path
    target.write_text("mine")
    with pytest.raises(FalError, match="Move it away and run again to download it again, at no charge"):
        run(make(fal))
    next(journal_of(fal).folder.glob("*.json")).unlink()
    with pytest.raises(FalError, match="Move it away and run again to regenerate it; this is a new charge"):
        run(make(fal))
    assert target.read_text() == "mine"
    assert fal.accepted == 1


@pytest.mark.parametrize("when", ["Sent to fal", "Running", "Downloading"])
def test_a_folder_that_is_removed_is_made_again(fal: FalStandIn, when: str) -> None:
    arrives(fal, observer=Watcher(when, lambda: shutil.rmtree(videos_of(fal))))


def test_a_folder_that_is_a_file_by_now_is_told(fal: FalStandIn) -> None:
    def take_the_place() -> None:
        shutil.rmtree(videos_of(fal))
        videos_of(fal).write_text("mine")

    error = failed(fal, JobKeptError, observer=Watcher("Running", take_the_place))
    assert (error.stage, str(videos_of(fal)) in str(error)) == ("download", True)
    assert record_of(fal).result
    videos_of(fal).unlink()
    assert goes_on(fal).path.read_bytes() == content()


def test_a_folder_that_is_removed_while_the_file_comes_is_told(fal: FalStandIn) -> None:
    fal.fault("media", Body(lambda whole: shutil.rmtree(videos_of(fal)) or whole))
    error = failed(fal, JobKeptError)
    assert (error.stage, str(videos_of(fal)) in str(error)) == ("download", True)
    assert record_of(fal).result
    assert goes_on(fal).path.read_bytes() == content()


def test_a_journal_that_is_removed_while_the_file_comes_costs_nothing(fal: FalStandIn) -> None:
    observer = Watcher("Downloading", lambda: shutil.rmtree(journal_of(fal).folder))
    assert arrives(fal, observer=observer).fps == Fraction(16)


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_paid(fal: FalStandIn) -> None:
    videos_of(fal).write_text("mine")
    with pytest.raises(JobKeptError, match=f"Videos in {videos_of(fal)} cannot be written"):
        run(make(fal))
    assert (fal.connects, fal.accepted) == ([], 0)


@only_posix
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_what_was_planted_beside_the_file_is_left_alone(fal: FalStandIn, tmp_path: Path, kind: str) -> None:
    """Under the name that is easily guessed."""
    victim = tmp_path / "victim"
    victim.write_text("mine")

    def plant() -> None:
        for name in (f"{target_of(fal).name}.part", f".{target_of(fal).name}.part"):
            planted = videos_of(fal) / name
            planted.symlink_to(victim) if kind == "link" else os.mkfifo(planted)

    assert run(make(fal, observer=Watcher("Running", plant))).path.read_bytes() == content()
    assert victim.read_text() == "mine"


def big_gif(side: int) -> bytes:
    """Two frames of one colour, in 112 bytes."""
    screen = struct.pack("<HH", side, side) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    delay = b"\x21\xf9\x04\x04\x06\0\0\0"
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, side, side) + b"\0\x02\x02\x44\x01\0"
    return b"GIF89a" + screen + 2 * (delay + frame) + b"\x3b"


def big_mp4(side: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            "h264", rate=16, options={"preset": "ultrafast", "rc-lookahead": "0", "threads": "1"}
        )
        stream.width = stream.height = side
        frame = av.VideoFrame(side, side, "yuv420p")
        container.mux([*stream.encode(frame), *stream.encode()])
    return file.getvalue()


def compressed_index(size: int) -> bytes:
    """The stand-in's file with its index compressed, and `size` bytes of nothing in it."""
    whole, boxes, at = content(), {}, 0
    while at < len(whole):
        length = int.from_bytes(whole[at : at + 4], "big")
        boxes[whole[at + 4 : at + 8]] = whole[at : at + length]
        at += length
    index = boxes[b"moov"][8:]
    unpacked = 8 + len(index) + 8 + size
    packer = zlib.compressobj(9)
    packed = packer.compress(struct.pack(">I", unpacked) + b"moov" + index + struct.pack(">I", 8 + size) + b"free")
    packed += b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()

    def box(kind: bytes, value: bytes) -> bytes:
        return struct.pack(">I", 8 + len(value)) + kind + value

    movie = box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", unpacked) + packed))
    return boxes[b"ftyp"] + box(b"moov", movie) + boxes[b"mdat"]


PROBE = """
import json, re, sys
from pathlib import Path

import av
from cosmos_predict25.pipeline.fal.media.download import MediaRefusedError
from cosmos_predict25.pipeline.fal.media.probe import probe
from cosmos_predict25.pipeline.formats import format_of_suffix

def peak_kib():  # unlike getrusage, without that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

path = Path(sys.argv[1])
before = peak_kib()
try:
    probe(path, format_of_suffix(path.suffix), 7)
    said = "taken"
except MediaRefusedError as refusal:
    said = str(refusal)
print(json.dumps({"said": said, "mib": (peak_kib() - before) / 1024}))
"""
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "16000.gif": (lambda: big_gif(16000), "far larger"),
    "12000.mp4": (lambda: big_mp4(12000), "far larger"),
    "2049.mp4": (lambda: big_mp4(2050), "far larger"),
    "2048.gif": (lambda: big_gif(2048), "taken"),
    "index.mp4": (lambda: compressed_index(300 * MIB), "compressed"),
}


@pytest.mark.sample(2)
@pytest.mark.skipif(sys.platform != "linux", reason="The peak of memory is read from /proc.")
@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_no_file_takes_more_memory_than_some_frames(tmp_path: Path, name: str) -> None:
    make_file, says = BOMBS[name]
    (tmp_path / name).write_bytes(make_file())
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / name)], cwd=REPO, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    print(told, end=" ")
    assert says in told["said"]
    assert told["mib"] < 150


def test_a_finished_file_that_is_held_is_not_said_to_be_another_one(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run(make(fal)).path

    def held(_: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("cosmos_predict25.pipeline.fal.media.probe.refuse_compressed_index", held)
        message = str(failed(fal, FalError))
    assert "cannot be read (Permission denied): close what holds it" in message
    assert "costs nothing more" in message
    assert goes_on(fal).path == path
