"""How the service behaves; a test sets these on the stand-in."""

from typing import Literal

from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT

DAY = 86400


class Switches:
    queue_seconds: float = 2
    """From the submission until a runner is free."""
    run_seconds: float = 5
    concurrency: int = 40
    """Jobs of the account that run at once; the others queue."""
    validate_at: Literal["submit", "result"] = "result"
    """Where the 422 of a schema violation comes."""
    locked: bool = False
    """The balance is exhausted: submit and storage answer 403, reads go on."""
    cancelled: Literal["ends", "vanishes", "completes"] = "ends"
    """What a cancelled job becomes: a result 499, a 404, or a video all the same (if it was running)."""
    metrics: bool = True
    bare_result: bool = False
    """The result has nothing but the video's URL."""
    media_host: str = "v3b.fal.media"
    keeps_start: bool = True
    """A video begins with what it starts from."""
    ranges: bool = True
    """The CDN knows `Range`."""
    strict_uploads: bool = True
    """A pre-signed PUT must not carry Authorization. The official client's fallback does."""
    storage_days: float = 30
    keep_alive_seconds: float = 15
    """Between the comments in a status stream."""
    listed: Literal["accepted", "started", "completed"] = "accepted"
    """From when on a job is in the platform's request listing."""
    listed_defaults: bool = False
    """The listed inputs have the defaults of the fields that were left out."""
    default_negative_prompt: str = DEFAULT_NEGATIVE_PROMPT
    """fal's own, of which ours is a copy."""
    ahead_seconds: float = 0
    """How far fal's clock is ahead of this computer's."""
    dates: bool = True
    """Replies tell fal's time."""
