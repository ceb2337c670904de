from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.emotions import EMOTIONS_8
from fl_client.webcam import paint
from fl_client.webcam.badge import Badge, Tone
from fl_client.webcam.keys import View
from fl_client.webcam.overlay import ALARM, CALM, CAUTION, COLOURS, Status, draw, letterboxed, letters_for
from fl_client.webcam.paint import Area
from fl_client.webcam.quotes import OURS
from fl_client.webcam.seen import UNSURE, Face, faces_of

from .conftest import CLASSES

PROMISES = ("record-level epsilon 8", "client-level epsilon 12.5")
BADGE = Badge(PROMISES[:1], Tone.PRIVATE, "18 of 20 devices, only their sum seen", "signature verified")
STATUS = Status("run demo round 12 #34", BADGE, fps=23.4, latency=41.0)
OPEN = Status("run demo round 12 #34", Badge(("NON-PRIVATE",), Tone.ALARM), fps=23.4)
MIRRORED = View(mirror=True)
CORNER = np.zeros((6, 6), dtype=np.float32)
CORNER[0, 0] = 3.0
"""Speaks for the emotion at the upper left of the face, and nowhere else."""

BOXES = st.tuples(st.integers(-300, 900), st.integers(-300, 700), st.integers(1, 800), st.integers(1, 800))


def face(box: tuple[int, int, int, int], label: str = "happiness", share: float = 0.87) -> Face:
    others = [(name, (1 - share) / (len(CLASSES) - 1)) for name in CLASSES if name != label]
    return Face(box, ((label, share), *others), label)


def plain(rows: int, columns: int, level: int = 128) -> NDArray[np.uint8]:
    return np.full((rows, columns, 3), level, dtype=np.uint8)


