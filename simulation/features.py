"""The parts of a face that move: eyes, brows, cheeks, forehead, nose and mouth; `simulation.drawing` puts them together.

Where a muscle pulls stands in the formula of the shape it moves: `a[12]` is the intensity of action unit 12.
"""

from simulation.expressions import Expression
from simulation.people import Person, mix, scaled
from simulation.sketch import Colour, Curve, Layer, Sketch, between, ellipse, reverse, smooth, spindle

Units = dict[int, float]
Point = tuple[float, float]

BLACK: Colour = (18.0, 16.0, 20.0)
_WHITE: Colour = (250.0, 252.0, 254.0)
_CAVITY: Colour = (34.0, 26.0, 52.0)
_TONGUE: Colour = (88.0, 80.0, 150.0)
_TEETH: Colour = (226.0, 232.0, 236.0)
_FAINT = 0.08


def add_features(sketch: Sketch, person: Person, expression: Expression, chin: float) -> None:
    """Everything inside the outline of the face, whose lowest point lies at `chin`."""
    left, right, both = expression.side(0), expression.side(1), expression.middle()
    for side, a in ((-1, left), (1, right)):
        _eye(sketch, person, side, a, expression.gaze)
        _brow(sketch, person, side, a)
        _cheek(sketch, person, side, a)
    _forehead(sketch, person, both)
    _nose(sketch, person, left, right)
    _mouth(sketch, person, left, right, chin)


def _crease(sketch: Sketch, strength: float, depth: float, curve: Curve, width: float, lift: float = 0.0) -> None:
    """A fold in the skin: at `strength` 1 its middle loses the share `depth` of its brightness."""
    if strength > _FAINT:
        sketch.fill(Layer.FINE, 1 - depth * min(strength, 1.0), *spindle(curve, width), lift=lift)


def _eye(sketch: Sketch, person: Person, side: int, a: Units, gaze: tuple[float, float]) -> None:
    x, w = side * person.eye_x, side * person.eye_width
    squint = 0.35 * a[7] + 0.2 * a[6] + 0.3 * a[9] + 0.15 * a[12]
    up = person.eye_open * max(1 + 0.8 * a[5] - squint, 0.12) * (1 - min(a[43], 1.0))
    shrink = 0.7 * a[6] + 0.55 * a[7] + 0.5 * a[9] + 0.3 * a[12] - 0.25 * a[5]
    low = (0.6 * person.eye_open + 0.02) * max(1 - shrink, 0.1)
    outer = 0.02 - person.eye_tilt + 0.35 * up * min(a[1] * a[4] + 0.4 * a[15], 1.0) * (1 - min(a[5], 1.0))
    upper: Curve = (x - w, 0.02, x - 0.6 * w, -1.4 * up, x + 0.5 * w, -1.45 * up + 1.5 * max(outer, 0), x + w, outer)
    lower: Curve = (x + w, outer, x + 0.5 * w, 1.35 * low, x - 0.5 * w, 1.35 * low, x - w, 0.02)

    sketch.fill(Layer.BROAD, 0.7, *ellipse(side * 0.5, -0.12 - 0.05 * a[1], 0.36, 0.19))
    sketch.fill(Layer.MIDDLE, 0.84, *ellipse(x - 0.75 * w, -0.06, 0.12, 0.13))
    sketch.fill(Layer.EYEBALL, mix(_WHITE, person.skin, 0.05), upper, lower)
    ix, iy, radius = x + 0.08 * gaze[0], -0.015 + 0.05 * gaze[1], 0.108
    sketch.fill(Layer.IRIS, scaled(_WHITE, 0.72), *spindle(upper, 0.07))
    sketch.fill(Layer.IRIS, scaled(person.iris, 0.6), *ellipse(ix, iy, radius, radius))
    sketch.fill(Layer.IRIS, person.iris, *ellipse(ix, iy + 0.01, 0.8 * radius, 0.8 * radius))
    sketch.fill(Layer.IRIS, BLACK, *ellipse(ix, iy, 0.05, 0.05))
    sketch.fill(Layer.IRIS, (255.0, 255.0, 255.0), *ellipse(ix - 0.035, iy - 0.045, 0.024, 0.024))
    sketch.fill(Layer.FEATURES, mix(BLACK, person.skin, 0.1), *spindle(upper, 0.05))
    _crease(sketch, 1.0, 0.38, lower, 0.03)

    fold, top = 0.055 + 0.02 * a[1] - 0.02 * a[4], -1.4 * up
    lid: Curve = (x - 0.9 * w, -0.01 - fold, x - 0.5 * w, top - fold, x + 0.5 * w, top - fold, x + 1.1 * w, outer - fold)
    _crease(sketch, 1.0, 0.34, lid, 0.03)
    pouch: Curve = (x - 0.9 * w, 0.12, x - 0.4 * w, low + 0.16, x + 0.4 * w, low + 0.16, x + 0.95 * w, 0.1)
    _crease(sketch, 0.12 * person.lines + 0.4 * a[6] + 0.3 * a[7] + 0.2 * a[9], 0.6, pouch, 0.045)
    for y in (-0.09, 0.02, 0.12):
        near, far = x + 1.15 * w, x + 1.95 * w
        foot: Curve = (near, 0.02 + 0.3 * y, x + 1.5 * w, 0.02 + 0.6 * y, x + 1.7 * w, 0.02 + 0.9 * y, far, 0.02 + 1.5 * y)
        _crease(sketch, 0.4 * person.lines + 0.5 * a[6], 0.4, foot, 0.025)


