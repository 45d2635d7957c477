"""The pack's exceptions. ComfyUI's own interruption is not among them: it passes through untouched."""


class CosmosError(Exception):
    """Base of every error that this pack raises on purpose. The message is written for the person at the graph."""

    def __init_subclass__(cls) -> None:
        # ComfyUI shows an error with its module, which would be the path of the pack's folder.
        cls.__module__ = "cosmos_predict25"


class InvalidRequestError(CosmosError, ValueError):
    """A request field is out of its limits. The message names the field, the value and the limit."""


class CheckpointNotFoundError(CosmosError, FileNotFoundError):
    """There is no checkpoint, or a file of it is missing. The message says what to download and where to put it."""


class WrongCheckpointError(CosmosError, ValueError):
    """A file is there but holds another model, or not all of this one."""


class MissingDependencyError(CosmosError, ImportError):
    """An optional package is needed for what was asked. The message gives the line that installs it."""


class NotEnoughMemoryError(CosmosError, MemoryError):
    """The video is too large for the memory that is free. The message names a size that is not."""


class NotANumberError(CosmosError, ArithmeticError):
    """A part of the model gave NaN. The message names the part, where that was, and what to try."""


class UnsafeContentError(CosmosError):
    """The guardrail refused the prompt or the finished frames."""


class ExportError(CosmosError, OSError):
    """The system did not let a video be written. The message says why and what to do."""


class MissingKeyError(CosmosError, ValueError):
    """There is no fal key, or it is malformed. The message says what to set and never contains the key."""


class FalError(CosmosError):
    """fal's final answer is no: it refused a job, or a job failed. Also the base of the other errors of fal.

    `stage`: connect, journal, price, limit, upload, submit, listing, status, result, cancel or download. `status`: the
    HTTP status. `error_type`: fal's name of the error. `retryable`: whether a new try can help, None where fal does not
    say.
    `request_id`: fal's name of the job.
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
    """A job was sent and the answer was lost: it may run and may be charged. It is never sent again by itself."""


class JobKeptError(FalError):
    """The paid job could not be followed to its end now. Its record is kept: the same request goes on with it."""


class JobExpiredError(FalError):
    """fal does not know the job, or no longer has its result."""
