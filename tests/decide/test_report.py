"""The report of a realistic decision: what it says, that it stands alone, that all text is escaped."""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from browser import CHROMIUM, browser
from jettison.cli.report import command
from jettison.decide import report_view as view
from jettison.decide.costs import judge_cheaper
from jettison.decide.render import decision_markdown
from jettison.decide.report import rewrite_report, write_report
from jettison.decide.report_markdown import escaped, markdown_page
from jettison.decide.report_pages import html_page
from jettison.decide.report_pareto import quality_against_cost
from jettison.decide.report_sections import flip_count_words, tried_rows
from jettison.decide.report_types import ReportContent, read_report_content, write_report_content
from jettison.decide.report_words import (
    cost_words,
    dollars,
    energy,
    heading,
    metric_words,
    points,
    score_words,
    seconds,
    size,
    slices_words,
    three_digits,
    times_less,
)
from jettison.decision import CostSummary, Decision, Flips, Interval, Verdict, ratio_figure
from jettison.errors import InvalidInput

from .report_example import CASCADE, HOSTILE, example_content, example_decision, example_flips

LATENCIES = ("latency_p50_s", "latency_p95_s", "latency_p99_s")
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps text, tags and addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " "
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return html_page(example_content())


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    page = Page(html)
    assert all(address.startswith("#") for address in page.addresses)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert len(html.encode()) < 500_000


def test_every_link_leads_to_a_section_that_is_there_once(html: str) -> None:
    page = Page(html)
    assert len(set(page.ids)) == len(page.ids)
    assert {address[1:] for address in page.addresses} <= set(page.ids)


def test_the_verdict_and_the_three_numbers_stand_at_the_top(html: str) -> None:
    top = " ".join(Page(html).text.split("Each was judged")[0].split())
    assert "SHIP static+int8 cascade does the incumbent's job" in top
    assert "Accuracy, in points, on domain=news (smallest room to the margin)" in top
    assert "-0.4 95 % interval -2.5 to +1.7; allowed -3.0 points; 86.0 % → 85.6 %" in top
    assert "11.4× less 95 % interval 10.9 to 11.7× less; two copies of the incumbent differ by 0.8 %" in top
    assert "31.2 MB incumbent 91.3 MB: 2.93× less" in top


def test_a_blocked_candidate_is_shown_with_the_slices_that_blocked_it(html: str) -> None:
    assert "blocked by all examples, domain=tweets, domain=products, domain=news" in html
    assert "BLOCKED" in Page(html).text


def test_text_from_outside_is_escaped_everywhere(html: str) -> None:
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert Page(html).tags.count("script") == 1
    hostile = msgspec.convert(
        _replaced(msgspec.to_builtins(example_content()), "hashed linear", HOSTILE), ReportContent
    )
    page = Page(html_page(hostile))
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text


def test_both_pages_say_the_same_things() -> None:
    content = example_content()
    html, markdown = Page(html_page(content)).text, markdown_page(content)
    for said in (
        "hashed linear",
        "not bad at all lol",
        "bfloat16 kernels",
        "12 test texts also stand in train",
        "Only the four domains named were judged",
        "noise floor (A/A)",
        "estimate, tier E3: ×/÷ 3",
        "read for 2 decision(s)",
        "AMD EPYC, 2 CPUs",
        "CPU 4.55× less, leaves 14.8 MB",
        "distill: gains 2.4 points on dev",
        "-17.1 [-20.5, -13.7]",
    ):
        assert said in html
        assert said in markdown.replace("\\", "")


def test_what_was_tried_shows_a_gain_above_zero_as_every_other_difference() -> None:
    """`pruned-50+int8` loses 2.1 points on dev, the released cascade 0.2."""
    rows = {row.name: row.difference for row in tried_rows(example_content().tried)}
    assert rows == {
        "static+int8 cascade": "-0.2",
        "pruned-50+int8": "-2.1",
        "vocabulary-8k": "0.0",
        "bfloat16": "",
    }
    better = msgspec.structs.replace(example_content().tried[0], dev_loss_vs_incumbent=-0.01)
    assert tried_rows([better])[0].difference == "+1.0"


