"""Proposes gates that the test split at hand can decide, and says which slices none can certify."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from jettison.decision import NotWorse
from jettison.stats.planning import n_needed, smallest_passing_n

MARGINS = (0.01, 0.02, 0.03, 0.05, 0.10)
FLIP_SHARE = 0.02
"""Share of answers expected to differ in rightness: what int8 and light students show."""
MAX_REQUIRED = 8
"""Each required slice must pass by itself, so that many make a pass unlikely."""
SPEAKING = frozenset(
    [
        "domain",
        "language",
        "lang",
        "locale",
        "source",
        "channel",
        "region",
        "country",
        "market",
        "product",
        "topic",
        "genre",
        "customer",
    ]
)


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """Gates, and what could not be made one."""

    gates: tuple[NotWorse, ...]
    required: tuple[str, ...]
    """Slices for `[slices] required`, as `all` or `column=*`."""
    sizes: dict[str, int]
    """Test examples of each slice that a gate names."""
    too_small: dict[str, int]
    """Slices that no margin up to 0.10 can be certified on → test examples."""
    left_out: dict[str, int]
    """Slice columns that are reported but not required → values in test, as `column=*` has them."""


def smallest_margin(n: int) -> float | None:
    """Smallest usual margin that n examples are likely to certify; None where even 0.10 is out of reach.

    Likely: 80 % power when 2 % of the answers flip, half of them each way; and never a
    margin at which even zero harmful flips could not pass.
    """
    return next(
        (m for m in MARGINS if n >= (n_needed(FLIP_SHARE, margin=m) or 0) and n >= smallest_passing_n(m)),
        None,
    )


def propose_gates(
    counts: Mapping[str, int], *, out_of_scope: str | None, scorer: str = "label"
) -> Proposal:
    """Gates for the slices of a test split.

    Args:
        counts: Test examples of `all` and of each `column=value`.
        out_of_scope: The label that means "none of these", where the task has one.
        scorer: What judges an answer.
    """
    whole = "all" if out_of_scope is None or not counts.get("scope=in") else "scope=in"
    by_column: dict[str, dict[str, int]] = {}
    n_values: Counter[str] = Counter()
    for name, n in counts.items():
        column, _, value = name.partition("=")
        n_values[column] += 1
        if value and column != "scope" and value != out_of_scope:
            by_column.setdefault(column, {})[name] = n
    named = {
        c for c, values in by_column.items() if c.lower() in SPEAKING and 2 <= len(values) <= MAX_REQUIRED
    }
    sizes = {whole: counts[whole]}
    too_small: dict[str, int] = {}
    for column, values in by_column.items():
        for name, n in values.items():
            if smallest_margin(n) is None:
                too_small[name] = n
            elif column in named:
                sizes[name] = n
    if smallest_margin(counts[whole]) is None:
        too_small[whole] = counts[whole]
    margins = {name: smallest_margin(n) or MARGINS[-1] for name, n in sizes.items()}
    gates = [
        NotWorse(
            scorer=scorer,
            margin=margins[whole],
            slices=tuple(sizes),
            margins={name: margin for name, margin in margins.items() if margin != margins[whole]},
        )
    ]
    n_out = counts.get("scope=out", 0)
    if whole == "scope=in" and n_out:
        if (margin := smallest_margin(n_out)) is None:
            too_small["scope=out"] = n_out
        else:
            sizes["scope=out"] = n_out
            margin = max(margin, 0.02)
            of_alarms = max(margins[whole], 0.02)
            gates.append(
                NotWorse(
                    scorer="out_of_scope",
                    margin=margin,
                    slices=("scope=out", "scope=in"),
                    margins={} if of_alarms == margin else {"scope=in": of_alarms},
                )
            )
    return Proposal(
        gates=tuple(gates),
        required=gates[0].slices,
        sizes=sizes,
        too_small=too_small,
        left_out={column: n_values[column] for column in by_column if column not in named},
    )
