"""Whether memory did not suffice, in the words of any of torch's devices."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the device has too little memory.

    CUDA has an error of its own for its allocator and another one for its driver; Apple's and DirectML's are
    RuntimeErrors.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return "out of memory" in text or "not enough gpu video memory" in text
