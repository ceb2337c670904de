"""Makes crop.json, which holds every crop function to the same pixels: `python -m tests.golden.crop_vectors` writes it anew.

A picture is rows x columns x channels bytes in base64 (channels BGR, BGRA or grey). A case says which square a box becomes and
which grey crop that is, size x size bytes in base64. Python reproduces it exactly; another language may differ by `tolerance`
grey levels in a pixel, because OpenCV rounds its bilinear weights.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from models.faces.crop import crop_face, face_square

FILE = Path(__file__).with_name("crop.json")
CASES: tuple[tuple[str, tuple[int, int, int, int], int, float], ...] = (
    ("colour", (6, 4, 24, 24), 24, 0.0),
    ("colour", (5, 3, 20, 20), 48, 0.0),
    ("colour", (5, 3, 21, 21), 16, 0.0),
    ("colour", (2, 2, 32, 32), 16, 0.0),
    ("colour", (0, 0, 40, 33), 48, 0.0),
    ("colour", (7, 5, 13, 20), 24, 0.0),
    ("colour", (7, 5, 20, 13), 24, 0.0),
    ("colour", (10, 8, 15, 15), 48, 0.1),
    ("colour", (10, 8, 15, 15), 16, 0.25),
    ("colour", (-6, -5, 22, 22), 24, 0.0),
    ("colour", (30, 20, 25, 25), 48, 0.0),
    ("colour", (45, 40, 10, 10), 16, 0.0),
    ("colour", (12, 9, 1, 1), 16, 0.0),
    ("colour", (-10, -10, 70, 70), 48, 0.05),
    ("transparent", (2, 1, 17, 17), 24, 0.0),
    ("grey", (1, 2, 19, 19), 24, 0.0),
    ("grey", (0, 0, 30, 26), 48, 0.0),
)


def vectors() -> dict[str, Any]:
    """The content of crop.json."""
    pictures = _pictures()
    return {
        "version": 1,
        "tolerance": 1,
        "pictures": {name: _packed(picture) for name, picture in pictures.items()},
        "cases": [
            {
                "picture": name,
                "box": list(box),
                "size": size,
                "margin": margin,
                "square": list(face_square(box, margin)),
                "face": base64.b64encode(crop_face(pictures[name], box, size, margin).tobytes()).decode(),
            }
            for name, box, size, margin in CASES
        ],
    }


def _pictures() -> dict[str, np.ndarray]:
    """Smooth shades with sharp edges and a little noise, so that a wrong rounding and a wrong filter both show."""
    rng = np.random.default_rng(48)
    ys, xs = np.mgrid[:33, :40]
    planes = [120 + 90 * np.sin(xs / 5 + at) * np.cos(ys / (4 + at)) for at in range(4)]
    colour = np.stack(planes, axis=-1) + 40 * ((xs // 7 + ys // 6) % 2)[:, :, None] + rng.integers(-12, 13, (33, 40, 4))
    whole = np.clip(colour, 0, 255).astype(np.uint8)
    return {"colour": whole[:, :, :3], "transparent": whole[:20, :24], "grey": whole[:26, :30, 1]}


def _packed(picture: np.ndarray) -> dict[str, Any]:
    channels = {2: "grey"}.get(picture.ndim) or {3: "BGR", 4: "BGRA"}[picture.shape[2]]
    content = base64.b64encode(np.ascontiguousarray(picture).tobytes()).decode()
    return {"rows": picture.shape[0], "columns": picture.shape[1], "channels": channels, "pixels": content}


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
