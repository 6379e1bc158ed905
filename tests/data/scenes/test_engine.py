import cv2
import numpy as np

from siamrpn_jax.data.scenes.engine import blend, fill_outlines


def test_fill_outlines_uses_continuous_coordinates():
    mask = np.zeros((20, 30), np.uint8)
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 6 + [14.3, 9.6]
    fill_outlines(mask, [circle])
    moments = cv2.moments(mask)
    center = np.array([moments["m10"], moments["m01"]]) / moments["m00"] + 0.5
    np.testing.assert_allclose(center, [14.3, 9.6], atol=0.1)


def test_blend_mixes_by_the_mask():
    image = np.full((1, 3, 3), 100, np.uint8)
    mask = np.array([[0, 255, 51]], np.uint8)
    blend(image, np.full((1, 3, 3), 200, np.uint8), mask)
    np.testing.assert_allclose(image[0, :, 0], [100, 200, 120], atol=1)