def test_markdown_tables_keep_their_columns_whatever_the_cells_hold() -> None:
    tables = re.findall(r"(?:^\|.*\|$\n?)+", markdown_page(example_content()), flags=re.M)
    assert len(tables) >= 6
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
        assert len(widths) == 1


@given(st.text())
def test_escaped_markdown_is_one_line_without_markup(text: str) -> None:
    found = escaped(text)
    assert "\n" not in found
    assert not re.search(r"(?<!\\)[|*_`\[]", found.replace("\\\\", ""))
    assert "<" not in found


def test_what_was_not_measured_is_said_and_never_drawn_as_zero() -> None:
    decision = example_decision()
    bare = msgspec.structs.replace(
        decision,
        candidates=tuple(msgspec.structs.replace(c, cost=CostSummary()) for c in decision.candidates),
    )
    page = Page(html_page(ReportContent(decision=bare)))
    assert "not measured" in page.text
    assert "$0" not in page.text
    assert quality_against_cost(bare, width=900, height=400) is None


def test_a_ratio_of_prices_is_no_sum_of_money() -> None:
    assert cost_words("usd_ratio", 0.06) == "0.06"
    assert cost_words("usd_per_1000", 0.06) == "$0.06"
    assert metric_words("usd_ratio") == "price over the incumbent's"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.163, "0.163"),
        (1.0, "1"),
        (2.83e-06, "1/353,000"),
        (9.9e-4, "1/1,010"),
        (0.0, "0"),
        (1234.5, "1,234"),
    ],
)
def test_ratios_are_written_for_people(value: float, shown: str) -> None:
    assert ratio_figure(value) == shown


def test_a_tiny_ratio_is_one_in_so_many_in_every_report() -> None:
    content = example_content()
    tiny = Interval(value=7.2e-06, low=7.1e-06, high=7.4e-06)
    paid = tuple(
        one
        if one.name == content.decision.incumbent
        else msgspec.structs.replace(
            one,
            cost=msgspec.structs.replace(one.cost, cpu_ratio=tiny),
            gates=(judge_cheaper(one.cost, msgspec.structs.replace(one.cost, cpu_ratio=tiny)),),
        )
        for one in content.decision.candidates
    )
    decision = msgspec.structs.replace(content.decision, candidates=paid)
    pages = {
        "html": html_page(msgspec.structs.replace(content, decision=decision)),
        "markdown": markdown_page(msgspec.structs.replace(content, decision=decision)),
        "decision": decision_markdown(decision),
    }
    for name, page in pages.items():
        assert "1/139,000" in page, name
        assert re.search(r"1/141,000.{1,4}1/135,000", page), name
        assert not re.search(r"\de-0\d", page), name


def test_against_a_model_elsewhere_money_takes_the_place_of_cpu_time() -> None:
    content = example_content()
    paid = tuple(
        msgspec.structs.replace(
            one, cost=msgspec.structs.replace(one.cost, cpu_ratio=None, usd_ratio=one.cost.cpu_ratio)
        )
        for one in content.decision.candidates
    )
    content = msgspec.structs.replace(
        content, decision=msgspec.structs.replace(content.decision, candidates=paid)
    )
    assert "CPU ratio" in html_page(example_content())
    for page in (html_page(content), markdown_page(content)):
        assert "Price ratio" in page
        assert "Price per task" in page
        assert "CPU ratio" not in page
        assert "the cost was not measured in this run" not in page


def test_a_decision_that_ships_nothing_shows_the_nominee_and_says_blocked() -> None:
    decision = msgspec.structs.replace(
        example_decision(),
        verdict=Verdict.BLOCK,
        chosen=None,
        headline="Nothing may replace the incumbent.",
    )
    text = " ".join(Page(html_page(ReportContent(decision=decision))).text.split())
    assert "BLOCKED Nothing may replace the incumbent." in text
    assert "Nothing was released. Of static+int8 cascade (nominated; ship), against" in text


