"""The picture or clip that a job starts from."""

from contextlib import closing, suppress
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..clip.pictures import FileClip
from ..clip.start import start_from_end
from ..errors import InvalidRequestError
from ..start import Start
from .files import local_copy
from .jobs import IMAGE, Job


def load_start(job: Job) -> Start:
    """Return the picture, or the end of the clip, in `job.input_path`.

    An image2world job takes the first frame of a clip. Raises `InvalidRequestError` for a file that cannot be read.
    """
    assert job.input_path
    with local_copy(job.input_path) as file:
        if job.inference_type == IMAGE:
            with suppress(UnidentifiedImageError):  # it may be a clip
                return start_from_picture(file)
        clip = FileClip(file)
        if job.inference_type == IMAGE:
            with closing(clip.with_square_pixels().frames()) as frames:
                return Start(next(frames)[None])
        return start_from_end(clip)


def start_from_picture(file: Path) -> Start:
    try:
        with Image.open(file) as image:
            rgb = ImageOps.exif_transpose(image).convert("RGB")
        return Start(torch.from_numpy(numpy.array(rgb))[None])
    except UnidentifiedImageError:
        raise
    except OSError as error:
        raise InvalidRequestError(f"{file} cannot be read ({error}): choose another file.") from error