def count(canvas: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((canvas == np.array(colour, dtype=np.uint8)).all(axis=2).sum())


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 500), st.integers(1, 700), st.lists(BOXES, max_size=6), st.booleans(), st.booleans())
def test_any_frame_and_any_boxes_can_be_drawn(
    rows: int, columns: int, boxes: list[tuple[int, int, int, int]], mirror: bool, private: bool
) -> None:
    picture = plain(rows, columns)
    view = View(heatmap=True, mirror=mirror, numbers=True)
    status = replace(STATUS if private else OPEN, quote="Keep this moment for later.", mood="happiness")
    canvas = draw(picture, [replace(face(box), track=7, heatmap=CORNER) for box in boxes], status, view)
    assert canvas.shape == picture.shape
    assert canvas.dtype == np.uint8
    assert (picture == 128).all()


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(120, 160), (480, 640), (1080, 1920)])
def test_a_model_without_privacy_cannot_be_overlooked(size: tuple[int, int], level: int) -> None:
    canvas = draw(plain(*size, level), [], OPEN)
    assert count(canvas[: size[0] // 4, : size[1] // 2], ALARM) > 0.001 * size[0] * size[1]
    assert count(draw(plain(*size, level), [], STATUS), ALARM) == 0


@pytest.mark.parametrize("level", [0, 255])
def test_status_is_light_on_dark_whatever_the_frame_shows(level: int) -> None:
    corner = draw(plain(480, 640, level), [], STATUS)[:20, :100].astype(int)
    assert corner.max() >= 250
    assert np.median(corner) <= 70


@pytest.mark.parametrize("level", [0, 255])
def test_label_and_box_stand_out_whatever_the_frame_shows(level: int) -> None:
    canvas = draw(plain(480, 640, level), [face((200, 150, 160, 160))], STATUS)
    assert count(canvas[110:150, 195:400], COLOURS["happiness"]) > 500
    assert count(canvas[110:150, 195:400], paint.BLACK) > 50
    edge = canvas[155:300, 196:206]
    assert count(edge, COLOURS["happiness"]) > 100


def test_letters_grow_with_the_frame() -> None:
    small, large = (
        count(draw(plain(rows, columns), [face((columns // 3, rows // 3, rows // 3, rows // 3))], STATUS), COLOURS["happiness"])
        for rows, columns in ((480, 640), (960, 1280))
    )
    assert large == pytest.approx(4 * small, rel=0.15)


def test_the_bars_are_as_long_as_their_probabilities() -> None:
    def length(share: float) -> int:
        canvas = draw(plain(480, 640), [face((200, 100, 200, 200), share=share)], STATUS)
        return count(canvas[303:400], COLOURS["happiness"])

    assert length(0.5) == pytest.approx(2 * length(0.25), rel=0.05)
    assert length(1.0) == pytest.approx(4 * length(0.25), rel=0.05)


@pytest.mark.parametrize("box", [(0, 0, 200, 200), (0, 30, 200, 200), (440, 0, 200, 200), (560, 5, 70, 70)])
def test_label_and_status_do_not_hide_each_other(box: tuple[int, int, int, int]) -> None:
    free = draw(plain(480, 640), [face((200, 200, 200, 200))], STATUS)
    canvas = draw(plain(480, 640), [face(box)], STATUS)
    label = count(free[170:199, 198:402], COLOURS["happiness"])
    assert count(canvas[:120], COLOURS["happiness"]) >= label
    for panel in (np.s_[:18, :140], np.s_[22:40, :140], np.s_[:18, 580:]):
        assert count(canvas[panel], COLOURS["happiness"]) == 0


def test_a_mirrored_frame_mirrors_picture_and_box_and_not_the_text() -> None:
    picture = plain(480, 640)
    picture[:, :320] = 60
    straight = draw(picture, [face((40, 200, 150, 150))], STATUS)
    mirrored = draw(picture, [face((40, 200, 150, 150))], STATUS, MIRRORED)
    assert (mirrored[400, 630] == 60).all()
    assert (mirrored[400, 10] == 128).all()
    assert count(straight[230:340, 36:46], COLOURS["happiness"]) > 0
    assert count(mirrored[230:340, 446:454], COLOURS["happiness"]) > 0
    assert count(mirrored[230:340, :300], COLOURS["happiness"]) == 0
    letters = straight[:20, :120] > 200
    assert ((mirrored[:20, :120] > 200) != letters).sum() < 0.05 * letters.sum()


def test_a_frame_without_faces_says_so() -> None:
    empty = draw(plain(480, 640), [], STATUS)
    assert count(empty[380:], (128, 128, 128)) < 100 * 640
    one = draw(plain(480, 640), [face((200, 100, 100, 100))], STATUS)
    assert count(one[380:], (128, 128, 128)) == 100 * 640


def test_a_face_below_the_least_confidence_is_unsure() -> None:
    probabilities = np.array([[0.4, 0.35, 0.25], [0.1, 0.1, 0.8]], dtype=np.float32)
    boxes = [(0, 0, 10, 10), (20, 0, 10, 10)]
    unsure, sure = faces_of(boxes, probabilities, ("anger", "fear", "neutral"), least=0.5)
    assert (unsure.label, sure.label) == (UNSURE, "neutral")
    assert [name for name, _ in unsure.probabilities] == ["anger", "fear", "neutral"]
    assert [name for name, _ in sure.probabilities] == ["neutral", "anger", "fear"]
    assert unsure.confidence == pytest.approx(0.4)
    assert faces_of(boxes, probabilities, ("anger", "fear", "neutral"))[0].label == "anger"


def test_every_emotion_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(EMOTIONS_8)
    assert len(set(COLOURS.values())) == len(EMOTIONS_8)


@settings(deadline=None)
@given(st.text(alphabet="abcXYZ 0123%#-", min_size=0, max_size=40), st.integers(8, 40), st.integers(0, 300))
def test_fitted_text_fits(text: str, size: int, width: int) -> None:
    shown, fits = paint.fitted(text, size, width)
    assert fits <= size
    assert paint.text_width(shown, fits) <= width or not shown


def test_text_beyond_the_frame_is_cut_and_not_wrapped() -> None:
    canvas = plain(20, 30, 0)
    for x, y in ((-10, -5), (25, 15), (100, 100), (-500, 0)):
        paint.write(canvas, "neutral", x, y, 12, paint.WHITE)
    whole = plain(60, 90, 0)
    paint.write(whole, "neutral", 30 - 10, 20 - 5, 12, paint.WHITE)
    cut = plain(20, 30, 0)
    paint.write(cut, "neutral", -10, -5, 12, paint.WHITE)
    np.testing.assert_array_equal(cut, whole[20:40, 30:60])


def test_areas_meet_only_where_they_share_a_pixel() -> None:
    area = Area(10, 10, 5, 5)
    assert area.overlaps(Area(14, 14, 5, 5))
    assert not area.overlaps(Area(15, 10, 5, 5))
    assert not area.overlaps(Area(10, 5, 5, 5))
    assert Area(-3, 99, 5, 5).inside(20, 20) == Area(0, 15, 5, 5)


@pytest.mark.parametrize("level", [(255, 255, 255), (0, 0, 0), *COLOURS.values()])
def test_text_on_a_colour_is_readable(level: tuple[int, int, int]) -> None:
    def luminance(colour: tuple[int, int, int]) -> float:
        """Relative luminance, WCAG 2.1."""
        blue, green, red = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour))
        return 0.0722 * blue + 0.7152 * green + 0.2126 * red

    light, dark = sorted((luminance(level), luminance(paint.readable_on(level))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3.0


def test_letterboxing_keeps_the_whole_picture_in_proportion() -> None:
    picture = plain(100, 200, 200)
    boxed = letterboxed(picture, (100, 100))
    assert boxed.shape == (100, 100, 3)
    assert (boxed[25:75] == 200).all()
    assert (boxed[:24] == 0).all()
    assert (boxed[76:] == 0).all()
    assert letterboxed(picture, (200, 100)) is picture


def test_two_promises_are_two_lines_and_never_one() -> None:
    one, two = (draw(plain(480, 640), [], replace(STATUS, badge=replace(BADGE, promises=PROMISES[:n]))) for n in (1, 2))
    height = [int((canvas[:120, 1] == CALM).all(axis=1).sum()) for canvas in (one, two)]
    assert height[1] - height[0] == paint.line_height(14)


@pytest.mark.parametrize(("tone", "colour"), [(Tone.PRIVATE, CALM), (Tone.PUBLIC, CAUTION), (Tone.ALARM, ALARM)])
def test_the_badge_has_the_colour_of_its_tone(tone: Tone, colour: paint.Colour) -> None:
    canvas = draw(plain(480, 640), [], replace(STATUS, badge=replace(BADGE, tone=tone)))
    assert (canvas[5:30, 1] == colour).all()
    assert sum(count(canvas, other) > 0 for other in (CALM, CAUTION, ALARM)) == 1


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (1080, 1920)])
def test_the_badge_leaves_three_quarters_of_the_frame_free(size: tuple[int, int]) -> None:
    rows, columns = size
    canvas = draw(plain(rows, columns), [face((0, rows - 9, 9, 9))], replace(STATUS, badge=replace(BADGE, promises=PROMISES)))
    middle = canvas[rows * 3 // 10 : rows * 6 // 10]
    assert (middle == 128).all()


def test_on_a_low_frame_the_promise_stays_and_the_rest_goes() -> None:
    low = draw(plain(60, 640), [], STATUS)
    assert count(low[:30, :6], CALM) > 0
    alone = draw(plain(60, 640), [], replace(STATUS, version="another", badge=replace(BADGE, devices="other", signature="")))
    assert (low[:, :300] == alone[:, :300]).all()


def test_latency_is_shown_where_it_is_known() -> None:
    with_it, without = (draw(plain(480, 640), [], replace(STATUS, latency=latency))[:60, 540:] for latency in (41.0, None))
    assert (with_it[22:40] != 128).sum() > 2 * (without[22:40] != 128).sum()


def test_the_number_of_a_face_is_shown_when_asked_for() -> None:
    someone = replace(face((200, 150, 160, 160)), track=3)
    hidden, shown = (draw(plain(480, 640), [someone], STATUS, View(numbers=numbers)) for numbers in (False, True))
    label = COLOURS["happiness"]
    assert count(shown[110:150], label) > count(hidden[110:150], label)


def test_an_unsure_face_names_no_share() -> None:
    low, high = (draw(plain(480, 640), [replace(face((200, 150, 160, 160), share=s), label=UNSURE)], STATUS) for s in (0.2, 0.4))
    assert (low[110:150] == high[110:150]).all()


def test_a_heatmap_glows_where_it_speaks_for_the_emotion_and_follows_a_mirror() -> None:
    someone = replace(face((200, 200, 120, 120)), heatmap=CORNER)
    plainly = draw(plain(480, 640), [someone], STATUS, View(heatmap=True)).astype(int)
    off = draw(plain(480, 640), [someone], STATUS).astype(int)
    assert (off[230:300, 210:300] == 128).all()
    assert np.abs(plainly[212, 212] - 128).max() > 40
    assert np.abs(plainly[290, 290] - 128).max() <= 1
    mirrored = draw(plain(480, 640), [someone], STATUS, View(heatmap=True, mirror=True)).astype(int)
    assert np.abs(mirrored[212, 640 - 212] - 128).max() > 40
    assert np.abs(mirrored[212, 330] - 128).max() <= 1


def test_a_heatmap_covers_what_the_model_saw_beyond_the_box() -> None:
    someone = replace(face((200, 200, 100, 100)), heatmap=np.ones((6, 6), dtype=np.float32))
    tight, wide = (draw(plain(480, 640), [someone], replace(STATUS, crop_margin=m), View(heatmap=True)) for m in (0.0, 0.2))
    assert (tight[250, 185] == 128).all()
    assert (wide[250, 185] != 128).any()
    assert (wide[250, 175] == 128).all()


@pytest.mark.parametrize("heat", [np.zeros((6, 6)), -np.ones((6, 6)), np.full((6, 6), np.nan)])
def test_a_map_that_speaks_for_nothing_paints_nothing(heat: NDArray[np.float64]) -> None:
    canvas = plain(40, 40)
    paint.glow(canvas, heat.astype(np.float32), Area(0, 0, 40, 40))
    assert (canvas == 128).all()


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (1080, 1920)])
def test_every_line_of_ours_fits_on_the_screen_in_full(size: tuple[int, int]) -> None:
    rows, columns = size
    letters = letters_for(plain(rows, columns))
    pad, side = letters // 2, round(1.7 * letters)
    for emotion, lines in OURS.items():
        assert len(lines) >= 3, emotion
        for line in lines:
            text, fits = paint.fitted(line, letters, columns - 3 * pad - side)
            assert text == line
            assert fits >= 0.8 * letters


def test_a_quote_stands_under_the_bars_and_not_on_them() -> None:
    quoted = replace(STATUS, quote="Keep this moment for later.", mood="happiness")
    low = face((200, 330, 140, 140))
    with_it, without = (draw(plain(480, 640), [low], status) for status in (quoted, STATUS))
    bar = COLOURS["happiness"]
    assert count(with_it[:440], bar) >= count(without[:300], bar)
    assert count(with_it[445:], bar) < 100