def _brow(sketch: Sketch, person: Person, side: int, a: Units) -> None:
    rest, slope, thick = person.brow_y, person.brow_slope, person.brow_thick
    inner_y = rest + slope - 0.2 * a[1] + 0.17 * a[4] + 0.09 * a[9] - 0.03 * a[2]
    outer_y = rest + 0.05 - 0.5 * slope - 0.19 * a[2] + 0.03 * (a[4] + a[9]) + 0.06 * a[1] * (1 - min(a[2], 1.0))
    arch = rest - person.brow_arch - 0.09 * a[1] - 0.2 * a[2] + 0.1 * a[4] + 0.05 * a[9]
    x0, x3 = side * (0.19 - 0.06 * a[4] - 0.02 * a[9]), side * (person.eye_x + 0.32)
    x1, x2 = side * (0.34 - 0.03 * a[4]), side * (person.eye_x + 0.12)
    middle, half = 0.5 * (inner_y + arch), 0.5 * thick
    top: Curve = (x0, inner_y - half, x1, middle - 0.75 * thick, x2, arch - 0.75 * thick, x3, outer_y)
    bottom: Curve = (x3, outer_y + 0.15 * thick, x2, arch + half, x1, middle + 0.6 * thick, x0, inner_y + half)
    sketch.fill(Layer.FEATURES, person.brow_colour, top, bottom)


def _cheek(sketch: Sketch, person: Person, side: int, a: Units) -> None:
    """The apple of the cheek and the fold from the nose to the mouth's corner."""
    rise, puff = 0.13 * a[6] + 0.08 * a[12] + 0.05 * a[9], 0.05 * (a[6] + a[12])
    sketch.fill(Layer.BROAD, 1.1 + puff, *ellipse(side * 0.6, 0.5 - rise, 0.26, 0.2))
    strength = min(0.35 * person.fold + 0.45 * a[12] + 0.4 * a[10] + 0.4 * a[9] + 0.12 * a[20], 1.0)
    x, y = mouth_corner(person, side, a)
    x0, y0 = side * (person.nose_width + 0.07), person.nose_y - 0.08 - 0.06 * a[9]
    wide = side * (0.08 + 0.06 * a[12] + 0.05 * a[10] + 0.04 * a[9])
    fold: Curve = (x0, y0, x0 + wide, y0 + 0.1, x + wide, y - 0.16, x + side * 0.1, y + 0.02 - 0.08 * a[9])
    if strength > _FAINT:
        sketch.fill(Layer.MIDDLE, 1 - 0.22 * strength, *spindle(fold, 0.12))
    _crease(sketch, strength, 0.42, fold, 0.04)


