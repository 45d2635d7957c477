"""Which VIDEO is read from its file: one that is just what the file holds, as far as this pack can know."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.tests.test_extend_node import HEIGHT, WIDTH, make_clip

CROP = (8, 4, 32, 24)
"""x, y, width, height"""


@pytest.fixture
def file(tmp_path) -> Path:
    make_clip(tmp_path / "clip.mp4", 20, 16, 1.25)
    return tmp_path / "clip.mp4"


@pytest.fixture
def changing(core, monkeypatch):
    """`VideoFromFile` of a later ComfyUI, whose frames are others where an instance has one of its newer attributes."""
    from comfy_api.latest import InputImpl

    plain = InputImpl.VideoFromFile.get_components

    def get_components(video):
        components = plain(video)
        if crop := vars(video).get("_VideoFromFile__crop"):
            x, y, width, height = crop
            components.images = components.images[:, y : y + height, x : x + width]
        if "_VideoFromFile__mirrored" in vars(video):
            components.images = components.images.flip(2)
        return components

    monkeypatch.setattr(InputImpl.VideoFromFile, "get_components", get_components)
    return InputImpl.VideoFromFile


def assert_gives_its_own_frames(video) -> None:
    """To be exported, to be copied and to go on from."""
    from cosmos_predict25.nodes.host.videos import end_of, file_of, source_of

    wanted = video.get_components().images
    assert file_of(video) is None
    assert source_of(video, None, lambda: None).frames.equal(wanted)
    assert end_of(video).frames.equal(wanted)


def test_a_plain_video_is_read_from_its_file(core, file):
    from comfy_api.latest import InputImpl

    from cosmos_predict25.nodes.host.videos import file_of, source_of, with_values
    from cosmos_predict25.pipeline.clip import FileClip

    video = with_values(InputImpl.VideoFromFile(str(file)), {"seed": 1})
    vars(video)["_VideoFromFile__crop"] = None  # as a later ComfyUI has it where nothing is cropped
    assert file_of(video) == str(file)
    assert isinstance(source_of(video, None, lambda: None).frames, FileClip)


@pytest.mark.parametrize("trim", [None, (0.25, 0.5)], ids=["whole", "a part"])
def test_a_cropped_video_stays_cropped(changing, file, trim):
    video = changing(str(file), **dict(zip(("start_time", "duration"), trim or (), strict=False)))
    vars(video)["_VideoFromFile__crop"] = CROP
    assert video.get_components().images.shape[1:3] == (24, 32)
    assert_gives_its_own_frames(video)


def test_a_video_with_an_attribute_that_does_not_exist_yet_gives_its_own_frames(changing, file):
    video = changing(str(file))
    plain = video.get_components().images
    vars(video)["_VideoFromFile__mirrored"] = True
    assert video.get_components().images.equal(plain.flip(2))
    assert_gives_its_own_frames(video)


def test_a_video_of_another_packs_class_gives_its_own_frames(core, file):
    from comfy_api.latest import InputImpl, Types

    class Dark(InputImpl.VideoFromFile):
        def get_components(self):
            components = super().get_components()
            return Types.VideoComponents(images=components.images / 2, frame_rate=components.frame_rate)

    video = Dark(str(file))
    assert video.get_components().images.shape == torch.Size((20, HEIGHT, WIDTH, 3))
    assert_gives_its_own_frames(video)


@pytest.mark.parametrize("use", ["export", "export a video", "extend", "start"])
def test_a_list_of_images_is_refused_in_a_sentence(core, use):
    from comfy_api.latest import Types

    from cosmos_predict25.nodes.host.clips import clip_of, start_from, video_from
    from cosmos_predict25.nodes.host.videos import source_of

    images: Any = [torch.zeros(1, 8, 8, 3)] * 2
    uses = {
        "export": lambda: source_of(video_from(images), None, lambda: None),
        "export a video": lambda: source_of(Made(Types.VideoComponents(images, Fraction(16))), None, lambda: None),
        "extend": lambda: clip_of(images, lambda: None),
        "start": lambda: start_from(images, None),
    }
    with pytest.raises(InvalidRequestError, match="list of 2, but must be one batch: join them with Batch Images"):
        uses[use]()


class Made:
    """Another pack's VIDEO."""

    def __init__(self, components: Any) -> None:
        self.get_components = lambda: components


def test_a_batch_of_sounds_is_refused_before_a_video_is_made_longer(core):
    from cosmos_predict25.nodes.host.clips import clip_of, video_from

    audio: Any = {"waveform": torch.zeros(2, 1, 800), "sample_rate": 16000}
    with pytest.raises(InvalidRequestError, match="connect one sound, not a batch"):
        clip_of(video_from(torch.zeros(1, 8, 8, 3), audio=audio), lambda: None)