def test_a_decision_over_the_incumbent_alone_still_has_a_page() -> None:
    decision = example_decision()
    alone = msgspec.structs.replace(decision, candidates=decision.candidates[:1], chosen=None)
    assert "minilm-sentiment" in Page(html_page(ReportContent(decision=alone))).text
    assert "minilm-sentiment" in markdown_page(ReportContent(decision=alone))


def test_a_report_is_written_again_from_its_json(tmp_path: Path) -> None:
    content = example_content()
    files = write_report(
        tmp_path,
        content.decision,
        flips=content.flips,
        tried=content.tried,
        lineage=content.lineage,
        findings=content.findings,
        settings=content.settings,
    )
    assert read_report_content(tmp_path) == content
    first = files.html.read_text(), files.markdown.read_text()
    files.html.unlink()
    again = rewrite_report(tmp_path)
    assert (again.html.read_text(), again.markdown.read_text()) == first


def test_the_command_says_where_the_pages_lie_and_what_is_missing(tmp_path: Path) -> None:
    write_report(tmp_path, example_decision())
    found = CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False, standalone_mode=False)
    assert str(tmp_path / "report.html") in found.stdout
    with pytest.raises(InvalidInput, match=r"folder of a finished run, got .*nowhere without report.json"):
        CliRunner().invoke(
            command, [str(tmp_path / "nowhere")], catch_exceptions=False, standalone_mode=False
        )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            {"incumbent": "nobody"},
            r"decision\.incumbent must name one of candidates .*got 'nobody' at .*report\.json",
        ),
        ({"chosen": "nobody"}, r"decision\.chosen must name one of candidates .*got 'nobody'"),
        ({"candidates": ()}, r"decision\.incumbent must name one of candidates \[\]"),
    ],
)
def test_a_report_edited_by_hand_is_refused(tmp_path: Path, damage: dict[str, object], said: str) -> None:
    decision = msgspec.structs.replace(example_decision(), **damage)
    write_report_content(tmp_path, ReportContent(decision=decision))
    with pytest.raises(InvalidInput, match=said):
        rewrite_report(tmp_path)


def test_many_long_flips_stay_under_half_a_megabyte() -> None:
    flips = [msgspec.structs.replace(flip, input="long text " * 2000) for flip in example_flips() * 60]
    page = html_page(ReportContent(decision=example_decision(), flips=tuple(flips)))
    assert len(page.encode()) < 500_000
    assert f"{CASCADE}: 40 can be read here, 120 in report.json." in page


def test_of_many_slices_those_that_fail_are_shown_and_the_rest_counted() -> None:
    decision = example_decision()
    *others, linear = decision.candidates
    tweets = next(r for r in linear.gates if r.slice == "domain=tweets")
    good = next(r for r in linear.gates if r.slice == "domain=movies")
    many = [msgspec.structs.replace(good, slice=f"intent={i}") for i in range(150)]
    crowded = msgspec.structs.replace(
        linear,
        gates=(linear.gates[0], *many, tweets),
        scores={**linear.scores, **{r.slice or "": {"accuracy": 0.9} for r in many}},
    )
    page = html_page(
        ReportContent(decision=msgspec.structs.replace(decision, candidates=(*others, *[crowded] * 6)))
    )
    assert len(page.encode()) < 500_000
    assert "128 more slices lose less than the ones shown" in page
    assert "domain=tweets" in Page(page).text.split("Changed answers")[0].split("more slices")[-2]


def gated_by_slice(decision: Decision) -> Decision:
    """The decision without its gates on all examples: each row then names one of its slices."""
    gates = {c.name: tuple(g for g in c.gates if g.slice != "all") for c in decision.candidates}
    return msgspec.structs.replace(
        decision,
        candidates=tuple(msgspec.structs.replace(c, gates=gates[c.name]) for c in decision.candidates),
    )


