"""The CDN and the storage API: finished videos, and uploads."""

import base64
import functools
import hashlib
import io
import json
import math
import re
import secrets
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import av
import torch

from cosmos_predict25.pipeline.export import export
from cosmos_predict25.pipeline.start import fit

from .clock import Clock
from .switches import Switches
from .wire import Exchange, Response, json_response

WIDTH, HEIGHT, FPS, SIDE = 96, 64, 16, 24
KINDS = {
    "X264 (.mp4)": "video/mp4",
    "VP9 (.webm)": "video/webm",
    "PRORES4444 (.mov)": "video/quicktime",
    "GIF (.gif)": "image/gif",
}
COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (1, 0.5, 0))
"""Of the square; the seed chooses."""


def colour_of(seed: int) -> tuple[float, float, float]:
    return COLOURS[seed % len(COLOURS)]


@functools.lru_cache(maxsize=64)
def render(format: str, quality: str, num_frames: int, colour: tuple[float, float, float], start: bytes = b"") -> bytes:
    """A square that moves to the right on grey, or on the picture or clip that it starts from, once that has ended."""
    frames = torch.full((num_frames, HEIGHT, WIDTH, 3), 0.2)
    known = frames_of(start)
    frames[: len(known)] = known
    if len(known):
        frames[len(known) :] = known[-1]
    for index, frame in enumerate(frames):
        if index < len(known):
            continue
        left = index * (WIDTH - SIDE) // max(1, num_frames - 1)
        frame[SIDE : 2 * SIDE - 4, left : left + SIDE] = torch.tensor(colour)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{suffix(format)}"
        export(frames, path, fps=FPS, format=format, quality=quality)
        return path.read_bytes()


def frames_of(content: bytes) -> torch.Tensor:
    """The last of a picture's or a clip's frames, at most 5, as the model takes them."""
    if not content:
        return torch.empty(0, HEIGHT, WIDTH, 3)
    with av.open(io.BytesIO(content)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.stack([fit(torch.from_numpy(frame), WIDTH, HEIGHT) for frame in frames[-5:]])


def suffix(format: str) -> str:
    return format[format.index("(") + 1 : -1]


class Videos:
    """Of the jobs, by their inputs. They are rendered in a thread, so that nobody waits for one but who asks for it."""

    def __init__(self, switches: Switches, storage: "Storage") -> None:
        self._switches = switches
        self._storage = storage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fal-standin-render")

    def prepare(self, body: dict[str, Any], seed: int) -> Future[bytes]:
        choice = (body.get("video_output_type", "X264 (.mp4)"), body.get("video_quality", "high"))
        start = self._storage.fetch(address_in(body)) if self._switches.keeps_start else None
        what = (*choice, int(body.get("num_frames", 93)), colour_of(seed), *([start] if start else []))
        return self._thread.submit(render, *what)

    def content(self, body: dict[str, Any], seed: int) -> tuple[str, bytes]:
        return KINDS[body.get("video_output_type", "X264 (.mp4)")], self.prepare(body, seed).result()

    def facts(self, body: dict[str, Any], seed: int) -> dict[str, Any]:
        """What a result says about its file."""
        kind, content = self.content(body, seed)
        num_frames = int(body.get("num_frames", 93))
        return {
            "content_type": kind,
            "file_name": f"output{suffix(body.get('video_output_type', 'X264 (.mp4)'))}",
            "file_size": len(content),
            "width": WIDTH,
            "height": HEIGHT,
            "fps": FPS,
            "duration": num_frames / FPS,
            "num_frames": num_frames,
        }

    def new_path(self, body: dict[str, Any]) -> str:
        return new_path(f"output{suffix(body.get('video_output_type', 'X264 (.mp4)'))}")

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def new_path(name: str) -> str:
    return f"/files/b/{secrets.token_hex(4)}/{secrets.token_urlsafe(12)}_{name}"


def address_in(body: dict[str, Any]) -> str:
    return body.get("image_url") or body.get("video_url") or ""


def file_response(exchange: Exchange, kind: str, content: bytes, ranges: bool) -> Response:
    tag = f'"{hashlib.md5(content).hexdigest()}"'
    headers = {"content-type": kind, "etag": tag}
    if not ranges:
        return Response(200, headers, content)
    headers["accept-ranges"] = "bytes"
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.headers.get("range", ""))
    if not asked or exchange.headers.get("if-range", tag) != tag:
        return Response(200, headers, content)
    start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    if start > end:
        return Response(416, {"content-range": f"bytes */{len(content)}"})
    return Response(206, {**headers, "content-range": f"bytes {start}-{end}/{len(content)}"}, content[start : end + 1])


