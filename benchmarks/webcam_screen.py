"""What stands behind two choices of the camera loop's screen: where "unsure" begins, and why no eye state is shown.

`python -m benchmarks.webcam_screen --data fer2013.csv` prints both, on the faces of PublicTest that FER+'s voters agree on.
"""

import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.real_data import Data, find_data
from common.console import command_line, out, run_command_line
from fl_client.webcam.base_model import BaseSource
from fl_client.webcam.classifier import Classifier
from models.faces.source import open_faces

EDGES = (0.0, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1.01)
ENLARGED = 4
EYE_FACES = 600


def confidence_table(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Table:
    """How often the base model is right, by the probability that it states."""
    classifier = Classifier(BaseSource().newest())
    whole = (0, 0, images.shape[2], images.shape[1])
    shares = np.stack([classifier.probabilities(image, [whole])[0] for image in images])
    stated, right = shares.max(1), shares.argmax(1) == labels
    table = Table("stated", "faces", "right", title=f"Base model on {len(images):,} faces: {right.mean():.1%} right")
    for low, high in pairwise(EDGES):
        inside = (stated >= low) & (stated < high)
        table.add_row(
            f"{low:.0%} to {min(high, 1):.0%}", f"{inside.mean():.1%}", f"{right[inside].mean():.1%}" if inside.any() else ""
        )
    for low in (0.4, 0.45, 0.5):
        below = stated < low
        table.add_row(f"below {low:.0%}", f"{below.mean():.1%}", f"{right[below].mean():.1%}, others {right[~below].mean():.1%}")
    return table


def eye_table(images: NDArray[np.uint8]) -> Table:
    """In how many faces, of which nearly all have their eyes open, OpenCV's eye cascade finds them."""
    cascade = cv2.CascadeClassifier(str(Path(getattr(getattr(cv2, "data", None), "haarcascades", "")) / "haarcascade_eye.xml"))
    side = ENLARGED * images.shape[1]
    table = Table("neighbours", "both eyes", "one", "none", "CPU ms a face", title=f"Eye cascade on {len(images)} faces")
    for neighbours in (2, 4):
        found, started = [], time.process_time()
        for image in images:
            upper = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)[: 3 * side // 5]
            eyes = cascade.detectMultiScale(
                cv2.equalizeHist(upper), 1.1, neighbours, minSize=(side // 7,) * 2, maxSize=(side // 2,) * 2
            )
            middles = [x + width / 2 for x, _, width, _ in eyes]
            found.append(any(middle < side / 2 for middle in middles) + any(middle >= side / 2 for middle in middles))
        spent = 1000 * (time.process_time() - started) / len(images)
        parts = (f"{found.count(eyes) / len(found):.0%}" for eyes in (2, 1, 0))
        table.add_row(str(neighbours), *parts, f"{spent:.1f}")
    return table


app = command_line("Where 'unsure' begins, and why no eye state is shown.")


@app.command()
def main(
    data: Data = None,
) -> None:
    """Print both tables."""
    cv2.setNumThreads(1)
    faces, _ = open_faces(find_data(data), labels="ferplus-majority", usage="PublicTest")
    out.print(confidence_table(faces.images, faces.labels))
    out.print(eye_table(faces.images[:EYE_FACES]))


if __name__ == "__main__":
    run_command_line(app)
