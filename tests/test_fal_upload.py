"""Pictures and clips to fal: uploaded without the key, named by their content, and never a reason to pay twice."""

import base64
import hashlib
import io
import json
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from cosmos_predict25.devtools.fal_faults import FAST
from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    Exchange,
    FalStandIn,
    Fault,
    Hang,
    Redirect,
    Reply,
    Reset,
    ingress,
    run_official,
    with_fields,
    without_fields,
)
from cosmos_predict25.devtools.fal_standin.media import HEIGHT, WIDTH, frames_of, render
from cosmos_predict25.devtools.fal_standin.switches import DAY
from cosmos_predict25.pipeline.errors import FalError, InvalidRequestError, NotEnoughMemoryError
from cosmos_predict25.pipeline.export import mp4_bytes
from cosmos_predict25.pipeline.fal import IMAGE_TO_VIDEO, TEXT_TO_VIDEO, VIDEO_TO_VIDEO, Endpoint, Journal, extension
from cosmos_predict25.pipeline.fal.media.upload import MAX_UPLOAD, Media
from cosmos_predict25.pipeline.fal.submission import Submission, make_submission
from cosmos_predict25.pipeline.start import Start
from cosmos_predict25.tests.fal import (
    INPUT,
    REQUEST,
    Meanwhile,
    Recorder,
    end_at,
    error_of,
    folders_of,
    goes_on,
    make,
    policy_for,
    record_of,
    records_of,
    run,
    start,
)
from cosmos_predict25.tests.fal_worker import outcome_of
from cosmos_predict25.tests.posix import only_posix

CLIP = render("X264 (.mp4)", "maximum", 5, (1.0, 0.0, 0.0))
LIFETIME = {"expiration_duration_seconds": DAY}


