"""The README quotes the results as they stand in benchmarks/RESULTS.md, rounded and no more."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
NUMBER = r"-?[\d,]*\.?\d+"


def measured(figure: str) -> list[float]:
    """Value, low and high of a figure in the results."""
    found = re.search(
        rf"^\| {re.escape(figure)} \| ({NUMBER}) \| ({NUMBER}) to ({NUMBER}) \|", RESULTS, re.M
    )
    assert found, figure
    return [float(part.replace(",", "")) for part in found.groups()]


def is_rounded(quoted: str, value: float) -> bool:
    """Whether a quoted number is the value to the digits it has."""
    digits = len(quoted.partition(".")[2])
    return abs(float(quoted.replace(",", "")) - value) <= 0.5000001 * 10**-digits


@pytest.mark.parametrize(
    ("figure", "row"),
    [
        ("clinc150_vs_torch", r"CLINC150[^|]*\| transformers on torch"),
        ("clinc150_vs_peer_int8", r"the same \| the best int8 ONNX of the same model"),
        ("banking77_vs_torch", r"Banking77[^|]*\| transformers on torch"),
        ("banking77_vs_peer_int8", r"the same \| the best int8 ONNX, as above[^\n]*\n\| movie"),
        ("sentiment_vs_torch", r"sentiment, trained on movies[^|]*\| transformers on torch"),
        ("sentiment_vs_peer_int8", r"the same \| the best int8 ONNX, as above[^\n]*\n\n"),
    ],
)
def test_times_cheaper_are_those_of_the_results(figure: str, row: str) -> None:
    found = re.search(rf"^\| {row}", README, re.M)
    assert found, row
    line = README[found.start() :].partition("\n")[0]
    quoted = re.search(rf"\*\*({NUMBER})×\*\* \(({NUMBER}) to ({NUMBER})\)", line)
    assert quoted, line
    for said, value in zip(quoted.groups(), measured(figure), strict=True):
        assert is_rounded(said, value), f"{figure} is {value}, the README says {said}"


@pytest.mark.parametrize(
    ("row", "setting"),
    [
        ("n = 50, margin 3 points, flips only harmful", "n=50 beneficial=0.0 margin=0.03"),
        ("n = 200, the same", "n=200 beneficial=0.0 margin=0.03"),
        ("n = 3,000, margin 1 point", "n=3000 beneficial=0.0 margin=0.01"),
    ],
)
def test_false_releases_are_those_of_the_results(row: str, setting: str) -> None:
    line = next(line for line in README.splitlines() if line.startswith(f"| {row} "))
    quoted = re.findall(rf"({NUMBER}) %", line)
    ways = ("jettison gate", "accuracy drop under the margin", "percentile bootstrap")
    assert len(quoted) == len(ways)
    for said, way in zip(quoted, ways, strict=True):
        value = 100 * measured(f"false release, {way}, {setting}")[0]
        assert is_rounded(said, value), f"{way} at {row} is {value}, the README says {said}"


def test_what_a_proxied_request_costs_is_that_of_the_results() -> None:
    found = re.search(rf"({NUMBER}) ms of CPU a proxied\s+request \(({NUMBER}) to ({NUMBER})\)", README)
    assert found
    for said, value in zip(found.groups(), measured("cpu_ms_per_request"), strict=True):
        assert is_rounded(said, value), f"it is {value}, the README says {said}"
