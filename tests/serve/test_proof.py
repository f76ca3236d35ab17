"""A release is served with its proof, or where that is asked for and said."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from gateways import ask, config_of, request, running
from jettison.decision import Verdict
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.serve.config import ProofConfig
from jettison.serve.proof import open_proven
from releasing import make_candidate, make_decision, make_release


def test_a_release_that_was_altered_is_never_served(tmp_path):
    make_release(tmp_path)
    weights = tmp_path / "7" / "candidates" / "0" / "weights.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"other weights")
    for unproven in (False, True):
        with pytest.raises(BrokenArtifact, match="it was altered"):
            open_proven(tmp_path / "7", ProofConfig(unproven=unproven))


@pytest.mark.parametrize("case", ["hold", "too_old", "past_date"])
def test_a_release_without_its_proof_is_refused_unless_told(tmp_path, case):
    candidate = make_candidate(tmp_path / "candidate")
    decision = make_decision(candidate)
    given = {}
    if case == "hold":
        decision = msgspec.structs.replace(decision, verdict=Verdict.BLOCK)
    if case == "past_date":
        given["proven_until"] = "2026-11-15"
    make_release(tmp_path, candidate=candidate, decision=decision, **given)
    config = ProofConfig(max_age_days=10 if case == "too_old" else None)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="a release to serve must bring its proof"):
        open_proven(tmp_path / "7", config, now=now)
    told = open_proven(tmp_path / "7", msgspec.structs.replace(config, unproven=True), now=now)
    assert told.doubts == (case,)


def test_serving_unproven_is_said_everywhere(tmp_path, capfd):
    candidate = make_candidate(tmp_path / "candidate")
    decision = msgspec.structs.replace(make_decision(candidate), verdict=Verdict.NOT_ENOUGH_DATA)
    make_release(tmp_path, candidate=candidate, decision=decision)
    config = config_of(tmp_path, release=str(tmp_path / "7"), proof=ProofConfig(unproven=True))
    with running(config) as gateway:
        assert ask(gateway, "pear").headers["x-jettison-unproven"] == "true"
        assert request(gateway.port, "GET", "/v1/models").json["data"][0]["jettison"]["unproven"] == [
            "hold"
        ]
        assert request(gateway.port, "GET", "/health/ready").json["unproven"] == ["hold"]
        assert (
            b'jettison_unproven{reason="hold",release="7"} 1.0'
            in request(gateway.port, "GET", "/metrics").raw
        )


def test_proof_ages_by_the_clock(release):
    proven_on = datetime(2026, 11, 1, tzinfo=UTC)
    found = open_proven(Path(release), ProofConfig(max_age_days=30), now=proven_on + timedelta(days=29))
    assert (found.age_days, found.doubts) == (29.0, ())