def test_a_picture_without_a_margin_has_none_in_its_legend() -> None:
    decision = example_decision()
    parted = gated_by_slice(decision)
    assert "least accuracy allowed" in html_page(ReportContent(decision=decision))
    page = html_page(ReportContent(decision=parted))
    assert "least accuracy allowed" not in page
    assert "Vertical bars" not in page


def test_changed_answers_are_counted_and_those_of_the_released_one_come_up_first() -> None:
    counts = {CASCADE: Flips(harmful=31, beneficial=29, churn=0, both_right=1800, n=2210)}
    content = msgspec.structs.replace(example_content(), flip_counts=counts)
    html, markdown = html_page(content), markdown_page(content)
    said = f"{CASCADE}: of 2,210 answers 60 changed, 31 from right to wrong, 29 from wrong to right."
    assert said in Page(html).text
    assert said in markdown.replace("\\", "")
    assert f'<option value="{CASCADE}" selected>' in html
    assert html.count(" selected>") == 1


def test_how_many_changed_answers_can_be_read_is_told_of_each_candidate_by_itself() -> None:
    (ours,) = (flip for flip in example_flips() if flip.candidate == CASCADE and flip.harmful)
    counts = {CASCADE: Flips(harmful=139, beneficial=187, churn=0, both_right=4533, n=6147)}
    content = msgspec.structs.replace(
        example_content(), flips=(*example_flips(), *[ours] * 58), flip_counts=counts
    )
    assert flip_count_words(content) == [
        f"{CASCADE}: of 6,147 answers 326 changed, 139 from right to wrong, 187 from wrong to right; "
        "40 can be read here, 60 in report.json."
    ]


def test_a_slice_that_holds_every_example_is_not_listed_beside_all_of_them() -> None:
    decision = example_decision()
    common = "class_frequency=common"
    named = tuple(
        msgspec.structs.replace(
            c, n={**c.n, common: c.n["all"]}, scores={**c.scores, common: c.scores["all"]}
        )
        for c in decision.candidates
    )
    slices = [row[0] for row in view.score_rows(msgspec.structs.replace(decision, candidates=named))[1]]
    assert "all examples" in slices
    assert common not in slices


