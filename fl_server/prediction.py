"""What `POST /v1/predict` answers: faces with probabilities, as JSON or drawn onto the picture. `fl_server.predict` makes it."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.manifest import Manifest
from models.preprocess import Box

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 blue-green-red."""


@dataclass(frozen=True)
class Face:
    """What the model says of one face; probabilities in the order of the model's classes."""

    box: Box
    score: float
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """The answer, with the model that gave it and the picture, which is forgotten with it."""

    manifest: Manifest
    picture: Picture
    faces: tuple[Face, ...]

    def as_json(self) -> dict[str, Any]:
        """As the OpenAPI document describes it."""
        rows, columns = self.picture.shape[:2]
        return {
            "model": {
                "version": self.manifest.version,
                "private": self.manifest.privacy.private,
                "statement": self.manifest.privacy.statement,
            },
            "width": columns,
            "height": rows,
            "faces": [self._face(face) for face in self.faces],
        }

    def _face(self, face: Face) -> dict[str, Any]:
        classes = self.manifest.model.classes
        return {
            "box": list(face.box),
            "score": round(face.score, 4),
            "label": classes[int(face.probabilities.argmax())],
            "probabilities": {name: round(float(part), 6) for name, part in zip(classes, face.probabilities, strict=True)},
        }

    def as_png(self) -> bytes:
        """The picture with a box and a label per face."""
        image = Image.fromarray(np.ascontiguousarray(self.picture[:, :, ::-1]))
        canvas = ImageDraw.Draw(image)
        letters = max(12, round(0.03 * max(image.size)))
        font = ImageFont.load_default(letters)
        for face in self.as_json()["faces"]:
            x, y, width, height = face["box"]
            text = f"{face['label']} {face['probabilities'][face['label']]:.0%}"
            canvas.rectangle((x, y, x + width - 1, y + height - 1), outline=(79, 209, 193), width=max(2, letters // 6))
            above = max(0, y - round(1.4 * letters))
            canvas.rectangle(
                (x, above, x + canvas.textlength(text, font) + letters // 2, above + 1.4 * letters), fill=(15, 118, 110)
            )
            canvas.text((x + letters // 4, above + letters // 8), text, fill=(255, 255, 255), font=font)
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()
