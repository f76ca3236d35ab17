"""Every relative link of the pages leads to a file that is there, and to a heading that it has."""

import re
import urllib.parse
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("design/**/*.md"),
        *ROOT.glob("deploy/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        ROOT / "benchmarks" / "RESULTS.md",
    ]
)
FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1[`~]*[ \t]*$", re.M | re.S)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s+(\S+)", re.M)


def slugs(text: str) -> list[str]:
    """Anchors of a page's headings, as GitHub makes them.

    Of what the heading shows: in lower case, without anything but letters, digits, `_`, `-` and spaces,
    each space a `-`; the second of a name has `-1`, the third `-2`.
    """
    found: list[str] = []
    n_of: dict[str, int] = {}
    plain = FENCE.sub("", text)
    for heading in re.findall(r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", plain, re.M):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        shown = re.sub(r"(?<![\w*])(\*+|_+)(?=\S)(.+?)(?<=\S)\1(?![\w*])", r"\2", shown)
        slug = re.sub(r"[^\w\- ]", "", shown.replace("`", "").lower()).replace(" ", "-")
        n = n_of.get(slug, 0)
        n_of[slug] = n + 1
        found.append(f"{slug}-{n}" if n else slug)
    return found + re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", plain)


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(slugs(path.read_text(encoding="utf-8")))


def broken(page: Path, text: str) -> list[str]:
    """Links of a page's text that lead nowhere."""
    found = []
    without_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", FENCE.sub("", text))
    for inline, defined in LINK.findall(without_code):
        link = inline or defined
        if re.match(r"[a-z][a-z0-9+.-]*:", link, re.I):
            continue
        name, _, anchor = urllib.parse.unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            found.append(f"{link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            found.append(f"{link}: no such heading")
    return found


def test_anchors_are_made_as_github_makes_them() -> None:
    """Of headings whose anchors on GitHub are known."""
    text = (
        "# One-line fixes\n## What's *new* in `jettison run`?\n## Costs: 5 % & more\n## Costs: 5 % & more\n"
        "### a_b, [a link](x.md#y) ###\n```sh\n# no heading\n```\n## Größe – und Preis\n"
    )
    assert slugs(text) == [
        "one-line-fixes",
        "whats-new-in-jettison-run",
        "costs-5---more",
        "costs-5---more-1",
        "a_b-a-link",
        "größe--und-preis",
    ]


def test_what_leads_nowhere_is_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# A heading\n")
    text = (
        "# Here\n[1](other.md) [2](other.md#a-heading) [3](#here) [4](https://example.org/x#y)\n"
        "`[5](no.md)` [6](other.md#no-heading) [7](#nowhere) [8](gone.md#a-heading)\n"
        "\n[9]: other.md#neither\n"
    )
    page.write_text(text)
    assert broken(page, text) == [
        "other.md#no-heading: no such heading",
        "#nowhere: no such heading",
        "gone.md#a-heading: no such file",
        "other.md#neither: no such heading",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_heading_that_is_there(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []
