"""Upload a picture or a clip to fal's storage, where it stays for a day.

An upload costs nothing, so it is retried as a whole. Anyone who knows its URL can read it.
"""

import base64
import binascii
import hashlib
import io
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import av
import httpx
from av.error import FFmpegError

from ...errors import FalError, InvalidRequestError
from ...formats import FORMATS
from ..queue.errors import error_from
from ..queue.policy import NetworkPolicy, is_plain_https
from ..queue.reply import Reply, TransportFailure, raw_chunks
from ..queue.transport import Transport, UnloggedURL, certificates, connect
from .download import DATA_URI, MediaRefusedError, checked_url, is_data_uri

MAX_UPLOAD = 64 * 2**20
MAX_START_PIXELS = 100 * 10**6
MAX_STREAMS = 1024
MAX_DATA_URI = 256 * 2**10
"""Bytes of content. fal advises data URIs for a few kilobytes only ("Working with files")."""
BLOCK = 64 * 2**10
LIFETIME = json.dumps({"expiration_duration_seconds": 24 * 3600})
"""Longer than a job's queue, run and all of fal's own tries. Without it the file would stay for ever."""
KINDS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    *((format.magic, format.content_type) for format in FORMATS.values()),
)
NOTHING_PAID = "so no job was sent and there is no charge"


@dataclass(frozen=True)
class Media:
    """A picture or a clip to start from.

    `identity`: part of the job's name, the same for the same picture or clip under any URL: `sha256:` and a hash, or
    `continues:`, the name of the job that made the clip, and the position in its video where the clip ends.
    `content`: the bytes to upload, unless there is an `address`, which is https or a data URI.
    """

    identity: str
    content_type: str
    content: bytes = field(default=b"", repr=False)
    address: str | None = field(default=None, repr=False)


def media_from(source: Path | bytes | str | Media, input_name: str) -> Media:
    """Return the media for `image_url` or `video_url`: a file, its bytes, or a URL that fal can read.

    A URL is sent unchanged and identifies itself; anything else is identified by its bytes. Raises
    `InvalidRequestError`.
    """
    if isinstance(source, Media):
        return source
    if isinstance(source, str) and not is_data_uri(source):
        if not is_plain_https(source):
            raise InvalidRequestError(f"{input_name} must be https://..., a data URI, bytes, or a Path for a file.")
        return Media(f"sha256:{hashlib.sha256(source.encode()).hexdigest()}", "", address=source)
    if isinstance(source, str):
        content, limit, address = content_of(source, input_name), MAX_DATA_URI, source
    else:
        content, limit, address = source if isinstance(source, bytes) else read(source), MAX_UPLOAD, None
    if len(content) > limit:
        sizes = f"{len(content) / 2**20:.2f} MiB, but must have at most {limit / 2**20:g} MiB"
        raise InvalidRequestError(f"{input_name} has {sizes}{': give its bytes instead' if address else ''}.")
    identity, content_type = f"sha256:{hashlib.sha256(content).hexdigest()}", content_type_of(content, input_name)
    check_first_frame(content, input_name)
    return Media(identity, content_type, content, address)


