"""Curves, tiers, found slices and attacks in the report: what they say, and what they leave open."""

import re

import msgspec
import numpy as np
import pytest

from jettison.decide.curves import confidence_curves, with_refuted
from jettison.decide.report_evidence import (
    AttackOutcome,
    LostExample,
    SliceSearch,
    SuiteEvidence,
    WorstSlice,
)
from jettison.decide.report_markdown import markdown_page
from jettison.decide.report_pages import html_page
from jettison.decide.suite_comparisons import suite_comparisons
from jettison.decision import Interval
from jettison.record import Record

from .report_example import example_content
from .test_report import Page

NAMES = ("minilm-sentiment", "static+int8 cascade")


def records(name: str, *, typos_right: float, seed: int) -> list[Record]:
    """400 examples and a misspelled copy of each; confidences say how often the originals are right."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(400):
        sure = float(rng.uniform(0.6, 1.0))
        for tier, right in (("in_domain", rng.random() < sure), ("perturbed", rng.random() < typos_right)):
            slices = {"tier": tier, **({"perturbation": "typos"} if tier == "perturbed" else {})}
            found.append(
                Record(
                    candidate=name,
                    example_id=f"{i}-{tier}",
                    split="test",
                    output="a" if right else "b",
                    expected="a",
                    confidence=sure,
                    scores={"label": float(right)},
                    slices=slices,
                    group=str(i),
                )
            )
    return found


@pytest.fixture(scope="module")
def evidence() -> SuiteEvidence:
    # Of true confidences one draw in twenty is refuted, as it should be; seed 0 is such a one.
    base, lean = records(NAMES[0], typos_right=0.9, seed=2), records(NAMES[1], typos_right=0.7, seed=1)
    curves = [
        confidence_curves(NAMES[0], base, None, "label", dev=base[:400]),
        confidence_curves(NAMES[1], lean, base, "label"),
    ]
    lost = LostExample(text="wacth it", before="watch it", expected="pos", answer="neg")
    found = WorstSlice(
        candidate=NAMES[1], name='word "battery"', n=80, loss=0.25, low=0.15, high=0.35, rest_loss=0.01,
        p_value=0.0002, examples=(lost,),
    )  # fmt: skip
    return SuiteEvidence(
        curves=with_refuted([one for one in curves if one is not None]),
        comparisons=suite_comparisons(NAMES[1], base, lean, scorer="label"),
        searches=(
            SliceSearch(candidate=NAMES[1], n_searched=165, n_tested=2, n_validate=200, alpha=0.05,
                found=(found,)),
        ),
        attacks=(
            AttackOutcome(
                candidate=NAMES[1], n=100, n_right=90, success=Interval(value=0.3, low=0.21, high=0.41),
                mean_queries=21.5, budget=60, examples=(lost,),
            ),
        ),
        tiers={"in_domain": 400, "perturbed": 400},
    )  # fmt: skip


def test_curves_are_of_what_users_wrote_and_cover_the_truth(evidence: SuiteEvidence) -> None:
    first, second = evidence.curves
    assert (first.on, first.n) == ("tier=in_domain", 400)
    off = sum(not b.low <= b.confidence <= b.high for b in first.reliability)
    assert off <= 4  # honest by construction: of ten bins five or more are off with a chance under 1e-4
    assert first.brier_difference is None
    assert second.brier_difference is not None
    assert first.risk_coverage[-1].coverage == 1.0


def test_true_confidences_are_not_refuted_and_dev_stands_beside_test(evidence: SuiteEvidence) -> None:
    first, second = evidence.curves
    assert not first.refuted
    assert not second.refuted
    assert first.test is not None
    assert first.dev is not None
    assert (first.test.n, first.dev.n) == (400, 200)
    assert first.test.ece.low == 0.0
    assert first.test.near is not None
    assert first.test.near.low < first.test.near.confidence < first.test.near.high
    assert first.ece_difference is None
    assert second.dev is None
    assert second.ece_difference is not None
    assert second.ece_difference.low < 0 < second.ece_difference.high


def test_a_calibration_that_test_refutes_is_told_on_both_pages(evidence: SuiteEvidence) -> None:
    too_sure = [
        msgspec.structs.replace(r, confidence=1 - (1 - (r.confidence or 0)) / 4)
        for r in records(NAMES[1], typos_right=0.7, seed=1)
    ]
    refuted = confidence_curves(NAMES[1], too_sure, None, "label")
    assert refuted is not None
    curves = with_refuted([evidence.curves[0], refuted])
    assert [one.refuted for one in curves] == [False, True]
    content = msgspec.structs.replace(
        example_content(), suites=msgspec.structs.replace(evidence, curves=curves)
    )
    said = f"Test refutes the confidences of {NAMES[1]}"
    page = Page(html_page(content))
    assert said in page.text
    assert said in markdown_page(content).replace("\\", "")
    assert re.search(
        r"Too sure by 1\d\.\d points on average \(debiased calibration error 1\d\.\d points, 1?\d\.\d to ",
        page.text,
    )  # 15 points: three quarters of the 20 that are missing to 1
    assert "refuted (p\u00a0≤\u00a00.002)" in page.text
    assert f"Test refutes the confidences of {NAMES[0]}" not in page.text
    limits = page.text.split("What the suites cannot tell")[1]
    assert f"How often {NAMES[1]} is right at a given confidence: test refutes" in limits
    untouched = html_page(msgspec.structs.replace(example_content(), suites=evidence))
    assert "test refutes" not in Page(untouched).text


def test_out_of_scope_answers_are_no_part_of_a_check(evidence: SuiteEvidence) -> None:
    base = records(NAMES[0], typos_right=0.9, seed=2)
    outside = [
        msgspec.structs.replace(
            r, example_id=f"out-{i}", scores={"label": 0.0}, slices={"tier": "in_domain", "scope": "out"}
        )
        for i, r in enumerate(base[:200])
    ]
    inside = [msgspec.structs.replace(r, slices={**r.slices, "scope": "in"}) for r in base]
    found = confidence_curves(NAMES[0], [*inside, *outside], None, "label")
    assert found is not None
    assert found.test == evidence.curves[0].test


def test_graded_scores_draw_no_curve() -> None:
    graded = [
        msgspec.structs.replace(r, scores={"label": 0.5}) for r in records("m", typos_right=1, seed=0)
    ]
    assert confidence_curves("m", graded, None, "label") is None


def test_each_slice_of_a_suite_is_compared_by_group(evidence: SuiteEvidence) -> None:
    found = {one.slice: one for one in evidence.comparisons}
    assert set(found) == {"tier=in_domain", "tier=perturbed", "perturbation=typos"}
    assert found["perturbation=typos"].difference is not None
    assert found["perturbation=typos"].difference.high < -0.1


def test_both_pages_tell_what_the_suites_showed_and_cannot(evidence: SuiteEvidence) -> None:
    content = msgspec.structs.replace(example_content(), suites=evidence)
    html, markdown = html_page(content), markdown_page(content).replace("\\", "")
    page = Page(html)
    for said in (
        "perturbation=typos",
        'word "battery"',
        "25.0 [15.0, 35.0]",
        "30.0 % [21.0, 41.0]",
        "wacth it",
        "90 of 100",
        "What the suites cannot tell",
        "No examples of the tiers long tail, out of domain, safety",
        "paraphrases, dialects and other languages are not in them",
    ):
        assert said in page.text, said
        assert said in markdown, said
    assert html.count('class="plot curve"') == 4
    assert len(html.encode()) < 500_000


def test_a_run_without_suites_says_what_it_did_not_look_at() -> None:
    assert "[suites] in jettison.toml adds them" in Page(html_page(example_content())).text


def test_answers_of_one_group_alone_draw_no_curves():
    """An interval takes two groups; the decision has been made by then and must not fail for the report."""

    def answers(name: str, group: str | None) -> list[Record]:
        return [
            Record(
                candidate=name,
                example_id=str(i),
                split="test",
                output="y",
                expected="y",
                confidence=0.9,
                scores={"label": float(i % 10 > 0)},
                group=group,
            )
            for i in range(100)
        ]

    assert confidence_curves("b", answers("b", "chat"), answers("a", "chat"), "label") is None
    alone = confidence_curves("b", answers("b", None), None, "label", dev=answers("b", "chat"))
    assert alone is not None
    assert (alone.test is None, alone.dev is None) == (False, True)
