"""Options of the command line over `serve.toml`: one resolved configuration, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.route import Cascade, Route, Shadow, Single, Split
from jettison.serve.config import ServeConfig, UpstreamConfig, check_serve_config, load_serve_config

INCUMBENT = Single(candidate="upstream:incumbent")
RELEASE = Single(candidate="release")


def resolve(file: Path | None, release: Path | None, given: Mapping[str, Any]) -> ServeConfig:
    """The configuration that a command line means.

    Args:
        file: `serve.toml`; None starts from the defaults.
        release: Folder; stands above the file's.
        given: Options by name; None was not given.

    Raises:
        InvalidInput: A value does not fit, or options do not go together.
    """
    config = ServeConfig() if file is None else load_serve_config(file)
    changes: dict[str, Any] = {}
    if release is not None:
        changes["release"] = str(release)
    for name in ("host", "port", "audit_share"):
        if given.get(name) is not None:
            changes[name] = given[name]
    if given.get("state") is not None:
        changes["state"] = str(given["state"])
    if given.get("log_text") is not None:
        changes["log"] = msgspec.structs.replace(config.log, text=given["log_text"])
    if given.get("template") is not None:
        changes["input"] = msgspec.structs.replace(config.input, template=given["template"])
    if given.get("unproven"):
        changes["proof"] = msgspec.structs.replace(config.proof, unproven=True)
    if given.get("ui_sha256") is not None:
        changes["ui"] = msgspec.structs.replace(config.ui, is_on=True, sha256=given["ui_sha256"])
    if given.get("incumbent") is not None:
        changes["upstreams"] = {**config.upstreams, "incumbent": _incumbent(given)}
    elif given.get("incumbent_model") is not None or given.get("incumbent_key_env") is not None:
        raise InvalidInput("--incumbent-model and --incumbent-key-env go with --incumbent.")
    config = msgspec.structs.replace(config, **changes)
    if given.get("route") is not None:
        config = msgspec.structs.replace(config, route=_route(config, given))
    elif given.get("threshold") is not None or given.get("share") is not None:
        raise InvalidInput("--threshold and --share go with --route.")
    check_serve_config(config, "jettison serve" if file is None else str(file))
    return config


def _incumbent(given: Mapping[str, Any]) -> UpstreamConfig:
    return UpstreamConfig(
        url=str(given["incumbent"]).rstrip("/"),
        model=given.get("incumbent_model"),
        api_key_env=given.get("incumbent_key_env"),
    )


def _route(config: ServeConfig, given: Mapping[str, Any]) -> Route:
    """`--route` with its numbers."""
    name, threshold, share = given["route"], given.get("threshold"), given.get("share")
    if config.release is None:
        raise InvalidInput(f"--route {name} must have a release, got none.")
    if name == "single":
        return RELEASE
    if "incumbent" not in config.upstreams:
        raise InvalidInput(
            f"--route {name} must have an incumbent, got none. Name it with --incumbent URL."
        )
    if name == "shadow":
        return Shadow(main=INCUMBENT, shadow=RELEASE, shadow_share=1.0 if share is None else share)
    if name == "split":
        salt = Path(config.release).name
        return Split(
            control=INCUMBENT,
            treatment=RELEASE,
            treatment_share=0.05 if share is None else share,
            salt=salt,
        )
    certified = certified_cascade(Path(config.release))
    if certified is not None:
        lean = Single(candidate="release/lean")
        plan = msgspec.structs.replace(certified, lean=lean, fallback=INCUMBENT)
        if threshold is None or threshold == plan.threshold:
            return plan
        return msgspec.structs.replace(plan, threshold=threshold, certificate=None)
    if threshold is None:
        raise InvalidInput(
            "--route cascade must have a threshold, and this release certifies none. "
            "Give --threshold, or leave --route away: then all that the release cannot answer goes on."
        )
    return Cascade(lean=RELEASE, fallback=INCUMBENT, threshold=threshold)


def certified_cascade(folder: Path) -> Cascade | None:
    """The cascade that a release is, with its threshold and certificate; None where it is one model.

    Raises:
        InvalidInput: There is no release.
    """
    from jettison.release import open_release
    from jettison.release.read import read_candidate

    release = open_release(folder.resolve(), verify=False)
    if not isinstance(release.route, Single):
        return None
    candidate = read_candidate(release, release.route.candidate)
    if candidate.backend != "cascade":
        return None
    route = msgspec.convert(candidate.settings["route"], Cascade)
    return route if route.combine == "fallback" else None
