"""The pack's exceptions. ComfyUI's own interruption is not among them: it passes through untouched."""


class CosmosError(Exception):
    """Base of every error that this pack raises on purpose. The message is written for the person at the graph."""

    def __init_subclass__(cls) -> None:
        # ComfyUI shows an error with its module, which would be the path of the pack's folder.
        cls.__module__ = "cosmos_predict25"


class InvalidRequest(CosmosError, ValueError):
    """A request field is out of its limits. The message names the field, the value and the limit."""


class CheckpointNotFound(CosmosError, FileNotFoundError):
    """There is no checkpoint, or a file of it is missing. The message says what to download and where to put it."""


class WrongCheckpoint(CosmosError, ValueError):
    """A file is there but holds another model, or not all of this one."""


class MissingDependency(CosmosError, ImportError):
    """An optional package is needed for what was asked. The message gives the line that installs it."""


class CannotPlace(CosmosError, RuntimeError):
    """A part of the model could not be put on the compute device."""


class UnsafeContent(CosmosError):
    """The guardrail refused the prompt or the finished frames."""


class ExportFailed(CosmosError, OSError):
    """The system did not let a video be written. The message says why and what to do."""