def picture(seed: int = 0, width: int = 300) -> bytes:
    """A PNG that does not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (200, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


PICTURE = picture()
HUGE = (
    PICTURE[:8]
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(60_001)))
    + chunk(b"IEND", b"")
)
"""A picture of 20000 x 20000 pixels in a few bytes."""
FROM_PICTURE: dict[str, Any] = {"endpoint": IMAGE_TO_VIDEO, "media": PICTURE}
STARTS = {"picture": (IMAGE_TO_VIDEO, PICTURE, "image/png"), "clip": (VIDEO_TO_VIDEO, CLIP, "video/mp4")}


def name_of(media: Path | bytes | str | Media, endpoint: Endpoint = IMAGE_TO_VIDEO) -> str:
    return make_submission(REQUEST, endpoint, Journal(Path("none")), Path("none"), media).fingerprint


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(("endpoint", "content", "kind"), STARTS.values(), ids=STARTS)
def test_a_video_starts_from_what_was_uploaded(
    fal: FalStandIn, tmp_path: Path, endpoint: Endpoint, content: bytes, kind: str
) -> None:
    file = tmp_path / "a private name.bin"
    file.write_bytes(content)
    observer = Recorder()
    video = run(make(fal, endpoint=endpoint, media=file, observer=observer))
    ((path, uploaded),) = fal.uploads.items()
    (job,) = fal.jobs.values()
    assert uploaded == (kind, content)
    assert job.endpoint == endpoint.id
    assert job.input == {**INPUT, endpoint.media: f"https://v3.fal.media{path}"}
    assert video.url == f"https://v3b.fal.media{job.media_path}"
    known = frames_of(content)
    with av.open(str(video.path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(np.stack(frames[: len(known)]) - (255 * known).numpy()).mean() < 16
    (asked,), (put,) = fal.requests("storage"), fal.requests("upload")
    assert asked.json() == {"file_name": f"input.{kind.split('/')[1]}", "content_type": kind}
    for name in ("x-fal-object-lifecycle", "x-fal-object-lifecycle-preference"):
        assert json.loads(asked.headers[name]) == LIFETIME
    assert "authorization" not in put.headers
    assert not [exchange for exchange in fal.journal if b"private name" in repr(exchange).encode()]
    percents = [int(found[1]) for text in observer.messages if (found := re.search(r"Uploading to fal: (\d+) %", text))]
    assert percents == sorted(percents)
    assert percents[-1] == 100

    again = run(make(fal, endpoint=endpoint, media=content))
    assert (again.path, again.url) == (video.path, None)
    assert (len(fal.requests("storage")), fal.accepted) == (1, 1)


def test_the_content_names_the_job_and_the_address_does_not(tmp_path: Path) -> None:
    file = tmp_path / "rock.png"
    file.write_bytes(PICTURE)
    small = picture(width=10)
    assert name_of(PICTURE) == name_of(file)
    assert name_of(small) == name_of(data_uri(small))
    assert name_of(PICTURE) != name_of(picture(1))
    assert name_of(CLIP, VIDEO_TO_VIDEO) != name_of(PICTURE)
    assert name_of(Media("continues:abc", "image/png", PICTURE)) == name_of(Media("continues:abc", "image/png", b"x"))
    assert name_of("https://example.com/a.png") != name_of("https://example.com/b.png")


@pytest.mark.parametrize("store", [True, False])
def test_an_address_is_sent_as_it_is_and_nothing_is_uploaded(fal: FalStandIn, store: bool) -> None:
    small = picture(width=10)
    address = data_uri(small)
    if store:
        run(make(fal, **FROM_PICTURE))
        address = f"https://v3.fal.media{next(iter(fal.uploads))}"
    before = len(fal.requests("storage"))
    run(make(fal, endpoint=IMAGE_TO_VIDEO, media=address, store=store))
    assert list(fal.jobs.values())[-1].input["image_url"] == address
    assert len(fal.requests("storage")) == before


USELESS: dict[str, tuple[Endpoint, Any, str]] = {
    "no picture": (IMAGE_TO_VIDEO, None, "give it as media, for image_url"),
    "text with a picture": (TEXT_TO_VIDEO, PICTURE, "takes no media"),
    "a clip for a picture": (IMAGE_TO_VIDEO, CLIP, "not one of image/png, image/jpeg, image/webp"),
    "a picture for a clip": (VIDEO_TO_VIDEO, PICTURE, "not one of video/mp4"),
    "the head of a picture": (IMAGE_TO_VIDEO, PICTURE[:20], "damaged, not whole"),
    "half a picture": (IMAGE_TO_VIDEO, PICTURE[: len(PICTURE) // 2], "damaged, not whole"),
    "half a clip": (VIDEO_TO_VIDEO, CLIP[: len(CLIP) // 2], "damaged, not whole"),
    "a huge picture": (IMAGE_TO_VIDEO, HUGE, "more than 100 megapixels"),
    "no file": (IMAGE_TO_VIDEO, Path("none.png"), "No such file"),
    "a name": (IMAGE_TO_VIDEO, "rock.png", "a Path for a file"),
    "plain http": (IMAGE_TO_VIDEO, "http://example.com/rock.png", "must be https"),
    "a user in it": (IMAGE_TO_VIDEO, "https://a:b@example.com/rock.png", "must be https"),
    "damaged": (IMAGE_TO_VIDEO, "data:image/png;base64,???", "must be a data URI"),
    "a large data URI": (IMAGE_TO_VIDEO, data_uri(picture(width=500)), "at most 0.25 MiB: give its bytes"),
    "a large file": (IMAGE_TO_VIDEO, PICTURE + bytes(MAX_UPLOAD), "at most 64 MiB"),
}


@pytest.mark.parametrize(("endpoint", "media", "says"), USELESS.values(), ids=USELESS)
def test_what_cannot_be_sent_is_refused_before_anything_is(
    fal: FalStandIn, endpoint: Endpoint, media: Any, says: str
) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(says)):
        run(make(fal, endpoint=endpoint, media=media))
    assert fal.journal == []


def test_the_rest_is_known_to_be_right_before_an_upload(fal: FalStandIn) -> None:
    with pytest.raises(InvalidRequestError, match="webhook_url"):
        run(make(fal, **FROM_PICTURE, webhook_url="http://example.com"))
    assert fal.requests("storage") == []


PASSING: dict[str, tuple[str, Fault, int]] = {
    "reset at half": ("upload", Reset(half=True), 4),
    "lost answer": ("upload", Reset(accept=True), 2),
    "silence": ("upload", Hang(accept=True), 1),
    "401 of the CDN": ("upload", Reply(401), 1),
    "403 of the CDN": ("upload", Reply(403, body=b"<Error><Code>SignatureDoesNotMatch</Code></Error>"), 1),
    "wrong length": ("upload", Reply(400, body=b"<Error><Code>IncompleteBody</Code></Error>"), 1),
    "429 of the CDN": ("upload", Reply(429), 4),
    "500 of the CDN": ("upload", Reply(500), 4),
    "408 of the storage": ("storage", Reply(408), 4),
    "503 of a gateway": ("storage", ingress(503), 4),
    "reset of the storage": ("storage", Reset(), 4),
}


@pytest.mark.parametrize(("stage", "fault", "times"), PASSING.values(), ids=PASSING)
def test_an_upload_is_repeated_until_it_is_there(fal: FalStandIn, stage: str, fault: Fault, times: int) -> None:
    fal.fault(stage, fault, times)
    run(make(fal, **FROM_PICTURE, policy=policy_for(fault)))
    assert len(fal.requests("storage")) == times + 1 or isinstance(fault, Hang)
    assert set(fal.uploads.values()) == {("image/png", PICTURE)}
    assert fal.accepted == 1


def at(**fields: Any) -> Fault:
    return with_fields(**fields)


LASTING: dict[str, tuple[str, Fault, int, str]] = {
    "reset at half": ("upload", Reset(half=True), 5, "failed"),
    "401 of the storage": ("storage", Reply(401, body={"detail": "No user found"}), 2, "Check FAL_KEY"),
    "403 of the storage": ("storage", Reply(403, body={"detail": "User is locked."}), 2, "Look at the balance"),
    "403 of the CDN": ("upload", Reply(403), 2, "HTTP 403"),
    "wrong length": ("upload", Reply(400), 2, "HTTP 400"),
    "500 of the storage": ("storage", Reply(500), 5, "HTTP 500"),
    "500 of the CDN": ("upload", Reply(500), 5, "HTTP 500"),
    "redirect of the storage": ("storage", Redirect(307, "https://evil.example/"), 1, "redirect"),
    "redirect of the CDN": ("upload", Redirect(307, "https://evil.example/"), 1, "redirect"),
    "a page": ("storage", ingress(200), 1, "names no place of its own"),
    "null": ("storage", Reply(200, body=b"null"), 1, "names no place of its own"),
    "foreign upload_url": ("storage", at(upload_url="https://evil.example/x"), 1, "names no place of its own"),
    "foreign file_url": ("storage", at(file_url="https://fal.media.evil.example/x"), 1, "names no place of its own"),
    "plain http": ("storage", at(upload_url="http://v3.fal.media/x"), 1, "names no place of its own"),
    "a user in upload_url": ("storage", at(upload_url="https://a@v3.fal.media/x"), 1, "names no place of its own"),
    "another port": ("storage", at(upload_url="https://v3.fal.media:8443/x"), 1, "names no place of its own"),
    "number for upload_url": ("storage", at(upload_url=5), 1, "names no place of its own"),
    "no file_url": ("storage", without_fields("file_url"), 1, "names no place of its own"),
}


@pytest.mark.parametrize(("stage", "fault", "asked", "says"), LASTING.values(), ids=LASTING)
def test_an_upload_that_fails_costs_nothing(fal: FalStandIn, stage: str, fault: Fault, asked: int, says: str) -> None:
    fal.fault(stage, fault, FOREVER)
    error = error_of(fal, **FROM_PICTURE)
    assert (type(error), error.stage) == (FalError, "upload")
    assert says in str(error)
    assert "no charge" in str(error)
    assert len(fal.requests("storage")) == asked
    assert (fal.accepted, records_of(fal), fal.requests("evil")) == (0, [], [])
    fal.clear_faults()
    goes_on(fal, **FROM_PICTURE)


def test_an_upload_that_has_expired_is_told_without_its_address(fal: FalStandIn) -> None:
    fal.fault("upload", Meanwhile(lambda: fal.clock.advance(2 * DAY), Fault(accept=True), accept=True))
    error = error_of(fal, **FROM_PICTURE)
    assert (error.stage, error.status, error.error_type) == ("result", 422, "file_download_error")
    assert "(image_url): " in str(error)
    assert "Failed to download the file https://v3.fal.media/[redacted]" in str(error)
    assert (fal.accepted, records_of(fal)) == (1, [])


def test_stop_ends_an_upload_at_once_and_there_is_no_job(fal: FalStandIn) -> None:
    fal.fault("upload", Hang())
    run(end_at(fal, lambda observer: fal.requests("upload"), "stop", **FROM_PICTURE))
    assert (fal.accepted, records_of(fal)) == (0, [])
    fal.release()


@only_posix
@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("kill_at", ["Uploading", "Sending the job", "Sent to fal", "Downloading"])
def test_killed_around_an_upload_the_next_run_has_the_one_job(fal: FalStandIn, tmp_path: Path, kill_at: str) -> None:
    file = tmp_path / "rock.png"
    file.write_bytes(PICTURE)
    order = {"endpoint": "image-to-video", "media": str(file)}
    assert outcome_of(start(fal, kill_at=kill_at, **order)) is None
    before, accepted = len(fal.requests("storage")), fal.accepted
    reply = outcome_of(start(fal, **order))
    assert reply
    assert fal.accepted <= 1
    if kill_at == "Sending the job":  # its record is there and no job: only the user may have it sent
        assert reply["error"] == "OutcomeUnknownError"
    else:
        assert reply.keys() == {"video", "seed"}
        assert len(fal.requests("storage")) == before + (not accepted)


def test_a_lost_job_is_found_by_the_address_that_was_sent(fal: FalStandIn) -> None:
    run(make(fal, REQUEST, endpoint=IMAGE_TO_VIDEO, media=picture(1)))
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", ingress(), FOREVER)
    error_of(fal, **FROM_PICTURE)
    assert record_of(fal).request_id is None
    fal.clear_faults()
    run(make(fal, **FROM_PICTURE))
    assert (fal.accepted, len(fal.requests("storage")), records_of(fal)) == (2, 2, [])


def look_of(exchange: Exchange) -> list[Any]:
    headers = ("content-type", "x-fal-object-lifecycle", "x-fal-object-lifecycle-preference")
    body = exchange.json() if exchange.stage == "storage" else None
    path = re.sub("/b/.*_", "/b/ID_", exchange.path)
    return [exchange.method, exchange.host, path, body, *(exchange.headers.get(name) for name in headers)]


def test_ours_and_the_official_clients_upload_look_the_same(fal: FalStandIn) -> None:
    """But for the name of the storage and that the official one shows the key to the CDN."""
    fal.strict_uploads = False
    options = {"repository": "fal", "lifecycle": {"expires_in": "1d"}, "file_name": "input.png"}
    (theirs,) = run_official(fal.environ, ["upload", [{"bytes": 5}, "image/png"], options])
    assert theirs["value"].removeprefix("https://v3.fal.media") in fal.uploads
    assert [violation.startswith("the key in PUT v3.fal.media") for violation in fal.violations] == [True]
    fal._violations.clear()
    run(make(fal, **FROM_PICTURE))
    for stage in ("storage", "upload"):
        theirs, ours = map(look_of, fal.requests(stage))
        assert ours == theirs


def test_the_frames_of_the_stand_in_begin_with_the_clip() -> None:
    frames = frames_of(render("X264 (.mp4)", "maximum", 9, (0.0, 1.0, 0.0), CLIP))
    assert frames.shape == (5, HEIGHT, WIDTH, 3)
    assert torch.equal(frames_of(b""), torch.empty(0, HEIGHT, WIDTH, 3))


def test_a_part_that_goes_on_from_another_place_of_the_one_before_is_another_job(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With num_frames 18 and 19 the first job is the same, of 21 frames, of which 18 and 19 are used."""
    monkeypatch.setattr(extension, "SIZE", (WIDTH, HEIGHT))
    folder, journal = folders_of(fal)
    options = {"folder": folder, "journal": Journal(journal), "encode_clip": mp4_bytes, "policy": FAST}
    source = Start(torch.full((7, HEIGHT, WIDTH, 3), 0.25))
    for num_frames, jobs in ((18, 2), (19, 3), (18, 3)):
        request, new_frames = replace(REQUEST, num_frames=num_frames), 2 * (num_frames - 5)
        made = run(extension.extend(request, source, new_frames, **options))
        assert (made.new_frames, made.notes, fal.accepted) == (new_frames, (), jobs)


