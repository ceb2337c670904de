"""The picture to judge the drawn data by is written whole, or refused in one sentence."""

import sys
from pathlib import Path

import cv2
import pytest

from common.errors import DeviceError
from simulation import contact_sheet


def test_the_sheet_is_written_as_a_colour_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["contact_sheet", str(path)])
    contact_sheet.main()
    sheet = cv2.imread(str(path))
    assert sheet is not None
    assert sheet.shape[2] == 3
    assert sheet[:, -60:].std() > 20


def test_a_folder_that_is_not_there_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["contact_sheet", str(tmp_path / "absent" / "sheet.png")])
    with pytest.raises(DeviceError, match=r"cannot be written: its folder does not exist\.$"):
        contact_sheet.main()
