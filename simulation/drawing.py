"""A whole person as a `Sketch`: body, head, hair, beard and glasses, with the features of `simulation.features`.

`simulation.synthetic_faces` paints it into training crops, `simulation.synthetic_scene` into pictures of a room.
"""

from simulation.expressions import Expression
from simulation.features import BLACK, add_features, mouth_corner
from simulation.people import Person, mix, scaled
from simulation.sketch import Curve, Layer, Sketch, ellipse, smooth, spindle


def sketch_person(person: Person, expression: Expression, light: float = 0.0) -> Sketch:
    """Head, neck and shoulders.

    Args:
        person: who is drawn.
        expression: what the face does.
        light: where the light comes from, -1 left to 1 right.
    """
    sketch = Sketch()
    moved = expression.middle()
    chin = person.chin + 0.2 * moved[26] - 0.03 * moved[17]
    _body(sketch, person)
    _head(sketch, person, chin, light)
    _beard(sketch, person, expression, chin)
    add_features(sketch, person, expression, chin)
    _hair(sketch, person)
    _glasses(sketch, person)
    return sketch


def _mirrored(half: list[tuple[float, float]]) -> list[Curve]:
    """The closed outline whose right half is `half`, from top to bottom; points with x = 0 are not repeated."""
    return smooth(half + [(-x, y) for x, y in reversed(half) if x > 0])


def _body(sketch: Sketch, person: Person) -> None:
    """Neck, shoulders, the hair behind the head and the ears."""
    chin, jaw, skin = person.chin, person.width * person.jaw, person.skin
    if person.hair == "long":
        w = person.width * person.hair_width * 1.03
        back = [(0.0, -1.85), (0.7 * w, -1.5), (w, -0.6), (1.08 * w, 0.8), (w, 2.2)]
        sketch.fill(Layer.BACK, scaled(person.hair_colour, 0.8), *_mirrored(back), bulge=0.0)
    neck = [(0.7 * jaw, 0.8), (0.66 * jaw, chin + 0.4), (0.9 * jaw, chin + 0.8)]
    sketch.fill(Layer.BACK, scaled(skin, 0.62), *_mirrored(neck), bulge=0.0)
    shirt = [(0.0, chin + 0.75), (0.5, chin + 0.5), (1.6, chin + 0.8), (2.0, chin + 1.5), (2.05, 8.0)]
    sketch.fill(Layer.BACK, person.shirt, *_mirrored(shirt), bulge=0.0)
    for x in (-person.width, person.width):
        sketch.fill(Layer.BACK, scaled(skin, 0.8), *ellipse(x, 0.2, 0.15, 0.3), bulge=0.0)
        sketch.fill(Layer.BACK, scaled(skin, 0.6), *ellipse(x, 0.2, 0.07, 0.18), bulge=0.0)


def _head(sketch: Sketch, person: Person, chin: float, light: float) -> None:
    """The head's outline and its rounding in the light."""
    w, jaw = person.width, person.width * person.jaw
    half = [(0.0, -1.5), (0.62 * w, -1.32), (0.94 * w, -0.75), (w, 0.05), (0.965 * w, 0.6), (jaw, 1.12)]
    outline = _mirrored([*half, (0.55 * jaw, chin - 0.14), (0.0, chin)])
    sketch.fill(Layer.HEAD, person.skin, *outline, bulge=0.0)
    sketch.fill(Layer.BROAD, 0.74, *outline, bulge=0.0)
    sketch.fill(Layer.BROAD, 1.0, *ellipse(0.1 * light, 0.25, 0.84 * w, 1.45), bulge=0.0)
    toward = 1.0 if light > 0 else -1.0
    sketch.fill(Layer.BROAD, 1 - 0.16 * abs(light), *ellipse(-toward * 0.5 * w, 0.3, 0.33 * w, 1.2), bulge=0.5)
    sketch.fill(Layer.BROAD, 1 + 0.1 * abs(light), *ellipse(toward * 0.45 * w, 0.3, 0.33 * w, 1.1), bulge=0.5)
    sketch.fill(Layer.BROAD, 1.06, *ellipse(0.0, -0.85, 0.5, 0.25))


