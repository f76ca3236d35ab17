"""A route plan that runs: engines started, upstreams opened, nodes nested; swapped whole on a reload."""

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from jettison.candidate import Candidate
from jettison.control import Control, RouteControl
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.record import Record
from jettison.release.read import read_candidate
from jettison.route import Cascade, Guarded, Route, Shadow, Single, Split, guardrails_of
from jettison.serve.calls import Call
from jettison.serve.config import ServeConfig, UpstreamConfig
from jettison.serve.engine import Child, Engine, InProcess
from jettison.serve.guarded import GuardedNode
from jettison.serve.local import LocalArm
from jettison.serve.metrics import Metrics
from jettison.serve.prompted_arm import UpstreamArm
from jettison.serve.proof import Proven, open_proven
from jettison.serve.rails import QUICK, Rails
from jettison.serve.routing import Behind, CascadeNode, Node, ShadowNode, SplitNode
from jettison.serve.tell import tell
from jettison.serve.tracing import Tracing
from jettison.serve.upstream import Upstream

ENDPOINTS = ("openai", "vllm")


class Plan:
    """Everything that answers under one configuration.

    Args:
        config: Checked.
        metrics: Shared with what comes after.
        sink: Takes the records of shadows and audits.
        tracing: Writes a span of each arm's answer; None, and no arm knows of spans.
    """

    def __init__(
        self,
        config: ServeConfig,
        metrics: Metrics,
        sink: Callable[[Record, Call], None],
        tracing: Tracing | None = None,
    ) -> None:
        self.config, self.metrics, self._tracing = config, metrics, tracing
        self.behind = Behind(sink, metrics)
        self.proven: dict[str, Proven] = {}
        self.engines: dict[str, Engine] = {}
        self.upstreams: dict[str, Upstream] = {}
        self.embedders: dict[str, Engine] = {}
        self.labels: tuple[str, ...] = ()
        self._steerable: dict[str, CascadeNode | ShadowNode | SplitNode] = {}
        self._arms: dict[str, Node] = {}
        self.n_active = 0
        self._is_retired = False
        self._is_idle = asyncio.Event()
        self.route: Route | None = None
        self.root: Node | None = None

    async def start(self) -> None:
        """Open everything; nothing is left open when one part fails.

        Raises:
            JettisonError: A release brings no proof, a model does not load, a key is not set.
        """
        try:
            await self._start()
        except BaseException:  # cancelled too: no child may outlive us; it is raised again
            await self.close()
            raise

    async def _start(self) -> None:
        config = self.config
        folders = {"": config.release, **config.releases}
        for name, folder in folders.items():
            if folder is not None:
                found = await asyncio.to_thread(open_proven, Path(folder).resolve(), config.proof)
                self.proven[name] = found
                if found.doubts:
                    tell("unproven", release=found.release.name, doubts=list(found.doubts))
        if "" in self.proven:
            self.labels = self.proven[""].release.labels
        for name, upstream in config.upstreams.items():
            self.upstreams[name] = Upstream(name, upstream, self.metrics)
        for name, folder in config.embedders.items():
            child = Child(f"embedder-{name}", "embedder", Path(folder), config.engine, self.metrics)
            self.embedders[name] = child
        self.route = config.route or self._default_route()
        self.root = None if self.route is None else self._node(self.route, "")
        await asyncio.gather(
            *(engine.start() for engine in (*self.engines.values(), *self.embedders.values()))
        )
        idle = sorted(set(config.guardrails) - self.guardrails)
        if idle:
            tell("guardrails_idle", guardrails=idle, why="no route asks them, /v1/moderations alone does")
        self._tell_metrics()

    def _default_route(self) -> Route | None:
        """The release's own plan; before an `incumbent`, its lean arm with the incumbent behind."""
        config = self.config
        if "" not in self.proven:
            if not config.upstreams:
                return None
            return Single(candidate=f"upstream:{next(iter(config.upstreams))}")
        if "incumbent" not in config.upstreams:
            return Single(candidate="release")
        behind = Single(candidate="upstream:incumbent")
        found = self._cascade_of("")
        if found is None:
            # No threshold was certified: the release answers whatever it can answer.
            return Cascade(lean=Single(candidate="release"), fallback=behind, threshold=0.0)
        lean = Single(candidate="release/lean")
        return msgspec.structs.replace(found[1], lean=lean, fallback=behind)

    def _cascade_of(self, name: str) -> tuple[Candidate, Cascade] | None:
        """The cascade that a release is; None where it is one model."""
        release = self.proven[name].release
        if not isinstance(release.route, Single):
            return None
        candidate = read_candidate(release, release.route.candidate)
        if candidate.backend != "cascade":
            return None
        return candidate, msgspec.convert(candidate.settings["route"], Cascade)

    def _node(self, route: Route, place: str) -> Node:
        match route:
            case Single(candidate=name):
                return self._target(name, place)
            case Cascade():
                lean = self._node(route.lean, _inside(place, "lean"))
                fallback = self._node(route.fallback, _inside(place, "fallback"))
                return self._cascade(route, lean, fallback, place, **self._flags_of(route.lean))
            case Shadow():
                main = self._node(route.main, _inside(place, "main"))
                shadow = self._node(route.shadow, _inside(place, "shadow"))
                node = ShadowNode(main, shadow, route.shadow_share, behind=self.behind)
                self._steerable[place] = node
                return node
            case Split():
                control = self._node(route.control, _inside(place, "control"))
                treatment = self._node(route.treatment, _inside(place, "treatment"))
                split = SplitNode(control, treatment, route.treatment_share, route.salt)
                self._steerable[place] = split
                return split
            case Guarded():
                return self._guarded(route, place)

    def _cascade(self, route: Cascade, lean: Node, fallback: Node, place: str, **given: Any) -> Node:
        node = CascadeNode(
            lean,
            fallback,
            route,
            behind=self.behind,
            metrics=self.metrics,
            audit_share=self.config.audit_share,
            tracing=self._tracing,
            **given,
        )
        self._steerable[place] = node
        return node

    def _flags_of(self, lean: Route) -> dict[str, Any]:
        """What the lean release knows of inputs that are out of scope."""
        if not isinstance(lean, Single) or not lean.candidate.startswith("release"):
            return {}
        name = _release_name(lean.candidate)
        release = self.proven[name].release
        escalates = True
        found = self._cascade_of(name)
        if found is not None:
            escalates = bool(found[0].settings.get("escalate_flagged", True))
        return {"out_of_scope": release.out_of_scope, "escalate_flagged": escalates}

    def _guarded(self, route: Guarded, place: str) -> Node:
        try:
            guardrails = importlib.import_module("jettison.serve.guardrails")
        except ModuleNotFoundError as error:
            raise InvalidInput("this build has no guardrails.") from error
        table = {name: self.config.guardrails[name] for name in route.guardrails}
        opened = guardrails.read_guardrails(table)
        is_quick = all(
            one.get("use", name) in QUICK and one.get("timeout_s") is None for name, one in table.items()
        )
        rails = Rails(
            guardrails.Chain(opened),
            stream_guard=guardrails.StreamGuard,
            metrics=self.metrics,
            is_quick=is_quick,
        )
        return GuardedNode(self._node(route.inner, place), rails)

    def _target(self, name: str, place: str) -> Node:
        if name.startswith("upstream:"):
            upstream = self.upstreams[name[9:]]
            asked = UpstreamArm(upstream, self.labels, upstream.config.prompt or self._prompt())
            return self._traced(asked, model=upstream.config.model, url=upstream.config.url)
        if name in ("release/lean", "release/fallback"):
            found = self._cascade_of("")
            if found is None:
                raise InvalidInput(
                    f"$.route: {name} must be an arm of a cascade, but the release is one model."
                )
            candidate, route = found
            arm = route.lean if name.endswith("lean") else route.fallback
            return self._arm_of(candidate, arm, place)
        return self._release_node(_release_name(name), place)

    def _release_node(self, name: str, place: str) -> Node:
        """A release's plan; a cascade is taken apart, so that each arm has its own engine or upstream."""
        release = self.proven[name].release
        if not isinstance(release.route, Single):
            return self._node(_within(release.route, name), place)
        candidate = read_candidate(release, release.route.candidate)
        if candidate.backend == "cascade":
            route = msgspec.convert(candidate.settings.get("route"), Cascade)
            if route.combine == "fallback":
                return self._arm_of(candidate, route, place, outermost=True)
        return self._candidate_node(candidate)

    def _arm_of(self, cascade: Candidate, route: Route, place: str, *, outermost: bool = False) -> Node:
        match route:
            case Single(candidate=folder):
                return self._candidate_node(Candidate.at(cascade.path / folder))
            case Cascade(combine="fallback"):
                return self._cascade(
                    route,
                    self._arm_of(cascade, route.lean, _inside(place, "lean")),
                    self._arm_of(cascade, route.fallback, _inside(place, "fallback")),
                    place,
                    escalate_flagged=bool(cascade.settings.get("escalate_flagged", True)),
                    out_of_scope=cascade.out_of_scope,
                    ranks=_ranks(cascade) if outermost else None,
                    abstains=outermost and cascade.settings.get("when_out_of_scope") == "abstain",
                )
        raise BrokenArtifact(f"{cascade.path} must be made of single candidates and cascades.")

    def _candidate_node(self, candidate: Candidate) -> Node:
        """One engine for each candidate, however often the plan names it."""
        if candidate.digest in self._arms:
            return self._arms[candidate.digest]
        node: Node
        if candidate.backend in ENDPOINTS:
            node = self._endpoint(candidate)
        else:
            engine: Engine
            if candidate.backend in self.config.engine.in_process:
                engine = InProcess(candidate)
            else:
                engine = Child(
                    f"{candidate.name}-{candidate.digest[:8]}",
                    "candidate",
                    candidate.path,
                    self.config.engine,
                    self.metrics,
                )
            self.engines[candidate.digest] = engine
            node = self._traced(LocalArm(candidate, engine, self.config.input), model=candidate.name)
        self._arms[candidate.digest] = node
        return node

    def _endpoint(self, candidate: Candidate) -> Node:
        """A release's own endpoint is an upstream, under its own settings and prompt."""
        from jettison.backends.endpoint import read_endpoint

        endpoint = read_endpoint(candidate)
        config = UpstreamConfig(
            url=endpoint.url,
            model=endpoint.model,
            api_key_env=endpoint.api_key_env,
            connect_s=endpoint.connect_s,
            first_byte_s=endpoint.first_byte_s,
            total_s=endpoint.total_s,
            usd_per_million_input=endpoint.usd_per_million_input,
            usd_per_million_output=endpoint.usd_per_million_output,
        )
        name = f"{candidate.name}-{candidate.digest[:8]}"
        upstream = Upstream(name, config, self.metrics)
        upstream.digest = candidate.digest
        self.upstreams[name] = upstream
        arm = UpstreamArm(upstream, candidate.labels, candidate.settings.get("prompt"))
        return self._traced(arm, model=config.model, url=config.url)

    def _traced(self, node: Node, *, model: str | None, url: str | None = None) -> Node:
        if self._tracing is None:
            return node
        provider = "jettison" if url is None else "openai"
        return self._tracing.arm(node, model=model, url=url, provider=provider)

    def _prompt(self) -> Any:
        """The prompt of the endpoint that stands in the release, for an incumbent elsewhere."""
        if "" not in self.proven:
            return None
        release = self.proven[""].release
        for file in sorted(release.path.glob("candidates/**/candidate.json")):
            candidate = Candidate.at(file.parent)
            if "prompt" in candidate.settings:
                return candidate.settings["prompt"]
        return None

    def embedder_of(self, name: str, *, whole: str) -> Engine | None:
        """What embeds under a name: one of `embedders`, or the release under the name of the whole.

        Where no upstream can be meant, the only one there is answers to every name. Vectors of two models
        do not compare: of releases and arms with several engines, none embeds.
        """
        if name in self.embedders:
            return self.embedders[name]
        released = [e for e in self.engines.values() if e.can_embed] if len(self.engines) == 1 else []
        if released and name == whole:
            return released[0]
        local = [*self.embedders.values(), *released]
        return local[0] if len(local) == 1 and not self.upstreams else None

    def steer(self, control: Control) -> None:
        """Put shares and thresholds in force.

        Raises:
            InvalidInput: A place is none of this plan, or has nothing of that kind.
        """
        for place, wanted in control.routes.items():
            node = self._steerable.get(place)
            if node is None:
                raise InvalidInput(
                    f"control.json must name places among {sorted(self._steerable)}, got {place!r}."
                )
            given = {name for name in RouteControl.__struct_fields__ if getattr(wanted, name) is not None}
            strange = given - set(node.weights)
            if strange:
                raise InvalidInput(
                    f"control.json may set {sorted(node.weights)} at {place!r}, got {sorted(strange)}."
                )
        for place, node in self._steerable.items():
            node.steer(control.routes.get(place, RouteControl()))
        self._tell_weights()

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """Shares and thresholds in force, by place."""
        return {place: node.weights for place, node in self._steerable.items()}

    @property
    def guardrails(self) -> frozenset[str]:
        """Names of those that requests and replies go through."""
        return frozenset() if self.route is None else guardrails_of(self.route)

    @property
    def is_unproven(self) -> bool:
        """Whether any release is served without its proof."""
        return any(found.doubts for found in self.proven.values())

    @property
    def not_ready(self) -> list[str]:
        """Engines that would not answer now."""
        return [e.name for e in (*self.engines.values(), *self.embedders.values()) if not e.is_ready]

    def _tell_metrics(self) -> None:
        self.metrics.release.clear()
        self.metrics.unproven.clear()
        for found in self.proven.values():
            release = found.release
            self.metrics.release.labels(release.name, release.digest[:16], release.verdict).set(1)
            for doubt in found.doubts:
                self.metrics.unproven.labels(release.name, doubt).set(1)
        self._tell_weights()

    def _tell_weights(self) -> None:
        self.metrics.weight.clear()
        for place, weights in self.weights.items():
            for kind, value in weights.items():
                self.metrics.weight.labels(place, kind).set(value)

    def enter(self) -> None:
        """A request begins under this plan."""
        self.n_active += 1

    def leave(self) -> None:
        """It has ended."""
        self.n_active -= 1
        if self._is_retired and self.n_active == 0:
            self._is_idle.set()

    async def retire(self, within_s: float) -> None:
        """Close once the requests under way have ended, or after so long."""
        self._is_retired = True
        if self.n_active:
            try:
                await asyncio.wait_for(self._is_idle.wait(), within_s)
            except TimeoutError:
                tell("plan_closed_busy", in_flight=self.n_active)
        await self.close()

    async def close(self) -> None:
        """Close engines and upstreams."""
        await self.behind.close()
        for engine in (*self.engines.values(), *self.embedders.values()):
            await engine.close()
        for upstream in self.upstreams.values():
            await upstream.close()


def _inside(place: str, arm: str) -> str:
    return f"{place}/{arm}" if place else arm


def _release_name(target: str) -> str:
    return target[8:] if target.startswith("release:") else ""


def _within(route: Route, name: str) -> Route:
    raise InvalidInput(
        f"a release to serve must route to one candidate, got a {type(route).__name__.lower()}. "
        "Write the route into serve.toml."
    )


def _ranks(candidate: Candidate) -> Any:
    from jettison.model import ScopeRanks

    return ScopeRanks.of(candidate.calibration)
