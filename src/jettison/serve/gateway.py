"""A running gateway: the plan in force, the log, the keys; reloads and steers them without a pause."""

import asyncio
import importlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from jettison.control import CONTROL_FILE, Control, problem_in
from jettison.errors import CannotWrite, InvalidInput, JettisonError
from jettison.files import read_json, write_atomic
from jettison.incident import INCIDENTS_FILE, Incidents
from jettison.record import Record
from jettison.serve.access import Access
from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply
from jettison.serve.config import ServeConfig
from jettison.serve.metrics import Metrics
from jettison.serve.plan import Plan
from jettison.serve.reading import TaskText
from jettison.serve.records import hashed_key
from jettison.serve.tell import tell
from jettison.serve.tracing import Tracing
from jettison.serve.traffic_log import TrafficLog
from jettison.serve.ui import Ui

SALT_FILE = "salt"
WATCH_S = 0.5
PROBE_S, PROBE_TEXT = 2.0, "health"
MOST_INCIDENTS = 500
"""Counts put on the page: labels stay few."""


class Gateway:
    """What the application asks for everything. All of it on one event loop.

    Args:
        config: Checked.
        read_again: Gives the configuration as it stands now, for a reload; None cannot be reloaded.
        watched: Files whose change asks for a reload.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        read_again: Callable[[], ServeConfig] | None = None,
        watched: tuple[Path, ...] = (),
    ) -> None:
        self.config = config
        self.metrics = Metrics()
        self.state = Path(config.state)
        self.n_open = 0
        self.is_draining = False
        self.plan: Plan
        self.log: TrafficLog | None = None
        self.access = Access(config.keys, self.state)
        self.task_text = TaskText(config.input)
        self.tracing: Tracing | None = None
        self.ui = Ui(config)
        self._salt = b""
        self._read_again, self._watched = read_again, watched
        self._seen = self._stamps()
        self._control_stamp: Any = None
        self._control = Control()
        self._tasks: list[asyncio.Task[None]] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._moderation: Any = None
        self._probe: tuple[float, dict[str, Any]] | None = None
        self._probing: asyncio.Task[dict[str, Any]] | None = None
        self._n_told = (0, 0)
        self._incidents_stamp: Any = None

    async def start(self) -> None:
        """Start everything that answers.

        Raises:
            JettisonError: A part cannot start; nothing is left running.
        """
        self._salt = _salt(self.state)
        self._moderation = open_guardrails(self.config)
        if self.config.tracing.is_on:
            self.tracing = Tracing(self.config.tracing)
        plan = Plan(self.config, self.metrics, self.record, self.tracing)
        await plan.start()
        self.plan = plan
        if self.config.log.is_on:
            self.log = TrafficLog(self.state / "traffic", self.config.log, salt=self._salt)
        self._take_control()
        self._tasks.append(asyncio.create_task(self._look_after()))
        self.metrics.ready.set(1)

    async def close(self) -> None:
        """Stop everything, the log last."""
        under_way = [*self._tasks, *self._retiring]
        probing: list[asyncio.Task[Any]] = [] if self._probing is None else [self._probing]
        for task in (*under_way, *probing):
            task.cancel()
        await asyncio.gather(*under_way, *probing, return_exceptions=True)
        await self.plan.close()
        await self.ui.close()
        self._save_usage()
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
        if self.tracing is not None:
            await self.tracing.close()

    # What answers look at

    @property
    def model_name(self) -> str:
        """Under which clients know the whole."""
        if self.config.model is not None:
            return self.config.model
        main = self.plan.proven.get("")
        if main is not None:
            return main.release.task
        return next(iter(self.plan.upstreams), "jettison")

    @property
    def model_names(self) -> frozenset[str]:
        """All names that may be asked for by path."""
        return frozenset({self.model_name, *self.plan.embedders})

    @property
    def release_digest(self) -> str:
        """Of the main release; empty where there is none."""
        main = self.plan.proven.get("")
        return "" if main is None else main.release.digest

    @property
    def passes_other(self) -> bool:
        """Whether paths of no known API go to an upstream."""
        return self.config.pass_other and bool(self.plan.upstreams)

    @property
    def is_pass_through(self) -> bool:
        """Whether all it does is pass on: then the models are the upstream's, under its own names."""
        is_bare = not self.plan.proven and not self.plan.embedders and self.config.model is None
        return self.passes_other and is_bare and len(self.plan.upstreams) == 1

    @property
    def has_guardrails(self) -> bool:
        """Whether `/v1/moderations` has anything to say."""
        return self._moderation is not None

    def said(self, reply: Reply) -> str:
        """What a client reads as the answer: a label in the words that it expects."""
        assert reply.answer is not None
        text = reply.answer.text
        if not reply.is_label:
            return text
        config = self.config.input
        word = config.words.get(text, text)
        if config.says_json:
            word = msgspec.json.encode(word).decode()[1:-1]
        return config.answer.replace("{label}", word)

    def models(self) -> list[dict[str, Any]]:
        """Items of `/v1/models`."""
        created = int(time.time())
        main: dict[str, Any] = {
            "id": self.model_name,
            "object": "model",
            "created": created,
            "owned_by": "jettison",
        }
        found = self.plan.proven.get("")
        if found is not None:
            release = found.release
            main["jettison"] = {
                "release": release.name,
                "digest": release.digest,
                "verdict": release.verdict,
                "headline": release.headline,
                "proven_on": release.proven_on,
                "proven_until": release.proven_until,
                "unproven": list(found.doubts),
                "labels": list(release.labels),
                "weights": self.plan.weights,
            }
        embedders = [
            {"id": name, "object": "model", "created": created, "owned_by": "jettison"}
            for name in self.plan.embedders
        ]
        return [main, *embedders]

    def moderate(self, text: str) -> dict[str, Any]:
        """One result of `/v1/moderations`."""
        verdicts = {one.name: one.check(text, where="input") for one in self._moderation}
        hits = {name: verdict.action != "pass" for name, verdict in verdicts.items()}
        scores = {
            name: verdict.score if verdict.score is not None else float(hits[name])
            for name, verdict in verdicts.items()
        }
        return {
            "flagged": any(hits.values()),
            "categories": hits,
            "category_scores": scores,
            "category_applied_input_types": {name: ["text"] for name in hits},
            "actions": {name: verdict.action for name, verdict in verdicts.items()},
        }

    def record(self, record: Record, call: Call, *, is_label: bool | None = None) -> None:
        """Log one record of a call; never waits, never raises."""
        if self.log is None:
            return
        key = hashed_key(call.key, self._salt) if call.is_sticky else None
        experiment = self._control.experiment or self.config.experiment
        record = msgspec.structs.replace(record, key=key, experiment=experiment)
        if self.config.log.whole_requests and call.operation == "chat":
            record = msgspec.structs.replace(record, input=_messages(call))
        known = record.output in self.plan.labels if is_label is None else is_label
        self.log.put(record, is_label=known)

    # Health

    async def health(self) -> dict[str, Any]:
        """All that readiness depends on, and what is merely broken; asked anew at most once a second.

        However many ask at once, an engine is asked once: one that hangs is not buried in probes.
        """
        now = time.monotonic()
        if self._probe is not None and now - self._probe[0] <= 1.0 and not self.is_draining:
            return self._probe[1]
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._asked_health())
        self._probe = now, await asyncio.shield(self._probing)
        return self._probe[1]

    async def _asked_health(self) -> dict[str, Any]:
        embedders = self.plan.embedders.values()
        asked = (*self.plan.engines.values(), *embedders)
        states = await asyncio.gather(*(_answers(one, is_embedder=one in embedders) for one in asked))
        engines = {one.name: state for one, state in zip(asked, states, strict=True)}
        found: dict[str, Any] = {
            "status": "ready",
            "engines": engines,
            "upstreams": {name: one.breaker.state for name, one in self.plan.upstreams.items()},
            "log": self._log_state(),
            "unproven": sorted({d for one in self.plan.proven.values() for d in one.doubts}),
            "in_flight": self.n_open,
        }
        if self.is_draining:
            found["status"] = "draining"
        elif any(state != "ready" for state in engines.values()):
            found["status"] = "not_ready"
        self.metrics.ready.set(found["status"] == "ready")
        return found

    def _log_state(self) -> dict[str, Any]:
        if self.log is None:
            return {"status": "off"}
        state = self.log.state
        return {
            "status": "ok" if state.problem is None else "broken",
            "problem": state.problem,
            "roll_problem": state.roll_problem,
            "written": state.n_written,
            "dropped": state.n_dropped,
        }

    def tell_metrics(self) -> None:
        """Bring the metrics that are not counted as they happen up to date."""
        if self.log is not None:
            state = self.log.state
            self.metrics.log_broken.set(state.problem is not None)
            self.metrics.log_rows("written", state.n_written - self._n_told[0])
            self.metrics.log_rows("dropped", state.n_dropped - self._n_told[1])
            self._n_told = state.n_written, state.n_dropped
        for name, upstream in self.plan.upstreams.items():
            self.metrics.breaker.labels(name).set(upstream.breaker.state != "closed")
        self._tell_incidents()

    def _tell_incidents(self) -> None:
        """Put on the page what the watcher counted, where it wrote anew."""
        path = self.state / INCIDENTS_FILE
        stamp = _stamp(path)
        if stamp == self._incidents_stamp:
            return
        self._incidents_stamp = stamp
        try:
            counts = () if stamp is None else read_json(path, Incidents).counts[:MOST_INCIDENTS]
        except JettisonError as error:
            tell("incidents_not_read", error=str(error))
            return
        self.metrics.incidents(counts)

    # Changes while it runs

    async def _look_after(self) -> None:
        """Watch the files that steer it, and save what must outlive it."""
        saved = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_S)
            self._take_control()
            stamps = self._stamps()
            if self.config.watch and stamps != self._seen:
                self._seen = stamps
                await self.reload()
            if time.monotonic() - saved > 5:
                saved = time.monotonic()
                self._save_usage()

    def _stamps(self) -> list[Any]:
        return [*(_stamp(place) for place in self._watched), *_folder_stamps(self.config)]

    def _save_usage(self) -> None:
        try:
            self.access.save()
        except CannotWrite as error:
            tell("usage_not_saved", error=str(error))

    def _take_control(self) -> None:
        """Put `control.json` in force where it has changed; what does not fit is refused as a whole."""
        path = self.state / CONTROL_FILE
        stamp = _stamp(path)
        if stamp == self._control_stamp:
            return
        self._control_stamp = stamp
        try:
            control = Control() if stamp is None else read_control(path)
            self.plan.steer(control)
        except InvalidInput as error:
            self.metrics.reloaded("control_refused")
            tell("control_refused", error=str(error))
            return
        self._control = control
        self.metrics.reloaded("control")
        tell("control", weights=self.plan.weights, experiment=control.experiment, reason=control.reason)

    async def reload(self) -> bool:
        """Read the configuration again and swap the plan; a faulty one is refused and the old one kept."""
        if self._read_again is None or self.is_draining:
            return False
        async with self._reloading:
            try:
                # What changes from here on is read the next time.
                seen = [_stamp(place) for place in self._watched]
                config = self._read_again()
                seen += _folder_stamps(config)
                _check_same_ground(self.config, config)
                moderation = open_guardrails(config)
                plan = Plan(config, self.metrics, self.record, self.tracing)
                await plan.start()
            except (JettisonError, ApiError, OSError) as error:
                self.metrics.reloaded("refused")
                tell("reload_refused", error=str(error))
                return False
            try:
                plan.steer(self._control)
            except InvalidInput as error:
                tell("control_refused", error=str(error))
            old, self.plan = self.plan, plan
            self.access = Access(config.keys, self.state, before=self.access)
            self.task_text, self.config, self._moderation = TaskText(config.input), config, moderation
            self._probe = None
            if not self.ui.is_same(config):
                shown, self.ui = self.ui, Ui(config)
                await shown.close()
            if self.log is not None:
                self.log.config = config.log
            self._seen = seen
            self._retire(old)
        self.metrics.reloaded("taken")
        tell("reloaded", release=self.release_digest[:12], weights=plan.weights)
        return True

    def _retire(self, plan: Plan) -> None:
        task = asyncio.create_task(plan.retire(self.config.drain_s + 600.0))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _folder_stamps(config: ServeConfig) -> list[Any]:
    folders = (config.release, *config.releases.values())
    return [_stamp(Path(folder)) for folder in folders if folder is not None]


