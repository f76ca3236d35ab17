"""After the decision: at which rate do the incumbent and who may take its place keep to the SLO?"""

from collections.abc import Sequence

from jettison.backends.remote import is_remote
from jettison.cost.load_measure import Scenario, measure_load
from jettison.cost.load_target import Prices
from jettison.cost.load_types import LoadReport
from jettison.cost.slo import read_slo
from jettison.errors import JettisonError
from jettison.files import read_json, value_sha256, write_json
from jettison.loop.search import cost_inputs
from jettison.loop.workspace import Contender, Workspace


def load_of(workspace: Workspace, contenders: Sequence[Contender]) -> LoadReport | None:
    """Search the highest rate of each that runs here, or read what a finished run found.

    None where the run has no `slo`, or none of them runs here: an endpoint is paid for by the answer, and
    is not asked for the sake of a measurement. Nothing that goes wrong here takes the decision away.

    Args:
        workspace: The run.
        contenders: Who is compared; ratios are against the first that runs here.
    """
    config = workspace.config
    here = [contender.candidate for contender in contenders if not is_remote(contender.candidate)]
    if config.slo is None or not here:
        return None
    inputs = cost_inputs(workspace)
    scenario = Scenario(kind="server", slo=read_slo(config.slo), duration_s=2 * config.cost_s)
    key = value_sha256(
        [[c.digest for c in here], inputs, config.seed, config.threads, scenario, config.cost_openings]
    )[:20]
    path = workspace.cache / "load" / f"{key}.json"
    if path.exists():
        return read_json(path, LoadReport)
    workspace.watcher.stage(f"rate that keeps to {config.slo}")
    try:
        found = measure_load(
            here,
            inputs,
            scenario,
            seed=config.seed,
            openings=config.cost_openings,
            threads=config.threads,
            prices=Prices(usd_per_hour=config.usd_per_hour),
            kind=workspace.task.kind,
            progress=workspace.watcher.progress,
        )
    except JettisonError as error:
        workspace.watcher.found(f"nothing was measured under load: {error}")
        return None
    write_json(path, found)
    return found
