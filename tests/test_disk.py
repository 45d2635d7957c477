"""Files are on disk whole or not at all."""

import os
from pathlib import Path

import pytest

from cosmos_predict25.pipeline import disk
from cosmos_predict25.pipeline.disk import atomic_write
from cosmos_predict25.tests.posix import only_posix


def test_a_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "video.mp4"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "video.mp4"
    target.write_text("old")
    with pytest.raises(IsADirectoryError), atomic_write(target) as temporary:
        (temporary.write_text("half"), tmp_path.read_bytes())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@only_posix
def test_only_the_owner_reads_what_is_private(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "record.json", mode=0o600) as temporary:
        temporary.write_text("{}")
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o600


@only_posix
def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(disk.secrets, "token_hex", lambda length: "guessed")
    (tmp_path / ".guessed.mp4.part").symlink_to(victim)
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "video.mp4"):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("winerror", disk.HELD_BY_ANOTHER_PROCESS)
def test_a_file_that_another_process_holds_is_replaced_a_little_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, winerror: int
) -> None:
    """As on Windows, where the scanner of viruses opens each new file."""
    failures, real = [held(winerror), held(winerror)], os.replace

    def sometimes(source: str, target: str) -> None:
        if failures:
            raise failures.pop()
        real(source, target)

    monkeypatch.setattr(disk.Path, "replace", lambda self, target: sometimes(str(self), str(target)))
    with atomic_write(tmp_path / "record.json") as temporary:
        temporary.write_text("{}")
    assert not failures
    assert (tmp_path / "record.json").read_text() == "{}"


def test_a_file_that_stays_held_is_an_error_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Path, target: Path) -> None:
        raise held(32)

    monkeypatch.setattr(disk, "REPLACE_SECONDS", 0.1)
    monkeypatch.setattr(disk.Path, "replace", never)
    with pytest.raises(PermissionError), atomic_write(tmp_path / "record.json"):
        pass
    assert not list(tmp_path.iterdir())


def held(winerror: int) -> PermissionError:
    error = PermissionError(13, "Permission denied")
    error.winerror = winerror  # pyright: ignore[reportAttributeAccessIssue]
    return error