def read_control(path: Path) -> Control:
    """Read `control.json`.

    Raises:
        InvalidInput: It does not fit; the message has the path of the fault.
    """
    try:
        control = msgspec.json.decode(path.read_bytes(), type=Control)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}") from error
    problem = problem_in(control)
    if problem is not None:
        raise InvalidInput(f"{path}: {problem}")
    return control


async def _answers(engine: Any, *, is_embedder: bool) -> str:
    """Ask an engine a real question."""
    if not engine.is_ready:
        return "down"
    try:
        async with asyncio.timeout(PROBE_S):
            await (engine.embed([PROBE_TEXT]) if is_embedder else engine.predict([PROBE_TEXT]))
    except TimeoutError:
        return "slow"
    except ApiError as error:
        # A full queue is an engine that works.
        return "ready" if error.code == "engine_busy" else error.code
    return "ready"


def open_guardrails(config: ServeConfig) -> Any:
    """All guardrails of a configuration; None where it has none.

    Raises:
        JettisonError: A setting does not fit, or a model that one needs is not there.
    """
    if not config.guardrails:
        return None
    try:
        guardrails = importlib.import_module("jettison.serve.guardrails")
    except ModuleNotFoundError as error:
        raise InvalidInput("this build has no guardrails.") from error
    return guardrails.read_guardrails(config.guardrails)


