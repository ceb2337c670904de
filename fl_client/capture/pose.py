"""Where a head is and looks, roughly, and which change would make the next pictures worth more. Pure; `Studio` asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from models.detector.detection import Detection

TURNED = 0.15
"""Nose off the eyes' middle, in eye distances, from which a head counts as turned."""

FAR, NEAR = 0.22, 0.5
"""The face's side in parts of the frame's height: below and above which it counts as far and near."""

ENOUGH_ALIKE = 3


class Turn(Enum):
    """Seen from the camera; UNKNOWN where the detector gives no keypoints."""

    LEFT = "left"
    FRONT = "front"
    RIGHT = "right"
    UNKNOWN = "unknown"


class Distance(Enum):
    """Of the face from the camera."""

    FAR = "far"
    MIDDLE = "middle"
    NEAR = "near"


@dataclass(frozen=True)
class Pose:
    """A head's pose, in coarse steps."""

    turn: Turn
    distance: Distance


def pose_of(detection: Detection, rows: int) -> Pose:
    """The pose of a face in a frame that is `rows` pixels high."""
    part = detection.box[3] / max(rows, 1)
    distance = Distance.FAR if part < FAR else Distance.NEAR if part > NEAR else Distance.MIDDLE
    if detection.keypoints is None or len(detection.keypoints) < 3:
        return Pose(Turn.UNKNOWN, distance)
    (x1, y1), (x2, y2), (nose, _) = detection.keypoints[:3]
    apart = max(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 1e-6)
    offset = (nose - (x1 + x2) / 2) / apart
    turn = Turn.LEFT if offset < -TURNED else Turn.RIGHT if offset > TURNED else Turn.FRONT
    return Pose(turn, distance)


def advice(poses: Sequence[Pose]) -> str | None:
    """What would vary the next pictures most, from the poses of one emotion's pictures of this session, the oldest first.

    Nothing until `ENOUGH_ALIKE` of them in a row share a turn, or twice as many a distance.
    """
    turns = [pose.turn for pose in poses[-ENOUGH_ALIKE:]]
    if len(turns) == ENOUGH_ALIKE and len(set(turns)) == 1 and turns[0] is not Turn.UNKNOWN:
        return "now turn your head a little to one side" if turns[0] is Turn.FRONT else "now look straight ahead"
    distances = [pose.distance for pose in poses[-2 * ENOUGH_ALIKE :]]
    if len(distances) == 2 * ENOUGH_ALIKE and len(set(distances)) == 1:
        return "now lean back a little" if distances[0] is Distance.NEAR else "now come a little closer"
    return None
