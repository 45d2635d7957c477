"""Any size, length, rate, format and quality: the file has exactly those, or the error names the limit."""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosmos_predict25.pipeline.errors import InvalidRequestError
from cosmos_predict25.pipeline.export import export
from cosmos_predict25.pipeline.export.encodings import MAX_FPS, find_encoding
from cosmos_predict25.pipeline.request import VIDEO_OUTPUT_TYPES, VIDEO_QUALITIES

RATES = st.one_of(
    st.integers(1, 120).map(Fraction),
    st.sampled_from([24, 30, 48, 60, 120]).map(lambda whole: Fraction(whole * 1000, 1001)),
    st.fractions(Fraction(1, 50), 1200, max_denominator=1001),
    st.floats(0.02, 1200).map(lambda rate: Fraction(rate).limit_denominator(10_000)),
)

PIXELS = {
    "mp4": ("yuv420p", "yuv420p"),
    "webm": ("yuv420p", "yuv420p"),  # FFmpeg's own decoder leaves VP9's alpha aside
    "mov": ("yuv444p12le", "yuva444p12le"),
    "gif": ("bgra", "bgra"),
}


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    num_frames=st.integers(1, 12),
    channels=st.sampled_from([3, 4]),
    fps=RATES,
    format=st.sampled_from(VIDEO_OUTPUT_TYPES),
    quality=st.sampled_from(VIDEO_QUALITIES),
)
def test_the_file_has_exactly_what_was_asked_for(width, height, num_frames, channels, fps, format, quality):
    frames = torch.rand(num_frames, height, width, channels, generator=torch.Generator().manual_seed(width))
    target = find_encoding(format)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{target.format.suffix}"
        if fps > MAX_FPS:
            with pytest.raises(InvalidRequestError, match=str(MAX_FPS)):
                export(frames, path, fps=fps, format=format, quality=quality)
            assert list(Path(folder).iterdir()) == []
            return
        saved = export(frames, path, fps=fps, format=format, quality=quality)
        if fps > target.max_fps:  # a GIF leaves frames out
            assert saved.fps <= target.max_fps
            return
        assert [file.name for file in Path(folder).iterdir()] == [path.name]
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            rate, duration = video.average_rate, (video.duration or 0) * video.time_base
            shown = list(container.decode(video=0))

    even = target.even_sides
    size = (width + width % 2, height + height % 2) if even else (width, height)
    assert (saved.width, saved.height) == size
    assert {(frame.width, frame.height) for frame in shown} == {size}
    assert {frame.format.name for frame in shown} == {PIXELS[target.format.container][channels - 3]}
    assert len(shown) == saved.num_frames == num_frames
    assert saved.fps == fps
    if target.format.container in ("mp4", "mov"):
        assert [frame.pts * frame.time_base for frame in shown] == [index / fps for index in range(num_frames)]
        assert rate == fps
    else:
        # WebM counts milliseconds and GIF hundredths of a second.
        tick = Fraction(1, 1000 if target.format.container == "webm" else 100)
        for index, frame in enumerate(shown):
            assert abs(frame.pts * frame.time_base - index / fps) <= tick / 2
        if target.format.container == "webm":
            assert abs(1 / rate - 1 / fps) <= tick
        else:
            # The last picture of a GIF stays for as long as the one before it.
            assert abs(duration - num_frames / fps) <= tick
