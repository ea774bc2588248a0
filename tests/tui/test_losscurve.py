"""The curves are drawn where the losses lie, and validation has a shape of its own."""

from __future__ import annotations

import pytest

from localllm.tui.widgets.losscurve import LEFT, MARK, draw, scale_of


def cells(lines: list[str]) -> list[str]:
    return [line[LEFT:] for line in lines[:-1]]


def test_a_falling_loss_goes_from_the_top_left_to_the_bottom_right():
    lines = draw([(step, 3.0 - step / 50) for step in range(1, 101)], [], 100, 60, 10)
    assert len(lines) == 10
    assert all(len(line) <= 60 for line in lines)
    picture = cells(lines)
    assert picture[0][0] > " "
    assert picture[-1].rstrip()[-1] > " "
    assert len(picture[-1].rstrip()) == 60 - LEFT
    assert not picture[0][20:].strip()
    assert not picture[-1][:30].strip()


def test_a_run_that_is_half_done_leaves_the_rest_empty():
    picture = cells(draw([(step, 2.0 + step % 2) for step in range(1, 51)], [], 100, 67, 8))
    assert max(len(line.rstrip()) for line in picture) == (67 - LEFT) // 2 + 1


def test_validation_is_marked_where_it_was_measured():
    picture = cells(draw([(1, 2.0), (100, 1.0)], [(0, 2.0), (50, 1.6), (100, 1.0)], 100, 67, 11))
    assert [(y, x) for y, line in enumerate(picture) for x, cell in enumerate(line) if cell == MARK] == [
        (0, 0), (4, 30), (9, 59),
    ]  # fmt: skip


def test_losses_far_apart_are_on_a_logarithmic_scale_and_it_is_said():
    assert scale_of([0.01, 1.0]).log
    assert scale_of([0.01, 1.0]).place(0.1) == pytest.approx(0.5)
    assert not scale_of([0.5, 1.0]).log
    assert "logarithmic" in draw([(1, 0.01), (2, 1.0)], [], 2, 60, 8)[-1]


@pytest.mark.parametrize(
    "train, validation, width, height",
    [([], [], 60, 10), ([(1, 2.0)], [], 60, 10), ([(1, 2.0), (2, 1.0)], [], 12, 10), ([(1, 2.0), (2, 1.0)], [], 60, 2),
     ([(1, float("nan")), (2, float("inf")), (3, -1.0)], [(0, 2.0)], 60, 10)],
)  # fmt: skip
def test_nothing_is_drawn_where_there_is_nothing_or_no_room(train, validation, width, height):
    assert draw(train, validation, 10, width, height) == []


def test_equal_losses_are_a_line_in_the_middle():
    picture = cells(draw([(1, 2.0), (10, 2.0)], [], 10, 60, 8))
    assert [y for y, line in enumerate(picture) if line.strip()] == [3]