def _check_same_ground(old: ServeConfig, new: ServeConfig) -> None:
    for name in ("host", "port", "state"):
        if getattr(old, name) != getattr(new, name):
            raise InvalidInput(
                f"{name} cannot change while the gateway runs, got {getattr(new, name)!r}. Start it anew."
            )
    if old.log.is_on != new.log.is_on:
        raise InvalidInput("log.is_on cannot change while the gateway runs. Start it anew.")
    if old.tracing != new.tracing:
        raise InvalidInput("tracing cannot change while the gateway runs. Start it anew.")


def _messages(call: Call) -> str:
    """All messages of a chat, as a log of requests has them."""
    return msgspec.json.encode(call.body.get("messages")).decode()


def _stamp(path: Path) -> Any:
    """What changes when a file, a folder or a link does; None where there is nothing."""
    try:
        found = path.stat()
        target = os.readlink(path) if path.is_symlink() else ""
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, target


def _salt(state: Path) -> bytes:
    """Random, made once: without it nobody can try whose hash stands in a record."""
    path = state / SALT_FILE
    try:
        found = path.read_bytes()
        if len(found) == 32:
            return found
    except OSError:
        pass
    salt = secrets.token_bytes(32)
    try:
        write_atomic(path, salt)
        os.chmod(path, 0o600)
    except (CannotWrite, OSError) as error:
        # A gateway whose disk is full from the start still serves; hashes then last as long as it does.
        tell("salt_not_kept", error=str(error))
    return salt
