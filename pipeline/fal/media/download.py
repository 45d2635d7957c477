"""The video that fal names: downloaded without the key from fal's hosts only, checked, and put in place whole."""

import asyncio
import base64
import binascii
import re
import shutil
import ssl
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import httpx

from ...formats import FORMATS, VideoFormat
from ..queue.policy import NetworkPolicy
from ..queue.reply import raw_chunks
from ..queue.retry import backoff, retry_after
from ..queue.transport import UnloggedURL, certificates, connect
from ..queue.verdict import Answer, Attempts, Stage, Verdict

HEADER = 64
"""Bytes at the start of a file that tell its container."""
DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.IGNORECASE)
DATA_URI_TYPES = {format.content_type for format in FORMATS.values()} | {"application/octet-stream"}
MAX_REDIRECTS = 3
MIN_RATE = 1024
"""Bytes per second. A slower download is broken off, looked at every `RATE_WINDOW` seconds."""
RATE_WINDOW = 60.0
NOT_A_VIDEO = ("text/", "application/json", "application/xml")


class MediaRefusedError(Exception):
    """The file is not what it should be, and asking for it again does not change that."""


class MediaGoneError(Exception):
    """The URL no longer leads to a file. The result may name a new one."""


class DownloadError(Exception):
    """The file did not arrive whole, or could not be saved. A new try may bring it; `pause`: seconds before it."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


def video_url(result: dict[str, Any]) -> str | None:
    """Return the address of the video in fal's output object."""
    video = result.get("video")
    url = video.get("url") if isinstance(video, dict) else None
    return url if isinstance(url, str) and url else None


def is_data_uri(url: str) -> bool:
    return url[:5].lower() == "data:"


async def download(url: str, part: Path, format: VideoFormat, policy: NetworkPolicy) -> None:
    """Download the file at `url`, which may be a data URI, to `part`.

    Raises `MediaRefusedError`, also for another container than that of `format`; `MediaGoneError`; `DownloadError`
    when no try downloaded the whole file; and `OSError`.
    """
    if is_data_uri(url):
        write_data_uri(url, part, policy)
        return check_container(part, format)
    try:
        with anyio.fail_after(policy.media_deadline):
            async with connect("*/*", certificates()) as http:
                await download_whole(http, url, part, policy)
    except TimeoutError:
        raise DownloadError(f"it was not complete within {policy.media_deadline:g} s") from None
    return check_container(part, format)


async def download_whole(http: httpx.AsyncClient, url: str, part: Path, policy: NetworkPolicy) -> None:
    """Repeat a download that breaks off, until the table has a verdict. Raises as `download` does."""
    attempts = Attempts(Stage.MEDIA, policy)
    while True:
        try:
            return await download_once(http, url, part, policy)
        except DownloadError as broken:
            if attempts.add(Answer.OTHER) is Verdict.GIVE_UP:
                raise
            pause = broken.pause
        await asyncio.sleep(pause or backoff(attempts.times[Answer.OTHER], policy.backoff, policy.backoff_cap))


async def download_once(http: httpx.AsyncClient, url: str, part: Path, policy: NetworkPolicy) -> None:
    """Download the file once, following redirects by hand, so that each place is checked before it is asked.

    Raises as `download` does.
    """
    address = checked_url(url, policy.media_hosts)
    for _ in range(MAX_REDIRECTS + 1):
        request = http.build_request("GET", address, timeout=policy.timeout(policy.result_timeout))
        request.url = UnloggedURL(address)
        try:
            async with aclosing(await http.send(request, stream=True)) as response:
                if not 300 <= response.status_code < 400:
                    check_response(response)
                    return await write_body(response, part, policy)
                address = checked_url(response.headers.get("location", ""), policy.media_hosts, address)
            continue
        except (httpx.TransportError, ssl.SSLError) as error:
            problem: Exception = DownloadError(type(error).__name__)
        except httpx.InvalidURL:  # httpx reads where a redirect leads, even if it is not to be followed
            problem = MediaRefusedError("it redirects to something that is not a URL")
        raise problem  # with no error of httpx behind it, which would hold the address
    raise MediaRefusedError(f"it is behind more than {MAX_REDIRECTS} redirects")


