"""The pack's exceptions. ComfyUI's own interruption passes through unchanged."""


class CosmosError(Exception):
    """Base class of the pack's errors. Messages are written for the user of the graph."""

    def __init_subclass__(cls) -> None:
        # ComfyUI shows an error with its module, which would be the path of the pack's folder.
        cls.__module__ = "cosmos_predict25"


class InvalidRequestError(CosmosError, ValueError):
    """A request field is outside its limits. The message names the field, the value and the limit."""


class CheckpointNotFoundError(CosmosError, FileNotFoundError):
    """A checkpoint or one of its files is missing. The message says what to download and where to put it."""


class WrongCheckpointError(CosmosError, ValueError):
    """A file holds another model, or only part of this one."""


class MissingDependencyError(CosmosError, ImportError):
    """An optional package is missing. The message has the line that installs it."""


class NotEnoughMemoryError(CosmosError, MemoryError):
    """The video is too large for the free memory. The message names a size that fits."""


class NotANumberError(CosmosError, ArithmeticError):
    """A part of the model produced NaN. The message names the part, the place and a remedy."""


class UnsafeContentError(CosmosError):
    """The guardrail refused the prompt or the finished frames."""


class ExportError(CosmosError, OSError):
    """A video could not be written to disk. The message has the reason and a remedy."""


class MissingKeyError(CosmosError, ValueError):
    """The fal key is missing or malformed. The message says what to set and never contains the key."""


class FalError(CosmosError):
    """fal refused a job, or a job failed. Also the base class of the other fal errors.

    `stage`: connect, journal, price, limit, upload, submit, listing, status, result, cancel or download. `status`: the
    HTTP status. `error_type`: fal's name of the error. `retryable`: whether a retry can help, or None if fal does not
    say. `request_id`: fal's name of the job.
    """

    def __init__(
        self,
        message: str,
        *,
        stage: str,
        status: int | None = None,
        error_type: str | None = None,
        retryable: bool | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{message} Request id: {request_id}." if request_id else message)
        self.text = message
        self.stage = stage
        self.status = status
        self.error_type = error_type
        self.retryable = retryable
        self.request_id = request_id


class OutcomeUnknownError(FalError):
    """A job was sent but fal's reply was lost: it may run and may be charged. It is never resent automatically."""


class JobKeptError(FalError):
    """The paid job could not be followed to its end. Its record is kept, and the same request resumes it."""


class JobExpiredError(FalError):
    """fal does not know the job, or no longer has its result."""
