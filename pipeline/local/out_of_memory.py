"""Recognise out-of-memory errors of all of torch's devices."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` means that the device ran out of memory.

    CUDA has one error type for its allocator and another for its driver. Apple's and DirectML's are RuntimeErrors.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return "out of memory" in text or "not enough gpu video memory" in text