def _forehead(sketch: Sketch, person: Person, a: Units) -> None:
    """Wrinkles across the forehead (1, 2) and between the brows (4)."""
    for y, width in ((-0.66, 0.5), (-0.8, 0.46)):
        end, top = y - 0.05 * a[1] + 0.06 * (a[1] - a[2]), y - 0.06 - 0.05 * a[1]
        line: Curve = (-width, end, -0.2, top, 0.2, top, width, end)
        _crease(sketch, 0.25 * person.lines + 0.5 * a[1] * (0.4 + 0.6 * min(a[2], 1.0)), 0.5, line, 0.035)
    for x in (-0.065, 0.065):
        frown: Curve = (1.2 * x, -0.44 + 0.06 * a[4], 0.8 * x, -0.38, 0.8 * x, -0.3, 1.15 * x, -0.18)
        _crease(sketch, 0.2 * person.lines + 0.75 * a[4] + 0.3 * a[9], 0.45, frown, 0.035)
    if a[4] > _FAINT:
        sketch.fill(Layer.MIDDLE, 1 - 0.2 * min(a[4], 1.0), *ellipse(0, -0.28, 0.13, 0.1))


def _nose(sketch: Sketch, person: Person, left: Units, right: Units) -> None:
    w, end = person.nose_width, person.nose_y - 0.025 * (left[9] + right[9])
    ridge = smooth([(-0.06, -0.15), (0.06, -0.15), (0.07, end - 0.15), (-0.07, end - 0.15)])
    sketch.fill(Layer.MIDDLE, 1.12, *ridge, lift=0.1)
    sketch.fill(Layer.MIDDLE, 1.13, *ellipse(0, end - 0.1, 0.1, 0.08), lift=0.3)
    for side, a in ((-1, left), (1, right)):
        flank = smooth([(side * 0.1, -0.05), (side * (0.7 * w + 0.03), end - 0.2), (side * 0.5 * w, end - 0.12)])
        sketch.fill(Layer.MIDDLE, 0.84, *flank, lift=0.12)
        wide = side * w * (1 + 0.16 * a[9] + 0.08 * a[12])
        x0, x1, x2, x3 = 0.85 * wide, 1.2 * wide, 1.15 * wide, 0.62 * wide
        _crease(sketch, 1.0, 0.5, (x0, end - 0.19, x1, end - 0.1, x2, end + 0.03, x3, end + 0.03), 0.04, lift=0.15)
        sketch.fill(Layer.FINE, 0.3, *ellipse(0.5 * wide, end - 0.005, 0.36 * abs(wide), 0.034), lift=0.2)
        for y in (-0.08, 0.0, 0.08):
            wrinkle: Curve = (side * 0.01, y + 0.02, side * 0.05, y, side * 0.1, y, side * 0.15, y + 0.06)
            _crease(sketch, a[9], 0.45, wrinkle, 0.035, lift=0.12)
    sketch.fill(Layer.MIDDLE, 0.82, *ellipse(0, end + 0.09, 0.8 * w, 0.07))


def mouth_corner(person: Person, side: int, a: Units) -> Point:
    """Where the mouth's corner lies on one side."""
    narrow = 0.12 * a[26] * max(1 - a[12] - a[20], 0.0) + 0.08 * a[23] + 0.04 * a[17]
    x = person.mouth_width + 0.14 * (a[12] + a[20]) + 0.04 * a[14] - narrow
    lower = 0.17 * a[15] + 0.05 * a[20] + 0.16 * a[26] + 0.02 * a[25]
    return side * x, person.mouth_y + person.mouth_curve + lower - 0.2 * a[12] - 0.06 * a[14]


def _across(left: Point, right: Point, middle: float, full: float) -> Curve:
    """The curve from corner to corner whose middle lies at height `middle`; `full` in 0..1 squares its ends."""
    (x0, y0), (x3, y3) = left, right
    return (x0, y0, x0 * full, (4 * middle - y0) / 3, x3 * full, (4 * middle - y3) / 3, x3, y3)