def _beard(sketch: Sketch, person: Person, expression: Expression, chin: float) -> None:
    y, w, jaw = person.mouth_y, person.width, person.width * person.jaw
    colour = mix(person.hair_colour, person.skin, 0.15)
    above = person.nose_y + 0.12
    if person.beard in ("stubble", "full"):
        if person.beard == "stubble":
            colour = mix(person.skin, person.hair_colour, 0.22)
        inner = [(0.0, above), (0.45, y - 0.28), (0.55, y - 0.12), (0.86 * w, 0.45)]
        outer = [(0.99 * w, 0.35), (0.965 * w, 0.6), (jaw, 1.12), (0.55 * jaw, chin - 0.14), (0.0, chin)]
        sketch.fill(Layer.FACE, colour, *_mirrored(inner + outer), bulge=0.3)
    if person.beard in ("moustache", "goatee"):
        tips = [mouth_corner(person, side, expression.side(column)) for column, side in ((0, -1), (1, 1))]
        (x0, y0), (x3, y3) = ((0.8 * x, 0.7 * v + 0.3 * y) for x, v in tips)
        middle = y - person.lip_upper - 0.08 * expression.middle()[10]
        rim = [(-0.06, above), (0.06, above), (x3, y3 - 0.13), (x3 + 0.1, y3 + 0.06), (0.0, middle + 0.04)]
        sketch.fill(Layer.FACE, colour, *smooth([*rim, (x0 - 0.1, y0 + 0.06), (x0, y0 - 0.13)]))
    if person.beard == "goatee":
        tuft = [(0.24, y + 0.22), (0.3, chin - 0.12), (0.0, chin)]
        sketch.fill(Layer.FACE, colour, *_mirrored(tuft), bulge=0.6)


def _hair(sketch: Sketch, person: Person) -> None:
    if person.hair == "bald":
        return
    w, wide = person.width, person.width * person.hair_width
    ends = {"long": 1.2, "curly": 0.45}.get(person.hair, 0.05)
    high = -1.95 if person.hair == "curly" else -1.78
    left, middle, right = person.hairline
    outer = [(wide, ends), (1.04 * wide, -0.7), (0.72 * wide, high + 0.28), (0.0, high)]
    outer = [(-x, y) for x, y in outer] + outer[-2::-1]
    thin = 0.9 if person.hair == "long" else 0.985
    edge = [(thin * w, ends - 0.15), (0.93 * w, -0.45), (0.66 * w, right + 0.12), (0.25 * w, 0.4 * right + 0.6 * middle)]
    edge += [(-0.25 * w, 0.4 * left + 0.6 * middle), (-0.66 * w, left + 0.12), (-0.93 * w, -0.45), (-thin * w, ends - 0.15)]
    sketch.fill(Layer.FRONT, person.hair_colour, *smooth(outer + edge), bulge=0.25)
    for k in range(6):
        x, end = -0.7 + 0.28 * k, middle - 0.08
        strand: Curve = (0.5 * x, high + 0.15, 0.9 * x, high + 0.35, 1.1 * x, end - 0.3, 1.15 * x, end)
        sketch.fill(Layer.FRONT, scaled(person.hair_colour, 1.12 if k % 2 else 0.9), *spindle(strand, 0.05), bulge=0.25)


def _glasses(sketch: Sketch, person: Person) -> None:
    if person.glasses == "none":
        return
    for side in (-1, 1):
        x = side * person.eye_x
        if person.glasses == "round":
            rim, hole = ellipse(x, 0.03, 0.36, 0.32), ellipse(x, 0.03, 0.32, 0.28)
        else:
            rim = tuple(smooth([(x - 0.37, -0.2), (x + 0.37, -0.2), (x + 0.34, 0.27), (x - 0.34, 0.27)]))
            hole = tuple(smooth([(x - 0.33, -0.16), (x + 0.33, -0.16), (x + 0.3, 0.23), (x - 0.3, 0.23)]))
        sketch.fill(Layer.FRONT, BLACK, *rim, hole=hole, lift=0.12)
        hinge, ear = side * (person.eye_x + 0.29), side * person.width
        temple: Curve = (hinge, -0.05, side * 0.9, -0.06, side * 0.95, -0.04, ear, 0.0)
        sketch.fill(Layer.FRONT, BLACK, *spindle(temple, 0.05), bulge=0.6)
    sketch.fill(Layer.FRONT, BLACK, *spindle((-0.16, 0.0, -0.06, -0.07, 0.06, -0.07, 0.16, 0.0), 0.05), lift=0.15)
