import cv2
import pytest

from plain_frames import solid
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.media import window

RED = (255, 0, 0)


def test_no_display_is_an_error_and_not_an_abort(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(window.sys, "platform", "linux")
    assert not window.has_display()
    with pytest.raises(InputError, match="pass --box"):
        window.ask_for_box(solid(RED))


def test_selection_with_a_display(monkeypatch):
    monkeypatch.setattr(window, "has_display", lambda: True)
    monkeypatch.setattr(cv2, "destroyWindow", lambda title: None)
    monkeypatch.setattr(cv2, "selectROI", lambda title, frame: (3, 4, 5, 6))
    assert window.ask_for_box(solid(RED)).tolist() == [3, 4, 5, 6]
    monkeypatch.setattr(cv2, "selectROI", lambda title, frame: (0, 0, 0, 0))
    with pytest.raises(InputError, match="no box was selected"):
        window.ask_for_box(solid(RED))


def test_headless_opencv_has_no_display(monkeypatch):
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:    NONE\n")
    monkeypatch.setenv("DISPLAY", ":0")
    assert window.gui_kind() == "NONE"
    assert not window.has_display()
