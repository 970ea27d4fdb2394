"""Results drawn into pictures: seen where they are, readable, never outside, whatever the boxes are."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from edgeinfer.messages import Detection
from edgeinfer.pictures import drawing, lettering
from edgeinfer.pictures.drawing import annotate
from edgeinfer.types import Image

NUMBER = st.floats(allow_nan=False, width=32) | st.floats(-2000, 2000)
DETECTION = st.builds(
    Detection,
    class_id=st.integers(0, 10_000),
    label=st.text(max_size=100),
    score=st.floats(0, 1),
    box=st.tuples(NUMBER, NUMBER, NUMBER, NUMBER),
    track_id=st.integers(0, 1 << 60),
    keypoints=st.lists(st.tuples(NUMBER, NUMBER, st.floats(0, 1)), max_size=5),
    angle=NUMBER,
)


def blank(width: int, height: int) -> Image:
    return np.zeros((height, width, 3), np.uint8)


def one(**fields: Any) -> Detection:
    return structs.replace(Detection(class_id=0, label="x", score=0.5, box=(20.4, 30.0, 120.0, 80.0)), **fields)


def labels(detections: list[Detection], image: Image) -> list[drawing.Place]:
    """Where the labels are put."""
    taken: list[drawing.Place] = []
    for found in detections:
        box = drawing._around(drawing._corners(found, 1.0))
        drawing._label(image.copy(), found, box, drawing.look_for(image), taken)
    return taken


@pytest.mark.slow
@given(st.lists(DETECTION, max_size=6), st.integers(1, 200), st.integers(1, 200), st.floats(0.01, 10))
def test_any_box_can_be_drawn_and_no_label_lies_outside(
    detections: list[Detection], width: int, height: int, scale: float
) -> None:
    image = blank(width, height)
    drawn = annotate(image, detections, scale)
    assert drawn.shape == image.shape
    assert drawn.flags.c_contiguous
    assert not image.any(), "drawn into a copy"
    for x1, y1, x2, y2 in labels(detections, image):
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height


@given(st.lists(st.floats(0.1, 0.9), min_size=4, max_size=4), st.integers(-3, 3), st.integers(-3, 3))
def test_a_box_outside_the_picture_leaves_it_as_it_is(inside: list[float], right: int, down: int) -> None:
    x1, x2 = sorted(200 * (share + 2 * right) for share in inside[:2])
    y1, y2 = sorted(100 * (share + 2 * down) for share in inside[2:])
    drawn = annotate(blank(200, 100), [one(box=(x1, y1, x2, y2))])
    assert drawn.any() == (right == down == 0)


def test_a_box_has_a_colour_of_its_class_and_is_not_filled() -> None:
    image = blank(200, 200)
    drawn, other = (annotate(image, [one(class_id=number)]) for number in (0, 1))
    for corner in ((30, 20), (80, 120), (30, 120), (80, 20)):
        assert drawn[corner].any()
        assert drawn[corner].tolist() != other[corner].tolist()
    assert not drawn[70, 100].any()
    assert not drawn[83:].any()
    colours = {lettering.strong(number) for number in range(30)}
    assert len(colours) == 30


def test_the_label_stands_above_its_box_and_inside_where_there_is_no_room() -> None:
    image = blank(200, 200)
    drawn = annotate(image, [one(box=(20, 50, 120, 90))])
    assert drawn[35:49, 22:60].any(axis=2).mean() > 0.7, "filled"
    assert not drawn[:30].any()
    assert annotate(image, [one(box=(20, -50, 120, 90))])[1:12, 22:60].any(axis=2).mean() > 0.7


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, 2.0), (-4.0, 1.0)])
def test_labels_of_boxes_on_one_another_lie_beside_one_another(shift: tuple[float, float]) -> None:
    image, (right, down) = blank(640, 360), shift
    boxes = [(200 + n * right, 100 + n * down, 400 + n * right, 300 + n * down) for n in range(6)]
    places = labels([one(box=box, label="suitcase") for box in boxes], image)
    assert len(places) == 6
    assert not any(drawing._overlap(a, b) for i, a in enumerate(places) for b in places[:i])


@pytest.mark.parametrize("number", range(60))
def test_letters_stand_out_from_what_is_behind_them(number: int) -> None:
    colour = lettering.strong(number)
    assert lettering.contrast(colour, lettering.readable_on(colour)) >= 4.5


def test_contrast_is_as_wcag_defines_it() -> None:
    assert lettering.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert lettering.contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)
    assert lettering.contrast((0, 0, 255), (255, 255, 255)) == pytest.approx(4.0, abs=0.01), "BGR: red on white"


def test_lines_and_letters_grow_with_the_picture() -> None:
    looks = [drawing.look_for(blank(16, height * 16 // 9)) for height in (1, 9)]
    looks += [drawing.look_for(blank(width, height)) for width, height in ((640, 360), (1280, 720), (3840, 2160))]
    assert [look.line for look in looks] == sorted(look.line for look in looks)
    assert looks[0].letters == 0.4, "small ones could not be read"
    assert looks[-1].letters > 2 * looks[-3].letters
    thin, thick = (
        annotate(blank(w, h), [one(box=(0.25 * w, h / 2, 0.75 * w, h))]) for w, h in ((640, 360), (2560, 1440))
    )
    assert thick.any(axis=2).mean() == pytest.approx(thin.any(axis=2).mean(), rel=0.8)


def test_a_scaled_copy_has_its_boxes_where_they_belong() -> None:
    drawn = annotate(blank(320, 180), [one(box=(320, 160, 560, 320))], scale=0.5)
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (columns.min(), columns.max(), rows.max()) == (160, 280, 160)


def test_a_track_a_keypoint_and_an_angle_are_shown() -> None:
    image = blank(640, 360)
    plain = annotate(image, [one(box=(200, 100, 300, 200))])
    assert drawing.caption(one(track_id=7)) == "x #7 0.50"
    dotted = annotate(image, [one(box=(200, 100, 300, 200), keypoints=[(250, 150, 0.9), (270, 150, 0.0)])])
    assert dotted[150, 250].any()
    assert not dotted[150, 270].any(), "a score of 0 is no point"
    turned = annotate(image, [one(box=(200, 100, 300, 200), angle=np.pi / 4)])
    assert plain[200, 300].any()
    assert not turned[200, 300].any()
    assert turned[150, 250 + 71].any(), "the corner of a square that is turned by 45° lies beside it"
    down = annotate(image, [one(box=(200, 140, 300, 160), angle=np.pi / 6)])
    assert down[150 + 25, 250 + 43 - 4 : 250 + 43 + 8].any(), "clockwise as it is seen"


def test_a_picture_that_is_too_small_for_letters_has_its_boxes() -> None:
    assert annotate(blank(9, 9), [one(box=(2, 2, 6, 6))])[2, 2:7].any(axis=1).all()
    narrow = annotate(blank(60, 200), [one(box=(2, 100, 58, 190), label="a very long label for so narrow a picture")])
    assert narrow[80:98].any()


def test_no_more_labels_are_written_than_can_be_read() -> None:
    boxes = [(float(x), float(y), x + 10.0, y + 10.0) for x in range(0, 1200, 30) for y in range(0, 700, 20)]
    drawn = annotate(blank(1280, 720), [one(box=box) for box in boxes])
    assert all(drawn[int(y1), int(x1)].any() for x1, y1, *_ in boxes)


# --- letters ---


@pytest.mark.parametrize(
    ("label", "written"),
    [
        ("person", "person"),
        ("Fußgänger", "Fussganger"),
        ("Ørsted žába", "Orsted zaba"),
        ("собака", "sobaka"),
        ("Щука Йод", "Shchuka Iod"),
        ("γάτα", "gata"),
        ("犬 dog", "dog"),
        ("犬", ""),
        ("a\n b\tc", "a b c"),
        ("½ kg", "1/2 kg"),
        ("x" * 200, "x" * 78 + ".."),
    ],
)
def test_an_old_opencv_gets_labels_spelled_in_ascii(label: str, written: str) -> None:
    assert lettering.writable(label, every_script=False) == written


@given(st.text())
def test_what_an_old_opencv_gets_is_ascii_and_what_a_new_one_gets_can_be_encoded(label: str) -> None:
    assert lettering.writable(label, every_script=False).isascii()
    assert len(lettering.writable(label, every_script=True).encode()) <= 4 * lettering.LONGEST


def test_a_class_whose_name_can_not_be_written_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "writable", lambda text: "")
    assert drawing.caption(one(label="犬", class_id=12)) == "class 12 0.50"


@pytest.mark.skipif(not lettering.EVERY_SCRIPT, reason="OpenCV before 5.0 writes ASCII only")
def test_a_new_opencv_writes_every_script() -> None:
    pictures = []
    for line in ("犬", "猫", "ж", "é"):
        picture = blank(60, 60)
        lettering.write(picture, lettering.writable(line), (10, 40), 1.0, lettering.WHITE)
        pictures.append(picture.tobytes())
    assert len(set(pictures)) == 4
    assert lettering.writable("Höhe") == "Höhe"


def test_half_a_character_does_no_harm() -> None:
    """OpenCV 5.0 dies of one."""
    assert annotate(blank(200, 100), [one(label="a\ud800b\x00", box=(10, 50, 90, 90))]).any()


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=60), st.integers(0, 300))
def test_a_line_is_cut_to_the_room_there_is(line: str, room: int) -> None:
    cut = lettering.shortened(line, room, 0.5)
    assert not cut or lettering.width(cut, 0.5) <= room
    assert cut in (line, "") or (cut.endswith("..") and line.startswith(cut[:-2]))


def test_a_line_stays_within_its_size_and_the_rim_around_it() -> None:
    picture, look = blank(300, 60), drawing.look_for(blank(640, 360))
    lettering.write(picture, "Agjpqy", (10, 30), look.letters, lettering.WHITE)
    rows, columns = np.nonzero(picture.any(axis=2))
    above, below = lettering.heights(look.letters)
    assert 10 - look.pad <= columns.min()
    assert columns.max() < 10 + lettering.width("Agjpqy", look.letters) + look.pad
    assert 30 - above - look.pad <= rows.min()
    assert rows.max() < 30 + below + look.pad
    assert cv2.countNonZero(picture[..., 0]) > 50