def _mouth(sketch: Sketch, person: Person, left: Units, right: Units, chin: float) -> None:
    a = {unit: 0.5 * (left[unit] + right[unit]) for unit in left}
    corners = mouth_corner(person, -1, left), mouth_corner(person, 1, right)
    y = person.mouth_y - 0.05 * a[17] - 0.02 * a[9] + 0.02 * a[12]
    top = y - 0.08 * a[10] * (0.3 + a[25]) - 0.03 * a[25] - 0.02 * a[26]
    low = max(y + 0.06 * a[25] + 0.42 * a[26], top)
    press = max(1 - 0.6 * a[23] - 0.3 * a[20] - 0.3 * a[12] - 0.2 * a[17], 0.25)
    thick_top, thick_low = person.lip_upper * press * (1 - 0.25 * a[10]), person.lip_lower * press * (1 + 0.25 * a[17])
    full = 0.5 + 0.4 * min(a[26] + 0.6 * a[25] * (a[20] + a[10]), 1.0)
    roof, floor = _across(*corners, top, full), _across(*corners, low, full)
    _lips(sketch, person, corners, (roof, floor), (top - thick_top, low + thick_low), full)
    if low - top > 0.02:
        bared = min(a[25] * (1.1 * a[12] + 1.2 * a[10] + 0.9 * a[20]), 1.0)
        _inside(sketch, roof, floor, low - top, bared)
    sketch.fill(Layer.FEATURES, scaled(person.lips, 0.38), *spindle(roof, 0.035 if low - top <= 0.02 else 0.02))

    for side, units, (x, cy) in ((-1, left, corners[0]), (1, right, corners[1])):
        tuck = min(0.35 + 0.4 * units[12] + 0.4 * units[15] + 0.6 * units[14] + 0.2 * units[20], 1.0)
        dent = 0.035 + 0.03 * units[14]
        sketch.fill(Layer.FINE, 1 - 0.5 * tuck, *ellipse(x + side * 0.015, cy, dent, dent))
        frown: Curve = (x, cy, x + side * 0.03, cy + 0.06, x + side * 0.05, cy + 0.1, x + side * 0.05, cy + 0.2)
        _crease(sketch, units[15], 0.45, frown, 0.05)
    below = low + thick_low
    sketch.fill(Layer.MIDDLE, 0.78, *ellipse(0, below + 0.07, 0.6 * person.mouth_width, 0.055))
    sketch.fill(Layer.MIDDLE, 1.08, *ellipse(0, 0.5 * (below + chin) + 0.06, 0.2, 0.1))
    _crease(sketch, a[17], 0.5, (-0.17, below + 0.17, -0.08, below + 0.1, 0.08, below + 0.1, 0.17, below + 0.17), 0.05)


def _lips(
    sketch: Sketch,
    person: Person,
    corners: tuple[Point, Point],
    opening: tuple[Curve, Curve],
    edges: tuple[float, float],
    full: float,
) -> None:
    """Both lips between the mouth's opening and their outer edges, whose middles lie at the heights `edges`."""
    ((x0, y0), (x3, y3)), (peak, bottom) = corners, edges
    bow: Curve = (x0, y0, full * x0, (y0 + 3 * peak) / 4 - 0.01, -0.14, peak - 0.03, 0.0, peak + 0.012)
    rest: Curve = (0.0, peak + 0.012, 0.14, peak - 0.03, full * x3, (y3 + 3 * peak) / 4 - 0.01, x3, y3)
    sketch.fill(Layer.FEATURES, scaled(person.lips, 0.82), bow, rest, reverse(opening[0]))
    sketch.fill(Layer.FEATURES, person.lips, opening[1], reverse(_across(*corners, bottom, full)))


def _inside(sketch: Sketch, roof: Curve, floor: Curve, gap: float, bared: float) -> None:
    """What an open mouth shows: darkness, the tongue, and as much of the upper teeth as is `bared` (0..1)."""
    sketch.fill(Layer.FEATURES, _CAVITY, roof, reverse(floor))
    if gap > 0.2:
        sketch.fill(Layer.FEATURES, _TONGUE, between(roof, floor, 0.72), reverse(floor))
    if bared > 0.1:
        part = min((0.04 + 0.13 * bared) / gap, 0.95)
        teeth = mix(_CAVITY, _TEETH, min(0.3 + bared, 1.0))
        sketch.fill(Layer.FEATURES, teeth, roof, reverse(between(roof, floor, part)))