def test_a_video_that_does_not_fit_into_the_memory_is_refused_before_anything_is_asked_of_fal(fal: FalStandIn) -> None:
    folder, journal = folders_of(fal)
    options = {"folder": folder, "journal": Journal(journal), "encode_clip": mp4_bytes, "policy": FAST}
    source = Start(torch.zeros(1, 1, 1, 3).expand(1000, 32, 32, 3))
    needed = (1000 + 88 + 5) * 1280 * 704 * 3 * 4
    says = (
        r"1280x704 with 1000 frames of the source and 88 new ones takes 11\.0 GiB of RAM, but only 11\.0 GiB are free"
    )
    with pytest.raises(NotEnoughMemoryError, match=says):
        run(extension.extend(replace(REQUEST, num_frames=93), source, 88, ram=needed - 1, **options))
    assert fal.journal == []


def test_parts_have_the_names_that_they_always_had(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else finished ones would be charged again: the first is named by its pixels, the next by the job before it."""
    monkeypatch.setattr(extension, "SIZE", (WIDTH, HEIGHT))
    folder, records = folders_of(fal)
    journal = Journal(records)

    def submission(seed: int, identity: str) -> Submission:
        part = replace(REQUEST, num_frames=17, seed=seed, video_quality="maximum")
        return make_submission(part, VIDEO_TO_VIDEO, journal, folder, Media(identity, "video/mp4", b"a clip"))

    source = Start(torch.full((7, HEIGHT, WIDTH, 3), 0.25))
    pixels = f"{(5, HEIGHT, WIDTH, 3)}".encode() + bytes([64]) * (5 * HEIGHT * WIDTH * 3)
    first = submission(7, f"sha256:{hashlib.sha256(pixels).hexdigest()}")
    second = submission(8, f"continues:{first.fingerprint}:17")
    options = {"folder": folder, "journal": journal, "encode_clip": mp4_bytes, "policy": FAST}
    run(extension.extend(replace(REQUEST, num_frames=17), source, 24, **options))
    assert sorted(folder.glob("*.mp4")) == sorted([first.target, second.target])
