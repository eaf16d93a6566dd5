"""What a restore leaves of the folder that CRIU works in, where it cannot even begin."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from warmspare.control.criu import Criu, Options
from warmspare.runtime.cradle import Cradle


def test_one_that_cannot_be_started_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    images = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(FileNotFoundError):
            Cradle(images, Criu("/nowhere/criu"), Options(), new_pidns=False)
    finally:
        os.close(images)
    assert list(tmp_path.iterdir()) == []
