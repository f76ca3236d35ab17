"""Labels of the plot of quality against cost lie apart."""

import re

import msgspec
import pytest

from jettison.decide.report_labels import Box, place_labels
from jettison.decide.report_pareto import quality_against_cost

from .report_example import example_decision


@pytest.mark.parametrize("width", [390, 960])
def test_labels_of_the_plot_do_not_lie_on_one_another(width: int) -> None:
    """The texts' boxes, from their places and 6.7 px a character, as far as they can be told."""
    svg = str(quality_against_cost(example_decision(), width=width, height=420))
    label = r'<text class="label[^"]*" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)<'
    found = re.findall(label, svg)
    assert len(found) == 5
    left = {"start": 0.0, "middle": 3.35, "end": 6.7}
    lefts = [float(x) - left[anchor] * len(t) for x, _, anchor, t in found]
    boxes = [
        Box(x0, float(y) - 11, x0 + 6.7 * len(t), float(y) + 3)
        for x0, (_, y, _, t) in zip(lefts, found, strict=True)
    ]
    assert sum(a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)


def test_points_on_one_spot_get_labels_apart() -> None:
    labels = place_labels(
        [(200.0, 200.0)] * 5,
        ["candidate"] * 5,
        obstacles=[Box(191, 191, 209, 209)],
        bounds=Box(0, 0, 400, 400),
    )
    assert sum(a.box.overlap(b.box) for i, a in enumerate(labels) for b in labels[:i]) == 0


def test_a_label_beside_its_point_grows_away_from_it_however_wide_its_font_is() -> None:
    bounds = Box(0, 0, 600, 400)
    right, left = place_labels(
        [(100.0, 50.0), (590.0, 300.0)], ["a", "b"], obstacles=[], bounds=bounds, radii=[12, 8]
    )
    assert (right.anchor, right.x) == ("start", 100 + 12 + 4)  # clear of a ring of 12
    assert (left.anchor, left.x) == ("end", 590 - 12)


def test_the_steps_join_what_nothing_drawn_beats_whatever_an_older_decision_marked() -> None:
    decision = example_decision()
    unmarked = tuple(msgspec.structs.replace(c, pareto=c.role == "shown") for c in decision.candidates)
    older = msgspec.structs.replace(decision, candidates=unmarked)
    drawn = quality_against_cost(older, width=960, height=420)
    assert drawn == quality_against_cost(decision, width=960, height=420)
