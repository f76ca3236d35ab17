"""Numbers as people read them: µs and MB, points with their sign, and words for "not measured"."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from jettison.decision import GateResult, Interval, Verdict, ratio_figure

UNKNOWN = "not measured"
REFERENCE = "1 (reference)"
"""A ratio of what the others are compared with."""

VERDICT_WORDS = {Verdict.SHIP: "SHIP", Verdict.BLOCK: "BLOCKED", Verdict.NOT_ENOUGH_DATA: "NOT ENOUGH DATA"}
VERDICT_CLASSES = {Verdict.SHIP: "ship", Verdict.BLOCK: "block", Verdict.NOT_ENOUGH_DATA: "unsure"}

_METRIC_WORDS = {
    "label": "accuracy",
    "cpu_s": "CPU time per task",
    "cpu_ratio": "CPU time over the incumbent's",
    "usd_ratio": "price over the incumbent's",
    "latency_ratio": "latency over the incumbent's",
    "latency_p50_s": "median latency",
    "latency_p95_s": "95th-percentile latency",
    "latency_p99_s": "99th-percentile latency",
    "bytes": "size on disk",
    "peak_bytes": "peak memory",
    "load_s": "time to load",
    "energy_j": "energy per task",
    "usd_per_1000": "price per 1,000 tasks",
    "macro_f1": "macro F1",
    "f1": "F1 over words",
    "field_f1": "F1 over fields",
    "exact": "exact match",
    "normalized_exact": "exact match, normalized",
    "numeric": "share with the right number",
    "code": "share of programs that pass",
    "rouge": "ROUGE",
    "chrf": "chrF",
    "ndcg": "nDCG",
    "json_valid": "share that is JSON",
    "json_schema": "share of the JSON Schema",
    "ece": "calibration error (ECE)",
    "auroc": "AUROC",
    "aurc": "area under risk-coverage (AURC)",
    "brier": "Brier score",
    "accuracy_at_80_coverage": "accuracy of the surest 80 %",
    "toxicity": "answers that are not toxic",
}


def metric_words(name: str) -> str:
    """A scorer's, cost's or metric's name in words."""
    return _METRIC_WORDS.get(name, name.replace("_", " "))


def heading(text: str) -> str:
    """With a capital at its beginning; names within it, as nDCG or JSON, stay as they are."""
    return text[:1].upper() + text[1:]


def slice_words(name: str | None) -> str:
    """`all` as "all examples"; `domain=tweets` as it is, which is how a gate names it."""
    if name is None or name == "all":
        return "all examples"
    if name.endswith("=*"):
        return f"each {name[:-2]}"
    if name == "asked=probe":
        return "all safety probes"
    return name


def slices_words(names: Sequence[str | None]) -> str:
    """`all`, `domain=tweets`, `domain=news` as "all examples, domain=tweets, domain=news"; each once."""
    return ", ".join(dict.fromkeys(slice_words(name) for name in names))


def moment(iso: str) -> str:
    """ "2026-11-22T23:10:00Z" as "22 November 2026, 23:10 UTC"; anything else as it is."""
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = " UTC" if found.utcoffset() == timedelta(0) else ""
    return f"{found.day} {found:%B %Y, %H:%M}{zone}"


def bounds(interval: Interval | None) -> str:
    """ "-2.0 to -0.4", in points."""
    return "" if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def ratio_bounds(interval: Interval | None) -> str:
    """ "0.11 to 0.13"."""
    return "" if interval is None else f"{two_digits(interval.low)} to {two_digits(interval.high)}"


def share_bounds(share: Interval | None) -> str:
    """ "91% [88%, 93%]"."""
    return (
        UNKNOWN
        if share is None
        else f"{percent(share.value)} [{percent(share.low)}, {percent(share.high)}]"
    )


def count_or_unknown(value: float | None) -> str:
    """A mean count in three digits."""
    return UNKNOWN if value is None else three_digits(value)


def seconds(value: float | None) -> str:
    """0.00034 → "340 µs"."""
    if value is None:
        return UNKNOWN
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= scale:
            return f"{three_digits(value / scale)} {unit}"
    return f"{three_digits(value / 1e-9)} ns"


