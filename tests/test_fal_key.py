"""The key: where it comes from, that it goes nowhere else, and the relay for those who have none."""

import logging
import os
import pickle
import re
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from cosmos_predict25.devtools.fal_faults import FAST, with_video
from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    Body,
    FalStandIn,
    Fault,
    GzipBomb,
    Json,
    Redirect,
    Relabel,
    Reply,
    Reset,
    content_policy,
    ingress,
    with_fields,
)
from cosmos_predict25.pipeline.errors import FalError, InvalidRequestError, MissingKeyError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal import FalClient, NetworkPolicy
from cosmos_predict25.pipeline.fal.key import FalKey, find_key, parse_key, refuse_key_in
from cosmos_predict25.pipeline.fal.queue.policy import RELAY_VARIABLE
from cosmos_predict25.pipeline.fal.redaction import redact, without_key
from cosmos_predict25.tests.fal import (
    BRIEF,
    ENDPOINT,
    REQUEST,
    Recorder,
    journal_of,
    make,
    policy_with,
    records_of,
    run,
    texts_of_log,
    videos_of,
)

KEY = FalKey("0f0f0f0f-1111-2222-3333-444444444444", "5ec2e75ec2e75ec2e75ec2e75ec2e75e")
TEXT = f"{KEY.key_id}:{KEY.secret}"
VARIABLES = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a key file, and an environment without a key."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # the home on Windows
    return tmp_path


def write_key_file(home: Path, text: str = TEXT, mode: int = 0o600) -> Path:
    path = home / ".fal" / "key"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


# Where it comes from


def test_the_sources_in_their_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_key_file(home, "file-id:file-secret")
    assert find_key() == FalKey("file-id", "file-secret")
    monkeypatch.setenv("FAL_KEY_ID", "pair-id")
    assert find_key() == FalKey("file-id", "file-secret")
    monkeypatch.setenv("FAL_KEY_SECRET", "pair-secret")
    assert find_key() == FalKey("pair-id", "pair-secret")
    monkeypatch.setenv("FAL_KEY", "")
    assert find_key() == FalKey("pair-id", "pair-secret")
    monkeypatch.setenv("FAL_KEY", "whole-id:whole-secret")
    assert find_key() == FalKey("whole-id", "whole-secret")
    assert find_key("given-id:given-secret") == FalKey("given-id", "given-secret")


@pytest.mark.parametrize("name", ["FAL_KEY_ID", "FAL_KEY_SECRET"])
def test_half_a_pair_is_no_key(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, KEY.secret)
    with pytest.raises(MissingKeyError) as caught:
        find_key()
    assert KEY.secret not in str(caught.value)


def test_without_a_key_one_message_says_what_to_set_and_where_to_get_one(home: Path) -> None:
    with pytest.raises(MissingKeyError, match=r"FAL_KEY.*~/\.fal/key") as caught:
        find_key()
    assert "https://fal.ai/dashboard/keys" in str(caught.value)


@pytest.mark.parametrize("text", [f"  {TEXT}\n", f"{TEXT}\r\n", f"\t{TEXT}\n\n"], ids=repr)
def test_space_around_a_key_is_left_out(home: Path, text: str) -> None:
    assert parse_key(text, "It") == KEY
    write_key_file(home, text)
    assert find_key() == KEY