def content_of(uri: str, input_name: str) -> bytes:
    """Return the content of a data URI. Raises `InvalidRequestError`."""
    head = DATA_URI.match(uri)
    try:
        return base64.b64decode(uri[head.end() :] if head else "?", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError(f"{input_name} must be a data URI of the form data:image/png;base64,...") from None


def read(path: Path) -> bytes:
    """Return the bytes of a file, up to one more than may be uploaded. Raises `InvalidRequestError`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_UPLOAD + 1)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read ({error.strerror}).") from None


def content_type_of(content: bytes, input_name: str) -> str:
    """Return the content type that the first bytes tell, as a name may say anything. Raises `InvalidRequestError`."""
    wanted = input_name.removesuffix("url").replace("_", "/")
    found = next((kind for magic, kind in KINDS if magic.match(content) and kind.startswith(wanted)), None)
    if not found:
        known = ", ".join(dict.fromkeys(kind for _, kind in KINDS if kind.startswith(wanted)))
        raise InvalidRequestError(f"The file for {input_name} is not one of {known}: save it as one of them.")
    return found


def check_first_frame(content: bytes, input_name: str) -> None:
    """Raise `InvalidRequestError` for a file that cannot be decoded, or that is far larger than what fal makes."""
    limits = {"max_pixels": str(MAX_START_PIXELS)}
    with suppress(FFmpegError, LookupError, StopIteration, ValueError, OSError):
        options = [limits] * MAX_STREAMS
        with av.open(io.BytesIO(content), stream_options=options) as container:  # pyright: ignore
            container.streams.video[0].codec_context.options = limits
            next(container.decode(video=0))
            return
    raise InvalidRequestError(
        f"The file for {input_name} is damaged, not whole, or has more than {MAX_START_PIXELS // 10**6} megapixels: "
        "save it again, at best with 1280 x 704 pixels, which is what fal makes."
    )


async def initiate_upload(transport: Transport, media: Media) -> Reply | TransportFailure:
    """Ask fal's storage where to put a file (fal-js, `storage.ts`: initiate). It is told no name but `input`."""
    policy = transport.policy
    asked = {"file_name": f"input.{media.content_type.rpartition('/')[2]}", "content_type": media.content_type}
    headers = {
        "Content-Type": "application/json",
        # Official clients disagree which of the two is read here.
        "X-Fal-Object-Lifecycle": LIFETIME,
        "X-Fal-Object-Lifecycle-Preference": LIFETIME,
    }
    url = f"{policy.storage_url}/storage/upload/initiate?storage_type=fal-cdn-v3"
    timeout, content = policy.api_timeout, json.dumps(asked).encode()
    return await transport.send("POST", url, headers=headers, content=content, timeout=timeout, deadline=timeout)


def upload_urls(reply: Reply, policy: NetworkPolicy) -> tuple[httpx.URL, str]:
    """Return where to put the file, and its address from then on. Raises `FalError` for places that are not fal's."""
    body: Any = reply.json
    try:
        upload_url = checked_url(body["upload_url"], policy.media_hosts)
        return upload_url, str(checked_url(body["file_url"], policy.media_hosts))
    except (MediaRefusedError, LookupError, TypeError):
        what = "fal's storage names no place of its own for the upload"
    raise FalError(f"{what}, {NOTHING_PAID}: look for a newer version of this pack.", stage="upload")


async def put_file(
    transport: Transport, url: httpx.URL, media: Media, progress: Callable[[str], None]
) -> Reply | TransportFailure:
    """Put the file there, without the key. `progress` is told how far it is."""

    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(media.content), BLOCK):
            progress(f"Uploading to fal: {100 * start // len(media.content)} %")
            yield media.content[start : start + BLOCK]
        progress("Uploading to fal: 100 %")

    headers = {"Content-Type": media.content_type, "Content-Length": str(len(media.content))}
    return await transport.put_without_key(url, headers, blocks())


async def is_at(address: Any, media: Media, policy: NetworkPolicy) -> bool:
    """Return whether the file at an address of fal's storage has the content of `media`."""
    try:
        url = checked_url(address, policy.media_hosts)
        with anyio.fail_after(policy.media_deadline):
            async with connect("*/*", certificates()) as http:
                request = http.build_request("GET", url, timeout=policy.timeout(policy.api_timeout))
                request.url = UnloggedURL(url)
                async with aclosing(await http.send(request, stream=True)) as response:
                    length = response.headers.get("content-length")
                    if response.status_code != 200 or length not in (None, str(len(media.content))):
                        return False
                    return await is_body(response, media.content)
    except (MediaRefusedError, TypeError, TimeoutError, httpx.TransportError, httpx.InvalidURL, ssl.SSLError):
        return False


async def is_body(response: httpx.Response, content: bytes) -> bool:
    """Return whether a body is `content`, without reading more than that."""
    read = 0
    async with raw_chunks(response) as chunks:
        async for chunk in chunks:
            if content[read : read + len(chunk)] != chunk:
                return False
            read += len(chunk)
    return read == len(content)


def not_uploaded(reply: Reply | TransportFailure, has_place: bool) -> FalError:
    """Return why an upload failed. `has_place`: fal had said where to put it."""
    if isinstance(reply, Reply) and not has_place:
        return error_from(reply, "upload", f"fal did not accept the upload, {NOTHING_PAID}")
    text = f"The upload to fal's storage failed ({reply.reason}), {NOTHING_PAID}: check the network, and try again."
    return FalError(text, stage="upload", retryable=True)
