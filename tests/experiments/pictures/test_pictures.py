import re

import cv2
import numpy as np
import pytest

from paths import ROOT

pytest.importorskip("matplotlib", reason="skipped: needs siamrpn-jax[report]")

from experiments.pictures import __main__ as pictures
from experiments.pictures import equations, tools
from siamrpn_jax.common.errors import InputError

DOCS = ROOT / "docs"
PAGES = ("gallery", "how_it_works", "evaluate", "paper", "faq")
MADE = [name for group in pictures.GROUPS for name in group.names]


def shown(page):
    """The pictures that a page shows, relative to the documents."""
    return re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (DOCS / f"{page}.md").read_text())


@pytest.mark.parametrize("page", PAGES)
def test_all_pictures_of_a_page_are_made_and_there(page):
    for name in shown(page):
        assert name in MADE
        assert (DOCS / name).is_file()


def test_nothing_is_made_that_no_page_shows():
    assert len(MADE) == len(set(MADE))
    everywhere = {name for page in PAGES for name in shown(page)}
    assert set(MADE) == everywhere
    files = (DOCS / "pictures").iterdir()
    assert {f"pictures/{path.name}" for path in files} <= everywhere


def test_pictures_are_small():
    sizes = [(DOCS / name).stat().st_size for name in MADE]
    assert max(sizes) <= tools.MAX_BYTES
    assert sum(sizes) <= 1_500_000


def test_a_group_is_drawn(tmp_path):
    (group,) = (g for g in pictures.GROUPS if g.make is equations.make_losses)
    pictures.draw(group, tmp_path)
    picture = cv2.imread(str(tmp_path / "pictures/smooth_l1.webp"))
    assert picture is not None and picture.shape[1] > 400


def test_too_large_a_picture_is_refused(tmp_path):
    made, saved = tmp_path / "made.webp", tmp_path / "saved.webp"
    made.write_bytes(bytes(tools.MAX_BYTES + 1))
    with pytest.raises(InputError, match=r"saved.webp: 150,001 bytes, expected at"):
        tools.save(saved, made)
    assert not saved.exists()


def test_quality_falls_until_a_picture_is_small():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    without_loss = cv2.imdecode(np.frombuffer(tools.encode(noise), np.uint8), 1)
    assert without_loss is not None and (without_loss[..., ::-1] == noise).all()
    large = np.tile(noise, (2, 2, 1)) + np.arange(256, dtype=np.uint8)[:, None, None]
    assert len(tools.encode(large)) <= tools.MAX_BYTES // 2


def test_pictures_side_by_side():
    tall, low = np.zeros((4, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    both = tools.beside(tall, low, gap=1)
    assert both.shape == (4, 6, 3)
    assert both[2:, 3:].min() == 255 and both[:2, 3:].max() == 0