def test_the_pair_may_have_space_around_each(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY_ID", f" {KEY.key_id}\n")
    monkeypatch.setenv("FAL_KEY_SECRET", f"\t{KEY.secret} ")
    assert find_key() == KEY


COPIED = {
    "quotes": f'"{TEXT}"',
    "single quotes": f"'{TEXT}'",
    "quotes of a text processor": f"\u201c{TEXT}\u201d",
    "its name": f"FAL_KEY={TEXT}",
    "a line of a shell": f'export FAL_KEY="{TEXT}";\n',
    "a line of PowerShell": f"$env:FAL_KEY = '{TEXT}'",
    "a line of Windows": f"setx FAL_KEY {TEXT}",
    "angle brackets": f"<{TEXT}>",
    "a semicolon": f"{TEXT};",
    "a byte order mark": f"\ufeff{TEXT}",
}


def test_a_key_that_a_server_repeats_in_its_headers_is_in_no_log_of_every_step(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "httpcore")
    fal.fault("status", Relabel(headers={"x-echo": fal.key, "location": f"https://{fal.key}/"}))
    run(make(fal))
    texts = texts_of_log(caplog)
    assert "x-echo" in texts
    assert [half for half in fal.key.split(":") if half in texts] == []


def test_the_looks_at_a_job_are_in_the_log_for_debugging_alone(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "httpx")
    run(make(fal))
    lines = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert [line.split()[2] for line in lines] == ["POST"]
    assert logging.getLogger("httpx").filters == []


@pytest.mark.parametrize("text", COPIED.values(), ids=COPIED)
def test_what_is_copied_around_a_key_is_left_out(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FAL_KEY", text)
    assert find_key() == KEY
    monkeypatch.delenv("FAL_KEY")
    for encoding in ("utf-8", "utf-16"):
        write_key_file(home).write_bytes(text.encode(encoding))
        assert find_key() == KEY


def test_quotes_around_each_of_a_pair_are_left_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY_ID", f'"{KEY.key_id}"')
    monkeypatch.setenv("FAL_KEY_SECRET", f"'{KEY.secret}';")
    assert find_key() == KEY


def test_a_secret_may_hold_a_colon() -> None:
    assert parse_key("a:b:c", "It") == FalKey("a", "b:c")


MALFORMED = {
    "empty": "",
    "blank": " \n",
    "no-colon": KEY.secret,
    "no-id": f":{KEY.secret}",
    "no-secret": f"{KEY.key_id}:",
    "colon": ":",
    "newline": f"{KEY.key_id}:{KEY.secret}\nX-Evil: {KEY.secret}",
    "carriage-return": f"{KEY.key_id}:\r{KEY.secret}",
    "nul": f"{TEXT}\0{KEY.secret}",
    "tab": f"{KEY.key_id}:{KEY.secret}\tx",
    "space": f"{KEY.key_id}: {KEY.secret}",
    "space-before-the-colon": f"{KEY.key_id} :{KEY.secret}",
    "non-ascii": f"{TEXT}é",
    "non-ascii-digit": f"{TEXT}\u0663",
    "no-break-space": f"\u00a0{TEXT}",
    "surrogate": f"{TEXT}\udcff",
    "delete": f"{TEXT}\x7f",
    "escape": f"{TEXT}\x1b[0m",
    "prefix": f"Key {TEXT}",
}


@pytest.mark.parametrize("source", ["argument", "FAL_KEY", "file"])
@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_key_is_refused_without_showing_a_byte_of_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, text: str, source: str
) -> None:
    if source == "FAL_KEY":
        monkeypatch.setenv("FAL_KEY", text.replace("\0", "\1"))  # No variable holds a zero.
    if source == "file":
        write_key_file(home, text.encode("utf-8", "surrogateescape").decode("latin-1"))
    with pytest.raises(MissingKeyError) as caught:
        find_key(text if source == "argument" else None)
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert [half for half in (KEY.key_id, KEY.secret) if half in shown] == []
    assert {"argument": "The key that was given", "FAL_KEY": "FAL_KEY", "file": "key"}[source] in shown


@pytest.mark.skipif(os.name != "posix", reason="Permissions are those of POSIX.")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o601, 0o777])
def test_a_key_file_that_others_may_use_is_refused(home: Path, mode: int) -> None:
    path = write_key_file(home, mode=mode)
    with pytest.raises(MissingKeyError, match="chmod 600") as caught:
        find_key()
    assert str(path) in str(caught.value)
    assert KEY.secret not in str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_of_the_owner_alone_is_read(home: Path, mode: int) -> None:
    write_key_file(home, mode=mode)
    assert find_key() == KEY


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"x" * 2**20], ids=["empty", "binary", "1-mb"])
def test_a_file_that_holds_no_key_is_refused(home: Path, content: bytes) -> None:
    write_key_file(home).write_bytes(content)
    with pytest.raises(MissingKeyError) as caught:
        find_key()
    assert len(str(caught.value)) < 500


