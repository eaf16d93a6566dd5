"""A folder gets its name in one step, when it is whole, and never one that is taken."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from leftovers import PATIENCE_S, small_disk
from warmspare.control.criu import Options
from warmspare.runtime import publishing
from warmspare.runtime.images import Image
from warmspare.runtime.manifest import File, Made, Manifest, NoImage, Process
from warmspare.runtime.publishing import CannotKeep, Hidden, is_at, remove

HERE = Made(driver=None, kernel="k", boot="b", criu=None, tool="t", architecture="a", gpus=())


def manifest() -> Manifest:
    return Manifest(
        made_at="now",
        made=HERE,
        processes=(Process(pid=7, parent=1, name="p", uid=0, cuda=False),),
        options=Options(),
        files={"core-7.img": File(size=0, chunks=())},
    )


def written(hidden: Hidden) -> None:
    (hidden.path / "core-7.img").touch()


def test_it_is_hidden_and_its_owners_only_until_it_has_its_name(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Hidden(tmp_path / "image") as hidden:
            (folder,) = tmp_path.iterdir()
            assert folder.name.startswith(".warmspare-")
            assert folder.stat().st_mode & 0o7777 == 0o700
            written(hidden)
            hidden.publish(manifest())
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["image"]
    with Image(tmp_path / "image") as image:
        assert image.manifest == manifest()
        assert image.threads() == (7,)


def test_what_was_not_published_is_removed(tmp_path: Path) -> None:
    with Hidden(tmp_path / "image") as hidden:
        written(hidden)
        (hidden.path / "deeper").mkdir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_name_that_is_taken_meanwhile_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "image"
    with Hidden(target) as hidden:
        written(hidden)
        match kind:
            case "folder":
                target.mkdir()
            case "file":
                target.write_text("mine")
            case "link":
                target.symlink_to("/nowhere")
        was = target.lstat()
        with pytest.raises(CannotKeep, match=r"cannot publish .*image: File exists"):
            hidden.publish(manifest())
    assert target.lstat() == was
    assert list(tmp_path.iterdir()) == [target]


def test_nobody_ever_sees_a_part_of_it(tmp_path: Path) -> None:
    """Whoever looks at the name finds nothing, or the whole."""
    target, seen, over, looked = tmp_path / "image", list[str](), threading.Event(), threading.Condition()

    def found() -> str:
        try:
            with Image(target):
                return "whole"
        except NoImage as reason:
            return str(reason)

    def look() -> None:
        while not over.is_set():
            what = found()
            with looked:
                seen.append(what)
                looked.notify()

    def look_of_now() -> str:
        """What the first look found that began after this call: one is under way."""
        with looked:
            before = len(seen)
            assert looked.wait_for(lambda: len(seen) >= before + 2, PATIENCE_S)
            return seen[before + 1]

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for turn in range(50):
            with Hidden(target) as hidden:
                written(hidden)
                hidden.publish(manifest())
            assert look_of_now() == "whole"
            target.rename(tmp_path / f"old{turn}")
    finally:
        over.set()
        looking.join()
    assert set(seen) <= {"whole", f"{target} is no image: No such file or directory"}


def test_another_folder_under_the_hidden_name_is_left_alone(tmp_path: Path) -> None:
    with Hidden(tmp_path / "image") as hidden:
        name = tmp_path / hidden.place.hidden
        name.rename(tmp_path / "moved")
        name.mkdir()
        (name / "precious").touch()
        assert not is_at(hidden.place, hidden.place.hidden)
        assert remove(hidden.place)
    assert (name / "precious").exists()


def test_a_swapped_folder_is_not_taken_for_the_image(tmp_path: Path) -> None:
    with Hidden(tmp_path / "image") as hidden:
        name = tmp_path / hidden.place.hidden
        name.rename(tmp_path / "moved")
        name.mkdir()
        with pytest.raises(CannotKeep, match="somebody else renames folders there"):
            hidden.publish(manifest())


def test_a_parent_that_others_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "anybodys"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(CannotKeep, match="others may rename what is in"):
        Hidden(folder / "image")
    assert list(folder.iterdir()) == []
    folder.chmod(0o1777)  # in such a one nobody renames another's
    with Hidden(folder / "image"):
        pass


@pytest.mark.parametrize(
    ("name", "says"), [("/", "names no new folder"), ("a/..", "names no new folder"), ("no/image", "No such")]
)
def test_a_name_that_cannot_be_is_said_so(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(CannotKeep, match=says):
        Hidden(tmp_path / name)


def test_free_space_is_said_with_its_numbers(tmp_path: Path) -> None:
    with Hidden(tmp_path / "image") as hidden:
        hidden.need(1, "nearly nothing")
        with pytest.raises(
            CannotKeep, match=r"has \d+ MiB free, and the image may take 1099511627840 MiB \(too much\)"
        ):
            hidden.need(2**60, "too much")


@pytest.mark.root
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        with Hidden(disk / "image") as hidden:
            written(hidden)
            with contextlib.suppress(OSError):
                (hidden.path / "filler").write_bytes(bytes(2 << 20))
            with pytest.raises(CannotKeep, match="No space left on device"):
                hidden.publish(manifest())
        assert list(disk.iterdir()) == []


def test_a_file_system_that_cannot_refuse_to_replace_is_served_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "NO_REPLACE", 1 << 20)  # EINVAL, as NFS gives for the real one
    with Hidden(tmp_path / "image") as hidden:
        written(hidden)
        hidden.publish(manifest())
    assert (tmp_path / "image" / "warmspare.json").exists()
