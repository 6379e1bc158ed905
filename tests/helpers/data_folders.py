"""Small training folders, written for a test."""

import json
from pathlib import Path

import cv2
import numpy as np

from siamrpn_jax.data.scenes.generated import make_sequence


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_sequence(folder: Path, seed: int, *, length: int = 6, meta=None) -> None:
    frames, boxes = make_sequence(seed, length=length, height=120, width=160)
    for i, frame in enumerate(frames):
        write_image(folder / "img" / f"{i + 1:04d}.png", frame)
    np.savetxt(folder / "groundtruth.txt", boxes, delimiter=",", fmt="%.3f")
    if meta is not None:
        (folder / "meta.json").write_text(json.dumps(meta))


def write_stills(folder: Path, count: int, *, side: int = 200, source=None) -> None:
    """Images with one or two coloured rectangles each, every other with a polygon."""
    rng = np.random.default_rng(count + side)
    images, annotations = [], []
    for i in range(count):
        image = rng.integers(0, 90, (side, side, 3), np.uint8)
        name = f"{i:03d}.png"
        entry = {"id": i, "file_name": name, "width": side, "height": side}
        images.append(entry | ({"source": source} if source else {}))
        for k in range(1 + i % 2):
            w, h = (int(v) for v in rng.integers(side // 5, side // 3, 2))
            x = int(rng.integers(0, side - w))
            y = int(rng.integers(0, side // 2 - h)) + k * side // 2
            image[y : y + h, x : x + w] = rng.integers(90, 255, 3)
            ring = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotation = {"image_id": i, "bbox": [x, y, w, h]}
            annotations.append(annotation | ({"segmentation": [ring]} if k else {}))
        write_image(folder / name, image)
    content = {"images": images, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content))


def write_everything(root: Path) -> str:
    """Sequences, stills and small images, below one folder."""
    for i in range(3):
        write_sequence(root / "videos" / f"clip_{i}", i)
    write_stills(root / "stills", 8)
    write_stills(root / "small", 4, side=64)
    return str(root)


def write_classes(folder: Path, count: int, *, side: int = 64, seed: int = 0) -> None:
    """``count`` images each of three classes: a red square, a green disc, blue bars."""
    rng = np.random.default_rng(seed)
    for name, color in (("square", 0), ("disc", 1), ("bars", 2)):
        for i in range(count):
            image = rng.integers(0, 120, (side, side + 8, 3), np.uint8)
            paint = [int(v) for v in rng.integers(0, 60, 3)]
            paint[color] = int(rng.integers(180, 255))
            x, y = (int(v) for v in rng.integers(side // 3, side - side // 3, 2))
            r = side // 4
            if name == "disc":
                cv2.circle(image, (x, y), r, paint, -1)
            else:
                for dy in (0,) if name == "square" else (-r, r // 2):
                    high = r if name == "square" else r // 4
                    corner = (x + r, y + dy + high)
                    cv2.rectangle(image, (x - r, y + dy - high), corner, paint, -1)
            write_image(folder / name / f"{i:03d}.png", image)