def test_a_folder_in_the_place_of_the_key_file_is_no_key(home: Path) -> None:
    (home / ".fal" / "key").mkdir(parents=True)
    with pytest.raises(MissingKeyError):
        find_key()


# Before any traffic


@pytest.mark.parametrize("text", [None, "", "no-key", f"{TEXT}\nx: y"], ids=repr)
def test_without_a_good_key_nothing_is_sent_or_written(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.delenv("FAL_KEY")
    with pytest.raises(MissingKeyError):
        run(make(fal, key=text))
    assert (fal.connects, fal.journal, records_of(fal)) == ([], [], [])
    assert not videos_of(fal).exists()


@pytest.mark.parametrize("text", [None, "no-key"], ids=repr)
def test_without_a_good_key_the_nodes_refuse_before_the_graph_runs(
    core: None, home: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    from comfy_api.latest import io

    from cosmos_predict25.nodes.extend_fal import CosmosPredict25ExtendFal
    from cosmos_predict25.nodes.generate_fal import CosmosPredict25GenerateFal

    hidden = {"hidden_inputs": {io.Hidden.unique_id: "1"}}
    generate, extend = (
        node.PREPARE_CLASS_CLONE(hidden) for node in (CosmosPredict25GenerateFal, CosmosPredict25ExtendFal)
    )
    endpoint = {"endpoint": ("text-to-video", "endpoint")}
    monkeypatch.setenv("FAL_KEY", TEXT)
    assert generate.check_lazy_status(endpoint) == ["prompt", "settings"]
    assert extend.check_lazy_status() == ["prompt", "settings", "video"]
    monkeypatch.setenv("FAL_KEY", text or "")
    with pytest.raises(MissingKeyError):
        generate.check_lazy_status(endpoint)
    with pytest.raises(MissingKeyError):
        extend.check_lazy_status()


@pytest.mark.parametrize("part", ["key", "key_id", "secret"])
@pytest.mark.parametrize("where", ["prompt", "negative_prompt", "webhook_url"])
def test_a_text_that_holds_the_key_is_refused_before_any_traffic(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture, where: str, part: str
) -> None:
    texts = dict(zip(("key_id", "secret"), fal.key.split(":"), strict=True), key=fal.key)
    text = f"https://example.com/{texts[part]}"
    request = REQUEST if where == "webhook_url" else replace(REQUEST, **{where: text})
    options = {"webhook_url": text} if where == "webhook_url" else {}
    with pytest.raises(InvalidRequestError, match=f"{where} contains your fal key") as caught:
        run(make(fal, request, **options))
    assert texts[part] not in str(caught.value)
    assert fal.requests("submit") == []
    assert {connect.split(":")[0] for connect in fal.connects} <= {"api.fal.ai"}
    assert records_of(fal) == []


def test_a_text_that_holds_the_key_is_refused_in_a_job_of_before_too(fal: FalStandIn) -> None:
    request = replace(REQUEST, prompt=f"A cube and {fal.key}")
    with pytest.raises(InvalidRequestError):
        run(make(fal, request))
    with pytest.raises(InvalidRequestError):
        run(make(fal, request))
    assert fal.requests("submit") == []


# Where it goes


def test_the_key_is_shown_to_the_api_alone(fal: FalStandIn) -> None:
    run(make(fal))
    by_origin: dict[str, set[str | None]] = {}
    for request in fal.journal:
        by_origin.setdefault(request.origin, set()).add(request.headers.get("authorization"))
    assert by_origin == {"api": {f"Key {fal.key}"}, "media": {None}}


def test_the_key_of_the_argument_is_the_one_that_is_used(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", TEXT)
    run(make(fal, key=fal.key))
    assert KEY.secret not in repr(fal.journal)


def test_the_key_is_read_anew_in_each_run(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", "old-id:old-secret")
    with pytest.raises(FalError):
        run(make(fal))
    monkeypatch.setenv("FAL_KEY", fal.key)
    run(make(fal))
    assert fal.accepted == 1


@pytest.mark.sample(8)
@pytest.mark.parametrize("stage", ["submit", "status", "result", "listing"])
@pytest.mark.parametrize("form", ["header", "key", "list", "html"])
def test_an_answer_that_says_the_key_again_is_not_shown(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture, stage: str, form: str
) -> None:
    key_id, secret = fal.key.split(":")
    caplog.set_level(logging.INFO)
    body: Any = {
        "header": {"detail": f"Authorization: Key {fal.key}"},
        "key": {"detail": secret, "error": {"type": key_id, "message": secret}},
        "list": {"detail": [{"loc": ["body", key_id], "msg": f"{key_id} {secret}", "type": secret}]},
        "html": f"<html>{fal.key}</html>".encode(),
    }[form]
    if stage == "listing":
        fal.fault("submit", Reset(accept=True))
    fal.fault(stage, Reply(422, {"content-type": "text/html" if form == "html" else "application/json"}, body), 99)
    with pytest.raises(FalError) as caught:
        run(make(fal, policy=BRIEF))
    shown = f"{caught.value} {caught.value.__dict__} {caplog.text}"
    assert [half for half in (key_id, secret) if half in shown] == []


def test_the_key_is_in_no_file_and_no_log_of_a_life_with_troubles(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """What the fixture looks for after each test, here in all of the fixture's folders and after many troubles."""
    fal.fault("submit", Reply(429))
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", Reply(500, body={"detail": fal.key}))
    fal.fault("status", Reset())
    fal.fault("status", Reply(500, body={"detail": fal.key}))
    fal.fault("status", Json(lambda reply: {**reply, "logs": [{"message": "A line."}], "status": "IN_PROGRESS"}))
    fal.fault("result", Reply(502))
    fal.fault("media", Reset())
    video = run(make(fal))
    assert video.path.stat().st_size == video.file_size
    assert fal.accepted == 1
    halves = fal.key.split(":")
    for path in fal.folder.parent.rglob("*"):
        assert not path.is_file() or not [half for half in halves if half.encode() in path.read_bytes()]
    shown = "".join(f"{record.getMessage()}{record.exc_text}{record.stack_info}" for record in caplog.records)
    assert [half for half in halves if half in shown] == []


def test_a_key_has_no_readable_form() -> None:
    for shown in (repr(KEY), str(KEY), f"{KEY}", repr([KEY]), repr({"key": KEY})):
        assert KEY.secret not in shown
        assert KEY.key_id not in shown


def test_a_client_has_no_readable_key(fal: FalStandIn) -> None:
    async def work() -> str:
        async with FalClient(policy=FAST) as client:
            http = client._transport._http
            return f"{client!r} {client.policy!r} {client._transport!r} {http!r} {http.headers!r}"

    shown = run(work())
    assert [half for half in fal.key.split(":") if half in shown] == []


def chain_of(error: BaseException | None) -> list[BaseException]:
    """The error, its causes and contexts, those too that are not shown."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        if (one := waiting.pop()) and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


CHAINS: dict[str, tuple[str, Fault]] = {
    "lost answer": ("submit", Reset(accept=True)),
    "no connection": ("connect", Reply(502)),
    "refusal": ("submit", Reply(401, body={"detail": "No"})),
    "status": ("status", Reset()),
    "garbled status": ("status", ingress(200)),
    "result": ("result", GzipBomb(2**20)),
    "media": ("media", Reset()),
    "redirect of media": ("media", Redirect(302, "https://[")),
}


@pytest.mark.parametrize(("stage", "fault"), CHAINS.values(), ids=CHAINS)
def test_no_frame_of_httpx_is_left_in_an_error_or_what_it_hides(fal: FalStandIn, stage: str, fault: Fault) -> None:
    """Their variables hold the headers."""
    fal.fault(stage, fault, times=FOREVER)
    fal.fault("listing", Reset(), times=FOREVER)
    with pytest.raises(FalError) as caught:
        run(make(fal, policy=BRIEF))
    for error in chain_of(caught.value):
        assert not type(error).__module__.startswith(("httpx", "httpcore", "anyio", "ssl")), repr(error)
        frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
        assert [file for file in frames if re.search(r"httpx|httpcore|h11", file)] == []


def test_an_error_survives_pickling_without_the_key(fal: FalStandIn) -> None:
    fal.fail_next(content_policy)
    with pytest.raises(FalError) as caught:
        run(make(fal))
    assert fal.key.split(":")[1].encode() not in pickle.dumps(caught.value.__dict__)


def test_what_httpx_logs_shows_nothing_of_the_key(fal: FalStandIn, caplog: pytest.LogCaptureFixture) -> None:
    """Nor where fal says it again in a URL that is asked for later."""
    caplog.set_level(logging.DEBUG)

    def echo(reply: dict[str, Any]) -> dict[str, Any]:
        return {**reply, "status_url": f"{reply['status_url']}?key={fal.key}"}

    fal.fault("submit", Json(echo))
    run(make(fal))
    lines = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert [line for line in lines if "/status" in line]
    assert [line for line in lines for half in fal.key.split(":") if half in line] == []
    assert not logging.getLogger("httpx").filters


def test_what_httpcore_logs_of_every_step_shows_nothing_of_the_key(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """The fixture looks into all records."""
    caplog.set_level(logging.DEBUG, "httpcore")
    run(make(fal))
    assert [record for record in caplog.records if record.name == "httpcore.http11"]


ECHOES: dict[str, tuple[str, Callable[[str], Fault]]] = {
    "log line": ("status", lambda key: with_fields(logs=[{"message": f"curl -H 'Authorization: Key {key}'"}])),
    "escaped log line": (
        "status",
        lambda key: Body(lambda body: body.replace(b'"logs": []', f'"logs": ["\\u004b {key}"]'.encode())),
    ),
    "status error": ("status", lambda key: with_fields(error=key, error_type=key)),
    "content type": ("status", lambda key: Reply(200, {"content-type": key}, b"<html>")),
    "content encoding": ("status", lambda key: Reply(200, {"content-encoding": key}, b"x")),
    "error type": (
        "result",
        lambda key: Reply(422, {"x-fal-error-type": key, "x-fal-request-id": "1"}, {"detail": key}),
    ),
    "price": ("pricing", lambda key: Reply(200, body={"prices": [price_of(key)]})),
    "address of the video": ("result", lambda key: with_video(url=f"https://v3b.fal.media/files/{key}.mp4")),
    "video": ("result", lambda key: with_video(content_type=key, file_name=key, fps=key)),
}


def price_of(key: str) -> dict[str, Any]:
    return {"endpoint_id": ENDPOINT, "unit_price": 0.2, "unit": f"video {key}", "currency": key.split(":")[0]}


@pytest.mark.parametrize(("stage", "echo"), ECHOES.values(), ids=ECHOES)
def test_a_server_that_says_the_key_again_shows_it_to_nobody(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture, stage: str, echo: Callable[[str], Fault]
) -> None:
    """Nor the beginning of its parts, where a text is cut."""
    caplog.set_level(logging.INFO)
    fal.fault(stage, echo(fal.key), times=FOREVER)
    observer, shown = Recorder(), ""
    try:
        run(make(fal, observer=observer, policy=BRIEF))
    except FalError as error:
        shown = f"{error} {error.__dict__}"
    shown += "".join([*observer.messages, caplog.text, *(str(record) for record in journal_of(fal).records())])
    pieces = [half[:8] for half in fal.key.split(":")]
    assert [piece for piece in pieces if piece in shown] == []


# The pure functions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Key other-id:other-secret-123", "Authorization: Key [redacted]"),
        ("authorization: bearer abcdefghijklmno", "authorization: bearer [redacted]"),
        ("Basic dXNlcjpwYXNzd29yZA==", "Basic [redacted]"),
        ("data:video/mp4;base64,AAAA/+9= end", "data:video/mp4,[redacted] end"),
        ("https://v3.fal.media/a.mp4?signature=1&b=2 end", "https://v3.fal.media/[redacted] end"),
        ("https://v3.fal.media/a.mp4", "https://v3.fal.media/[redacted]"),
        ("The key question is basic: why?", "The key question is basic: why?"),
        ("", ""),
    ],
)
def test_redact_hides_credentials(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize("text", [KEY.key_id, KEY.secret, TEXT, f"a {KEY.secret} b"])
def test_nothing_of_the_key_is_left_in_a_value_of_json(text: str) -> None:
    value = {"a": [text, {text: {"b": [[text]]}}], "c": 5, "d": None}
    shown = repr(without_key(value, KEY))
    assert [half for half in (KEY.key_id, KEY.secret) if half in shown] == []
    assert "'c': 5" in shown
    assert without_key(value, None) is value


@pytest.mark.parametrize("text", [KEY.key_id, KEY.secret, TEXT, f"a{KEY.secret}b"])
def test_refuse_key_in(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="the_name contains your fal key"):
        refuse_key_in({"other": "x", "the_name": text}, KEY)
    refuse_key_in({"the_name": text}, None)
    refuse_key_in({"the_name": "A cube."}, KEY)


# Places


@pytest.mark.parametrize("name", ["queue_url", "platform_url", "relay_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://queue.fal.run",
        "http://127.0.0.1:8000",
        "http://localhost",
        "ftp://queue.fal.run",
        "queue.fal.run",
        "https://",
        "https://user@queue.fal.run",
        "https://user:word@queue.fal.run",
        "//queue.fal.run",
    ],
)
def test_a_policy_takes_https_alone(name: str, url: str) -> None:
    with pytest.raises(InvalidRequestError, match="https"):
        NetworkPolicy(**{name: url})
    with pytest.raises(InvalidRequestError):
        replace(FAST, **{name: url})


@pytest.mark.parametrize("url", ["https://[", "https://host:port", "https://\n"])
def test_a_url_that_cannot_be_read_is_refused_with_our_own_error(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        NetworkPolicy(queue_url=url)


def test_the_relay_is_named_by_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RELAY_VARIABLE, "https://relay.example/fal")
    assert NetworkPolicy().relay_url is None
    assert NetworkPolicy.from_environment().relay_url == "https://relay.example/fal"
    monkeypatch.setenv(RELAY_VARIABLE, "http://relay.example")
    with pytest.raises(InvalidRequestError, match="https"):
        NetworkPolicy.from_environment()
    monkeypatch.setenv(RELAY_VARIABLE, "")
    assert NetworkPolicy.from_environment().relay_url is None


class Relay:
    """As fal's proxies are: adds the key and asks the place that `x-fal-target-url` names."""

    def __init__(self, fal: FalStandIn, authority: trustme.CA) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def handle_all(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                relay.requests.append((self.command, self.path, headers))
                body = self.rfile.read(int(headers.get("content-length", 0)))
                kept = {name: headers[name] for name in ("content-type", "accept") if name in headers}
                reply = httpx.request(
                    self.command,
                    headers["x-fal-target-url"],
                    headers={**kept, "authorization": f"Key {fal.key}"},
                    content=body,
                )
                self.send_response(reply.status_code)
                self.send_header("content-type", reply.headers["content-type"])
                self.send_header("content-length", str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)

            do_GET = do_POST = do_PUT = handle_all

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}/fal/proxy"


@pytest.fixture
def relay(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    authority = trustme.CA()
    both = fal.folder / "both.pem"
    both.write_bytes(authority.cert_pem.bytes() + Path(fal.environ["SSL_CERT_FILE"]).read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(both))
    relay = Relay(fal, authority)
    thread = threading.Thread(target=relay.server.serve_forever, daemon=True)
    thread.start()
    yield relay
    relay.server.shutdown()
    relay.server.server_close()


@pytest.mark.parametrize("has_key", [False, True], ids=["without-a-key", "with-a-key"])
def test_with_a_relay_the_key_is_not_used_and_only_the_relay_is_asked(
    fal: FalStandIn, relay: Relay, monkeypatch: pytest.MonkeyPatch, has_key: bool
) -> None:
    monkeypatch.setenv(RELAY_VARIABLE, relay.url)
    monkeypatch.setenv("FAL_KEY", TEXT)
    if not has_key:
        monkeypatch.delenv("FAL_KEY")
    policy = policy_with(relay_url=NetworkPolicy.from_environment().relay_url)
    fal.fault("submit", Reset(accept=True))
    assert run(make(fal, policy=policy)).num_frames == 9
    assert (fal.accepted, len(fal.requests("submit")), len(fal.requests("listing"))) == (1, 1, 1)
    assert {path for _, path, _ in relay.requests} == {"/fal/proxy"}
    assert {"authorization" in headers for _, _, headers in relay.requests} == {False}
    targets = [urlsplit(headers["x-fal-target-url"]) for _, _, headers in relay.requests]
    assert {target.hostname for target in targets} == {"queue.fal.run", "api.fal.ai"}
    assert KEY.secret not in repr(fal.journal)
    assert KEY.secret not in repr(relay.requests)


def test_the_video_is_not_asked_of_the_relay(fal: FalStandIn, relay: Relay) -> None:
    run(make(fal, policy=policy_with(relay_url=relay.url)))
    (media,) = fal.requests("media")
    assert "x-fal-target-url" not in media.headers
    assert "authorization" not in media.headers
    assert {headers["x-fal-target-url"].split("/")[2] for _, _, headers in relay.requests} == {
        "queue.fal.run",
        "api.fal.ai",
    }


def test_a_relay_that_redirects_is_not_followed(fal: FalStandIn, relay: Relay) -> None:
    relay.server.RequestHandlerClass.do_POST = lambda handler: (  # pyright: ignore
        handler.send_response(307),
        handler.send_header("location", "https://evil.example/"),
        handler.send_header("content-length", "0"),
        handler.end_headers(),
    )
    with pytest.raises(OutcomeUnknownError):
        run(make(fal, policy=policy_with(relay_url=relay.url)))
    assert (fal.accepted, fal.requests("evil")) == (0, [])


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_key_in_either_text_of_the_prompt_node_is_refused_before_it_is_in_the_history(
    core: None, monkeypatch: pytest.MonkeyPatch, name: str, half: int
) -> None:
    from cosmos_predict25.nodes.prompt import CosmosPredict25Prompt

    key = "0a1b2c3d-id:4e5f6a7b-secret"
    monkeypatch.setenv("FAL_KEY", key)
    texts = {"prompt": "A cube.", "negative_prompt": "Blur."}
    assert CosmosPredict25Prompt.validate_inputs(**texts) is True
    assert CosmosPredict25Prompt.validate_inputs() is True
    text = f"Not {key.split(':')[half]}, please."
    said = CosmosPredict25Prompt.validate_inputs(**{**texts, name: text})
    assert str(said).startswith(f"{name} contains your fal key")
    assert CosmosPredict25Prompt.validate_inputs(**{name: text}) == said
    assert key.split(":")[half] not in str(said)