def test_what_is_no_share_of_answers_is_written_as_the_number_it_is() -> None:
    assert [score_words(name, 0.497) for name in ("log_loss", "aurc", "brier", "ece", "accuracy")] == [
        "0.497",
        "0.497",
        "0.497",
        "0.497",
        "49.7 %",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.slow
def test_nothing_of_the_page_is_cut_off_on_a_phone_or_a_desk(tmp_path: Path) -> None:
    page = html_page(ReportContent(decision=gated_by_slice(example_decision())))
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    with browser(tmp_path / "profile") as shown:
        for width in (390, 1280):
            shown.size(width, 900)
            shown.go((tmp_path / "report.html").as_uri())
            assert shown.run("document.documentElement.scrollWidth") <= width
            right = "Math.max(...[...document.querySelectorAll('main table.stack td, main p, main li')]"
            inner = "document.querySelector('main').getBoundingClientRect().right"
            assert shown.run(f"{right}.map((e) => e.getBoundingClientRect().right)) <= {inner} + 1")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.slow
def test_costs_of_five_candidates_fit_a_desk_with_their_intervals(tmp_path: Path) -> None:
    decision = example_decision()
    wide = {name: Interval(value=2.93e-4, low=1.47e-4, high=1.31e-3) for name in LATENCIES}
    names = {"static+int8 cascade": "linear→static→onnx-int8", "int8": "static→onnx-int8"}
    candidates = tuple(
        msgspec.structs.replace(
            c, name=names.get(c.name, c.name), cost=msgspec.structs.replace(c.cost, intervals=wide)
        )
        for c in decision.candidates
    )
    chosen = names[CASCADE]
    page = html_page(
        ReportContent(decision=msgspec.structs.replace(decision, candidates=candidates, chosen=chosen))
    )
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    with browser(tmp_path / "profile") as shown:
        shown.size(1200, 900)
        shown.go((tmp_path / "report.html").as_uri())
        over = (
            "[...document.querySelectorAll('#costs ~ .scroll')].map((e) => e.scrollWidth - e.clientWidth)"
        )
        assert shown.run(f"Math.max(...{over})") <= 0


def test_numbers_read_as_people_write_them() -> None:
    assert [seconds(v) for v in (1.5, 0.0138, 0.000047, 2e-8, None)] == [
        "1.5 s",
        "13.8 ms",
        "47 µs",
        "20 ns",
        "not measured",
    ]
    assert [size(v) for v in (91_300_000, 812_000, 12, 2.5e9)] == [
        "91.3 MB",
        "812 kB",
        "12 bytes",
        "2.5 GB",
    ]
    assert [energy(v) for v in (0.0561, 0.00019, 3.0)] == ["56 mJ", "190 µJ", "3 J"]
    assert [points(v) for v in (-0.0123, 0.004, -0.0001)] == ["-1.2", "+0.4", "0.0"]
    assert [times_less(v) for v in (0.088, 1.4, 1.01, None)] == [
        "11.4× less",
        "1.4× more",
        "about the same",
        "not measured",
    ]
    assert dollars(0.0000123) == "$0.0000123"
    assert three_digits(123_456) == "123,000"
    assert slices_words(["all", "domain=a", "domain=b", "length=long"]) == (
        "all examples, domain=a, domain=b, length=long"
    )


def _replaced(value: object, old: str, new: str) -> object:
    """A JSON-like value with one name changed wherever it stands."""
    if isinstance(value, dict):
        return {_replaced(k, old, new): _replaced(v, old, new) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(v, old, new) for v in value]
    return new if value == old else value


def test_the_example_is_a_decision() -> None:
    decision = example_decision()
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision


@pytest.mark.parametrize(
    ("scorer", "said"),
    [("label", "Accuracy"), ("field_f1", "F1 over fields"), ("rouge", "ROUGE"), ("mine_own", "Mine own")],
)
def test_scorers_are_called_by_their_names(scorer: str, said: str) -> None:
    assert heading(metric_words(scorer)) == said


def test_the_first_screen_says_the_decision_its_cost_the_weakest_slices_and_why() -> None:
    content = example_content()
    markdown = markdown_page(content).replace("\\", "")
    top = markdown.split("## Candidates")[0]
    assert len(top.splitlines()) < 30
    for said in ("SHIP", "11.4× less", "Slices with the smallest room to the margin:", "Why:"):
        assert said in top
    weakest = [line for line in top.splitlines() if line.startswith("- ") and "(accuracy): " in line]
    assert len(weakest) == 3
    assert weakest == [f"- {said}" for said in view.weakest(content)]
    assert view.weakest(content)[0] in " ".join(Page(html_page(content)).text.split())


def test_every_fold_of_the_markdown_page_is_closed_and_headings_stand_outside() -> None:
    depth = 0
    for line in markdown_page(example_content()).splitlines():
        depth += line.count("<details>") - line.count("</details>")
        assert depth in (0, 1)
        assert not (depth and line.startswith("## "))
    assert depth == 0


def test_there_is_one_minus_sign_in_all_that_is_written() -> None:
    content = example_content()
    for page in (html_page(content), markdown_page(content), decision_markdown(content.decision)):
        assert "\u2212" not in page
    assert "-17.1" in markdown_page(content)


def test_ticks_of_scores_that_lie_close_together_read_apart() -> None:
    decision = example_decision()
    scores = (0.83, 0.8304, 0.8308)
    near = [
        msgspec.structs.replace(c, scores={"all": {"accuracy": s}}, gates=())
        for c, s in zip(decision.candidates, scores, strict=False)
    ]
    drawn = quality_against_cost(
        msgspec.structs.replace(decision, candidates=tuple(near), gates=()), width=900, height=400
    )
    ticks = [t for t in re.findall(r'class="tick"[^>]*>([^<]*)<', str(drawn)) if t.endswith("%")]
    assert len(ticks) > 2
    assert len(set(ticks)) == len(ticks)