def checked_url(url: str, hosts: tuple[str, ...], base: httpx.URL | None = None) -> httpx.URL:
    """Return a URL that is https, on port 443, without a user, and at one of `hosts` or a subdomain.

    The host is lower-case, without a final dot. A redirect may be relative to `base`. Raises `MediaRefusedError`.
    """
    try:
        parts = base.join(url) if base else httpx.URL(url)
        host = parts.raw_host.decode("ascii").lower().rstrip(".")
    except (httpx.InvalidURL, UnicodeError):
        raise MediaRefusedError("its address is not a URL") from None
    allowed = all(host.split(".")) and any(host == name or host.endswith(f".{name}") for name in hosts)
    if parts.scheme != "https" or parts.port not in (None, 443) or parts.userinfo or not allowed:
        raise MediaRefusedError(f"its address is not an https one at {' or '.join(hosts)}")
    return parts.copy_with(host=host, port=None, fragment=None)


def check_response(response: httpx.Response) -> None:
    """Raise `MediaRefusedError`, `MediaGoneError` or `DownloadError` unless a body that may be a video follows."""
    status = response.status_code
    if status in (403, 404, 410):
        raise MediaGoneError(f"HTTP {status}")
    if status != 200:
        raise DownloadError(f"HTTP {status}", retry_after(response.headers))
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaRefusedError("it is compressed, which was not asked for")
    if response.headers.get("content-type", "").lower().startswith(NOT_A_VIDEO):
        raise MediaRefusedError("its URL leads to text, not a video")


async def write_body(response: httpx.Response, part: Path, policy: NetworkPolicy) -> None:
    """Write the body, counting while it streams. The announced length is checked before.

    Raises `MediaRefusedError`, `DownloadError`, `OSError`.
    """
    length = response.headers.get("content-length", "")
    check_size(int(length) if re.fullmatch("[0-9]+", length) else 0, part.parent, policy)
    size, counted, since = 0, 0, time.monotonic()
    with part.open("wb") as file:
        async with raw_chunks(response) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if size > policy.max_media:
                    raise MediaRefusedError(f"it has more than {policy.max_media // 2**20} MiB")
                file.write(chunk)
                seconds = time.monotonic() - since
                if seconds >= RATE_WINDOW:
                    if size - counted < MIN_RATE * seconds:
                        raise DownloadError(f"less than {MIN_RATE:g} bytes per second")
                    counted, since = size, time.monotonic()


def check_size(announced: int, folder: Path, policy: NetworkPolicy) -> None:
    if announced > policy.max_media:
        raise MediaRefusedError(f"it has {announced / 2**20:.0f} MiB, but the limit is {policy.max_media // 2**20} MiB")
    free = shutil.disk_usage(folder).free
    if announced > free:
        raise OSError(28, f"No space left: {announced} bytes are needed, but only {free} are free")


def write_data_uri(uri: str, part: Path, policy: NetworkPolicy) -> None:
    """Write the content of a data URI. Raises `MediaRefusedError`."""
    head = DATA_URI.match(uri)
    if not head or head[1].lower() not in DATA_URI_TYPES:
        raise MediaRefusedError("its data URI is not a video in base64")
    check_size((len(uri) - head.end()) * 3 // 4, part.parent, policy)
    try:
        content = base64.b64decode(uri[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise MediaRefusedError("its data URI is damaged") from None
    part.write_bytes(content)


def check_container(part: Path, format: VideoFormat) -> None:
    """Raise `MediaRefusedError` unless the first bytes are those of the container."""
    with part.open("rb") as file:
        if not format.magic.match(file.read(HEADER)):
            raise MediaRefusedError(f"its first bytes are not those of a {format.suffix} file")
