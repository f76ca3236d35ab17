"""Money per task, from the price of the machine and what it gets done in an hour."""

from math import ceil
from typing import NamedTuple

from jettison.errors import InvalidInput


def usd_per_1000(throughput_per_s: float | None, usd_per_hour: float | None) -> float | None:
    """US dollars per 1,000 tasks on a machine kept fully busy; None when either figure is missing.

    Raises:
        InvalidInput: The price is negative.
    """
    if usd_per_hour is not None and usd_per_hour < 0:
        raise InvalidInput(f"the price of an hour must be 0 or more US dollars, got {usd_per_hour}.")
    if usd_per_hour is None or not throughput_per_s:
        return None
    return 1000 * usd_per_hour / (3600 * throughput_per_s)


class OwnRate(NamedTuple):
    """A team's own arrivals, and what they take."""

    rate_per_s: float
    n_machines: int
    usd_per_1000: float | None


def at_own_rate(
    rate_per_s: float | None, capacity_per_s: float | None, usd_per_hour: float | None
) -> OwnRate | None:
    """Machines that a team's own arrivals keep, and what 1,000 tasks cost then, idle time paid.

    Args:
        rate_per_s: Arrivals a second, above 0; None is not known.
        capacity_per_s: Tasks that one machine gets done a second; None was not measured.
        usd_per_hour: Price of a machine; None is not known.

    Returns:
        None without a rate or a capacity.
    """
    if rate_per_s is None or not capacity_per_s:
        return None
    n = ceil(rate_per_s / capacity_per_s)
    usd = usd_per_1000(rate_per_s, usd_per_hour)
    return OwnRate(rate_per_s, n, None if usd is None else n * usd)


def usd_at_rate(rate_per_s: float, usd_per_hour: float | None) -> float | None:
    """US dollars per 1,000 tasks of a machine that is paid for while it waits, too.

    Args:
        rate_per_s: Tasks answered a second, above 0, whatever the machine could do.
        usd_per_hour: Price of the machine; None is not known.
    """
    return usd_per_1000(rate_per_s, usd_per_hour)
