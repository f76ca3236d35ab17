"""The one thing that monitoring writes into the request path: `control.json`, which the gateway watches."""

from pathlib import Path

import msgspec

from jettison.control import CONTROL_FILE, Control, RouteControl
from jettison.files import read_json, write_json


def read_control(state: Path) -> Control:
    """What steers the gateway now; empty where nobody has steered it."""
    path = state / CONTROL_FILE
    return read_json(path, Control) if path.exists() else Control()


def steer(
    state: Path,
    place: str,
    *,
    reason: str,
    treatment_share: float | None = None,
    shadow_share: float | None = None,
    threshold: float | None = None,
    experiment: str | None = None,
) -> bool:
    """Change one route; what was said of others, and of the rest of this one, stays.

    Args:
        state: The gateway's state folder.
        place: In the route plan.
        reason: For the gateway's log.
        treatment_share: Of a split; None leaves it.
        shadow_share: Of a shadow; None leaves it.
        threshold: Of a cascade; None leaves it.
        experiment: Name that records carry from now on; None leaves it.

    Returns:
        Whether anything changed; the file is not written when nothing does.
    """
    before = read_control(state)
    given = {"treatment_share": treatment_share, "shadow_share": shadow_share, "threshold": threshold}
    changes = {name: value for name, value in given.items() if value is not None}
    route = msgspec.structs.replace(before.routes.get(place, RouteControl()), **changes)
    name = before.experiment if experiment is None else experiment
    if before.routes.get(place) == route and before.experiment == name:
        return False
    after = Control(routes={**before.routes, place: route}, experiment=name, reason=reason)
    write_json(state / CONTROL_FILE, after)
    return True