PART = re.compile(r"(?P<path>/files/.+?)(/multipart/(?P<id>[^/]+))?/(?P<part>\d+|complete)")
CDN = "https://v3.fal.media"
UNAUTHORIZED = json_response({"detail": "Invalid token"}, 401)


class Storage:
    """Uploads by token (the Python client's way) and to pre-signed URLs (the JavaScript client's way)."""

    def __init__(self, switches: Switches, clock: Clock) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        """Content type and content by path."""
        self._switches = switches
        self._clock = clock
        self._lifetimes: dict[str, float] = {}
        self._ends: dict[str, float] = {}
        """Until when the files are kept that are not kept for ever."""
        self._tokens: set[str] = set()
        self._pending: dict[str, tuple[str, dict[int, bytes]]] = {}
        """Content type and parts of the uploads under way, by path."""
        self._signatures: dict[str, str] = {}

    def api(self, exchange: Exchange) -> Response:
        """Of rest.fal.ai."""
        if self._switches.locked:
            return json_response({"detail": "User is locked. Reason: Exhausted balance."}, 403)
        if exchange.path == "/storage/auth/token":
            token = secrets.token_urlsafe(24)
            self._tokens.add(token)
            expires = datetime.now(timezone.utc) + timedelta(hours=1)
            reply = {"token": token, "token_type": "Bearer", "base_url": CDN, "expires_at": expires.isoformat()}
            return json_response(reply)
        if exchange.path in ("/storage/upload/initiate", "/storage/upload/initiate-multipart"):
            asked = exchange.json()
            path = new_path(asked["file_name"])
            signature = secrets.token_hex(16)
            self._signatures[path] = signature
            self._pending[path] = (asked["content_type"], {})
            lifetime = json.loads(exchange.headers.get("x-fal-object-lifecycle-preference", "{}"))
            self._lifetimes[path] = lifetime.get("expiration_duration_seconds") or math.inf
            url = f"{CDN}{path}"
            return json_response({"upload_url": f"{url}?signature={signature}", "file_url": url})
        return json_response({"detail": "Not Found"}, 404)

    def cdn(self, exchange: Exchange) -> Response:
        """POST and PUT on v3.fal.media."""
        kind = exchange.headers.get("content-type", "application/octet-stream")
        name = exchange.headers.get("x-fal-file-name", "upload.bin")
        if exchange.path == "/files/upload":
            if not self.has_token(exchange):
                return UNAUTHORIZED
            path = new_path(name)
            self.files[path] = (kind, exchange.body)
            return json_response({"access_url": f"{CDN}{path}"})
        if exchange.path == "/files/upload/multipart":
            if not self.has_token(exchange):
                return UNAUTHORIZED
            path = new_path(name)
            self._pending[path] = (kind, {})
            return json_response({"access_url": f"{CDN}{path}", "uploadId": secrets.token_hex(8)})
        match = PART.fullmatch(exchange.path)
        path = match["path"] if match else exchange.path
        if path not in self._pending:
            return json_response({"detail": "Not Found"}, 404)
        signed = exchange.argument("signature") == self._signatures.get(path, "none")
        if signed and self._switches.strict_uploads and "authorization" in exchange.headers:
            return json_response({"detail": "Only one authentication mechanism is allowed"}, 400)
        if not signed and not self.has_token(exchange):
            return UNAUTHORIZED
        if signed and "content-length" not in exchange.headers:
            return Response(411)
        return self.receive(path, match["part"] if match else None, exchange)

    def receive(self, path: str, part: str | None, exchange: Exchange) -> Response:
        kind, parts = self._pending[path]
        if part is None:
            self.files[path] = (kind, exchange.body)
            self._ends[path] = self._clock.now() + self._lifetimes[path]
            return Response(200, {"etag": etag(exchange.body)})
        if part != "complete":
            parts[int(part)] = exchange.body
            return Response(200, {"etag": etag(exchange.body)})
        listed = {item["partNumber"]: item["etag"] for item in json.loads(exchange.body)["parts"]}
        if listed != {number: etag(content) for number, content in parts.items()}:
            return json_response({"detail": "The parts are not those that were uploaded"}, 400)
        self.files[path] = (kind, b"".join(parts[number] for number in sorted(parts)))
        return json_response({"access_url": f"{CDN}{path}"})

    def fetch(self, url: str) -> bytes | None:
        """What a runner gets there: of a data URI or of this storage, and of nowhere else."""
        if url.startswith("data:"):
            return base64.b64decode(url.partition(",")[2])
        path = url.removeprefix(CDN)
        if path not in self.files or self._clock.now() > self._ends.get(path, math.inf):
            return None
        return self.files[path][1]

    def has_token(self, exchange: Exchange) -> bool:
        scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and token in self._tokens


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'