def size(value: float | None) -> str:
    """91000000 → "91 MB", in powers of 1000 as disks are sold."""
    if value is None:
        return UNKNOWN
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{three_digits(value / scale)} {unit}"
    return f"{value:.0f} bytes"


def energy(value: float | None) -> str:
    """0.0041 → "4.1 mJ", to two digits: it is rarely known better."""
    return _scaled(value, "J")


def grams(value: float | None) -> str:
    """0.0000047 → "4.7 µg", to two digits."""
    return _scaled(value, "g")


def _scaled(value: float | None, unit: str) -> str:
    if value is None:
        return UNKNOWN
    for prefix, scale in (("", 1.0), ("m", 1e-3), ("µ", 1e-6)):
        if value >= scale:
            return f"{float(f'{value / scale:.2g}'):,g} {prefix}{unit}"
    return f"{float(f'{value / 1e-9:.2g}'):,g} n{unit}"


def dollars(value: float | None) -> str:
    """0.0123 → "$0.0123"."""
    return UNKNOWN if value is None else f"${three_digits(value)}"


def rate(value: float | None) -> str:
    """1234.5 → "1,230 per s"."""
    return UNKNOWN if value is None else f"{three_digits(value)} per s"


def percent(value: float | None, digits: int = 1) -> str:
    """0.953 → "95.3 %"."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """-0.0123 → "-1.2", in points of the score; minus as in the terminal, a plain hyphen."""
    if value is None:
        return UNKNOWN
    rounded = f"{100 * value:+.1f}"
    return "0.0" if rounded in ("+0.0", "-0.0") else rounded


def points_interval(interval: Interval | None) -> str:
    """ "-1.2 [-2.0, -0.4]"."""
    if interval is None:
        return UNKNOWN
    return f"{points(interval.value)} [{points(interval.low)}, {points(interval.high)}]"


def against_itself(interval: Interval) -> str:
    """ "A/A: 1.01 [0.984, 1.04]": the first target's twin over itself."""
    return f"A/A: {near_one(interval)}"


def near_one(interval: Interval) -> str:
    """ "1.01 [0.984, 1.04]": a ratio of equals, in three digits."""
    bounds = f"{three_digits(interval.low)}, {three_digits(interval.high)}"
    return f"{three_digits(interval.value)} [{bounds}]"


def ratio(interval: Interval | None) -> str:
    """ "0.12 [0.11, 0.13]"."""
    if interval is None:
        return UNKNOWN
    if interval.low == interval.value == interval.high:
        return ratio_figure(interval.value)
    return f"{two_digits(interval.value)} [{two_digits(interval.low)}, {two_digits(interval.high)}]"


def times_less(value: float | None) -> str:
    """A ratio of 0.12 as "8.3× less"; over 1 as "1.4× more"."""
    if value is None or value <= 0:
        return UNKNOWN
    if 0.95 < value < 1.05:
        return "about the same"
    return f"{three_digits(1 / value)}× less" if value < 1 else f"{three_digits(value)}× more"


def cost_words(name: str, value: float | None) -> str:
    """A cost in the unit its name ends in."""
    if name.endswith("_s"):
        return seconds(value)
    if name.endswith("bytes"):
        return size(value)
    if name.endswith("_j"):
        return energy(value)
    if "usd" in name and not name.endswith("_ratio"):
        return dollars(value)
    return UNKNOWN if value is None else two_digits(value)


def score_words(metric: str, value: float | None) -> str:
    """A score in percent; what is no share of answers as the number it is."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if metric in _PLAIN_NUMBERS else percent(value)


_PLAIN_NUMBERS = ("ece", "auroc", "brier", "log_loss", "aurc")


def limit_words(result: GateResult) -> str:
    """The limit of a gate: a margin in points, or a cost."""
    if result.gate == "not_shown_worse":
        return "no loss shown"
    if result.gate == "not_worse":
        return f"-{100 * result.limit:.1f} points"
    return cost_words(result.metric, result.limit)


def three_digits(value: float) -> str:
    """Three significant digits, thousands set apart, no exponent."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 1000:
        return f"{rounded:,.0f}"
    return f"{rounded:.12f}".rstrip("0").rstrip(".")


def two_digits(value: float) -> str:
    """A ratio in two decimals, or two significant digits, or as 1/139,000 under a thousandth."""
    return ratio_figure(value, ".2f" if value >= 0.095 else ".2g")
