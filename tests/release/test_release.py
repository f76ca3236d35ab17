import json
import shutil
import subprocess
from datetime import UTC, datetime

import msgspec
import pytest

from jettison.backends.open import open_model
from jettison.backends.released import open_release_model
from jettison.candidate import CUT_NOTE, AppliedStep, Candidate, write_candidate
from jettison.decision import CostSummary, GateResult, Interval, Verdict
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.evaluate import evaluate, reference_profile
from jettison.files import file_sha256, read_json
from jettison.release import open_release, read_decision, read_profile, verify_release
from jettison.release.card import _cost_table, _made_by, model_card
from jettison.release.profile import token_counts
from jettison.release.read import list_release_files
from jettison.release.types import RELEASE_FILE, ReleaseFacts
from jettison.route import Shadow, Single
from releasing import EXAMPLES, LABELS, make_candidate, make_decision, make_release


@pytest.fixture
def release(tmp_path):
    return make_release(tmp_path)


def loosen(path):  # type: ignore[no-untyped-def]
    path.chmod(0o644)
    return path


def test_what_is_written_is_what_is_opened(release):
    again = open_release(release.path)
    assert again == release
    assert verify_release(release.path) == release
    assert release.name == "7"
    assert release.route == Single(candidate="candidates/0")
    assert (release.task, release.verdict, release.licence) == ("fruit", "SHIP", "Apache-2.0")
    assert release.proven_on == "2026-11-01T00:00:00+00:00"
    assert release.requires.keys() == {"python", "jettison", "numpy"}


def test_a_release_answers_as_its_candidate_did(release, tmp_path):
    texts = [e.input for e in EXAMPLES]
    before = open_model(Candidate.at(tmp_path / "candidate")).predict(texts)
    for opened in (release, release.path, str(release.path)):
        after = open_release_model(opened).predict(texts)
        assert [(o.label, o.confidence, o.in_scope) for o in after] == [
            (o.label, o.confidence, o.in_scope) for o in before
        ]


def test_a_release_stands_alone(release, tmp_path):
    shutil.move(release.path, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "candidate")
    shutil.rmtree(tmp_path / "records")
    verify_release(tmp_path / "elsewhere")
    assert open_release_model(tmp_path / "elsewhere").predict(["pear"])[0].label == "pear"


def test_decision_and_profile_are_carried(release, tmp_path):
    assert read_decision(release) == make_decision(Candidate.at(tmp_path / "candidate"))
    assert read_profile(release).n_inputs == len(EXAMPLES)


def test_sha256sum_agrees_with_the_manifest(release):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "MANIFEST"], cwd=release.path, check=False
    )
    assert done.returncode == 0


def test_any_flipped_byte_in_any_file_is_found(release):
    for name in list_release_files(release.path):
        path = loosen(release.path / name)
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(BrokenArtifact, match=r"altered|must be"):
                open_release(release.path)
        path.write_bytes(whole)
    assert open_release(release.path) == release


def test_a_missing_file_is_found(release):
    (release.path / "candidates/0/weights.safetensors").unlink()
    with pytest.raises(BrokenArtifact, match=r"weights\.safetensors must be there, got nothing"):
        open_release(release.path)


def test_an_added_file_is_found(release):
    (release.path / "candidates/0/extra.txt").write_text("x")
    with pytest.raises(BrokenArtifact, match=r"must hold only its own files, got candidates/0/extra\.txt"):
        open_release(release.path)


def test_a_link_in_place_of_a_file_is_found(release, tmp_path):
    path = release.path / "profile.json"
    shutil.copy(path, tmp_path / "outside.json")
    path.unlink()
    path.symlink_to(tmp_path / "outside.json")
    with pytest.raises(BrokenArtifact, match="must be a file of the release, got a link"):
        open_release(release.path)


def test_a_torn_manifest_is_found(release):
    path = loosen(release.path / "MANIFEST")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BrokenArtifact):
        open_release(release.path)
    path.write_text("nonsense\n")
    with pytest.raises(BrokenArtifact, match="MANIFEST must have a digest and a path at line 1"):
        open_release(release.path)
    path.unlink()
    with pytest.raises(BrokenArtifact, match="MANIFEST must be readable text"):
        open_release(release.path)


def test_parts_of_two_releases_do_not_make_one(release, tmp_path):
    other = make_release(tmp_path / "o", candidate=make_candidate(tmp_path / "c2", accuracy=0.5))
    shutil.rmtree(release.path / "candidates/0")
    shutil.copytree(other.path / "candidates/0", release.path / "candidates/0")
    lines = (release.path / "MANIFEST").read_text().splitlines()
    donor = {line.split("  ")[1]: line for line in (other.path / "MANIFEST").read_text().splitlines()}
    mixed = [donor[line.split("  ")[1]] if "candidates/" in line else line for line in lines]
    loosen(release.path / "MANIFEST").write_text("\n".join(mixed) + "\n")
    open_release(release.path)  # the bytes are as the manifest says
    with pytest.raises(BrokenArtifact, match=r"candidates/0 must have digest"):
        verify_release(release.path)


def test_without_verifying_the_disk_is_trusted(release):
    loosen(release.path / "README.md").write_text("edited")
    assert open_release(release.path, verify=False) == release


def test_a_folder_without_a_release_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"must be a release, got a place without release\.json"):
        open_release(tmp_path)


def test_a_later_format_asks_for_an_upgrade(release):
    path = loosen(release.path / "release.json")
    path.write_bytes(msgspec.json.encode({"format": 99, "new": "things"}))
    with pytest.raises(InvalidInput, match=r"must be of format 1 or older, got 99\. Upgrade jettison"):
        open_release(release.path)


def test_a_route_cannot_lead_out_of_the_release(release):
    path = loosen(release.path / "release.json")
    facts = json.loads(path.read_text())
    facts["route"]["candidate"] = "../candidate"
    path.write_text(json.dumps(facts))
    with pytest.raises(BrokenArtifact, match=r"must route to its own candidates, got '\.\./candidate'"):
        open_release(release.path, verify=False)


def with_facts(release, **changes):
    """Change release.json as somebody would who can write a manifest, too."""
    path = loosen(release.path / "release.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    manifest = loosen(release.path / "MANIFEST")
    lines = [line for line in manifest.read_text().splitlines() if not line.endswith("  release.json")]
    manifest.write_text("\n".join([*lines, f"{file_sha256(path)}  release.json"]) + "\n")


@pytest.mark.parametrize("absolute", [True, False])
def test_evidence_cannot_lie_outside_the_release(release, tmp_path, absolute):
    outside = tmp_path / "secret"
    outside.write_text("x")
    name = str(outside) if absolute else "../../secret"
    with_facts(release, evidence={name: file_sha256(outside)})
    with pytest.raises(BrokenArtifact, match=r"release\.json must name its own evidence, got "):
        verify_release(release.path)


@pytest.mark.parametrize("name", ["proven_on", "proven_until"])
def test_a_proof_without_a_date_is_refused(release, name):
    with_facts(release, **{name: "soon"})
    with pytest.raises(BrokenArtifact, match=rf"{name} must be a date as 2027-01-31, got 'soon' in "):
        verify_release(release.path)


def test_a_route_for_a_gateway_is_refused(release):
    shadow = msgspec.structs.replace(
        release, route=Shadow(main=release.route, shadow=release.route, shadow_share=0.1)
    )
    with pytest.raises(InvalidInput, match="must route to one candidate, got a Shadow"):
        open_release_model(shadow)


def test_a_release_is_never_overwritten(release, tmp_path):
    with pytest.raises(InvalidInput, match=r"a release must go to a new folder, got .*7, which is there"):
        make_release(tmp_path, candidate=Candidate.at(tmp_path / "candidate"))
    assert open_release(release.path) == release


def test_files_of_a_release_are_read_only(release):
    for path in release.path.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o444


def test_nothing_is_left_of_a_release_that_failed(tmp_path):
    candidate = make_candidate(tmp_path / "c")
    decision = make_decision(candidate)
    profile = reference_profile(evaluate(candidate, EXAMPLES[:3], split="dev"), ["a", "b", "c"])
    from jettison.release import write_release

    with pytest.raises(InvalidInput, match="evidence must be files of records, got nothing at"):
        write_release(
            tmp_path / "r" / "1", candidate=candidate, decision=decision, task_name="t", profile=profile,
            evidence=[tmp_path / "absent.parquet"],
        )  # fmt: skip
    assert list((tmp_path / "r").iterdir()) == []


def test_a_candidate_the_decision_did_not_choose_is_refused(tmp_path):
    candidate = make_candidate(tmp_path / "c")
    with pytest.raises(InvalidInput, match=r"the candidate that the decision chose, got 'lean\|er'"):
        make_release(tmp_path, candidate=candidate, decision=make_decision(candidate, chosen=None))


def test_a_candidate_the_decision_never_saw_is_refused(tmp_path):
    judged = make_candidate(tmp_path / "c")
    other = make_candidate(tmp_path / "d", accuracy=0.5)
    with pytest.raises(InvalidInput, match="a release must hold a candidate that the decision judged"):
        make_release(tmp_path, candidate=other, decision=make_decision(judged))


def test_a_damaged_candidate_is_not_released(tmp_path):
    candidate = make_candidate(tmp_path / "c")
    (candidate.path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(BrokenArtifact, match=r"weights\.safetensors must have SHA-256"):
        make_release(tmp_path, candidate=candidate)
    assert not (tmp_path / "7").exists()


def test_an_end_of_proof_must_be_a_date(tmp_path):
    with pytest.raises(InvalidInput, match="proven_until must be a date as 2027-01-31, got 'soon'"):
        make_release(tmp_path, proven_until="soon")


def test_evidence_of_one_name_is_kept_twice(tmp_path):
    candidate = make_candidate(tmp_path / "c")
    records = evaluate(candidate, EXAMPLES, split="dev")
    paths = [tmp_path / name / "dev.parquet" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(str(path).encode())
    from jettison.release import write_release

    made = write_release(
        tmp_path / "7",
        candidate=candidate,
        decision=make_decision(candidate),
        evidence=paths,
        task_name="t",
        profile=reference_profile(records, [e.input for e in EXAMPLES]),
        now=datetime(2026, 11, 2, tzinfo=UTC),
    )
    assert set(made.evidence) == {"dev.parquet", "1-dev.parquet"}
    assert made.created == "2026-11-02T00:00:00+00:00"


# -- card and profile --------------------------------------------------------------------------


def test_the_model_card_is_read_by_the_hub_library(release):
    hub = pytest.importorskip("huggingface_hub", reason="reads the card as a model hub does")
    card = hub.ModelCard.load(release.path / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.model_name == "7"
    results = {r.metric_args["slice"]: r for r in card.data.eval_results}
    assert results["all"].metric_value == 0.949
    assert results["all"].metric_type == "accuracy"
    assert results["all"].dataset_revision == "d" * 64
    assert results["all"].metric_args["difference_low"] == -0.0041
    assert "95 % interval -0.0041 to +0.0021" in results["all"].metric_name
    assert set(results) == {"all"}  # no gate asked of length=short: decision.json has it


def test_small_numbers_are_yaml_numbers(release):
    hub = pytest.importorskip("huggingface_hub", reason="reads the card as a model hub does")

    decision = read_decision(release)
    report = next(r for r in decision.candidates if r.name == decision.chosen)
    gate = GateResult(
        gate="not_worse", metric="label", slice="length=short", verdict=Verdict.SHIP, limit=0.01, reason="",
        difference=Interval(value=0.0, low=-0.001, high=0.001),
    )  # fmt: skip
    report = msgspec.structs.replace(report, gates=(*report.gates, gate))
    candidate = Candidate.at(release.path / "candidates" / "0")
    card = hub.ModelCard(
        model_card(read_json(release.path / RELEASE_FILE, ReleaseFacts), candidate, decision, report)
    )
    results = {r.metric_args["slice"]: r for r in card.data.eval_results}
    assert results["length=short"].metric_value == 0.00001
    assert len(results) == 2  # what is unknown is left out


def test_the_model_card_tells_what_its_users_should_know_besides(tmp_path):
    note = "Test refutes its confidences."
    card = (make_release(tmp_path, notes=[note]).path / "README.md").read_text()
    assert f"## What the evidence cannot tell\n\n- {note}\n- " in card


def test_the_model_card_of_a_cascade_tells_how_its_arms_were_made(tmp_path):
    step = AppliedStep(step="take_in", settings={}, seed=0, versions={}, parents=())
    lean = msgspec.structs.replace(
        step, step="distill_static", settings={"epochs": 4}, notes={CUT_NOTE: True}
    )
    big = msgspec.structs.replace(step, step="export", settings={"target": "onnx"})
    joined = msgspec.structs.replace(step, step="cascade")
    for name, own in (("lean", lean), ("fallback", big)):
        folder = tmp_path / name
        folder.mkdir()
        arm = {"lean": "small", "fallback": "large"}[name]
        write_candidate(folder, name=arm, backend="fake", labels=("a", "b"), lineage=(step, own))
    whole = write_candidate(
        tmp_path, name="both", backend="cascade", labels=("a", "b"), lineage=(step, lean, joined)
    )
    assert list(_made_by(whole)) == [
        "take_in",
        "small: distill_static (epochs=4), cut short by the budget",
        "large: export (target=onnx)",
        "cascade",
    ]


def test_the_model_card_tells_what_was_and_was_not_measured(release):
    card = (release.path / "README.md").read_text()
    assert "| CPU per task | 1 (0.9 to 1.1) ms |" in card
    assert "| energy per task | not measured |" in card
    assert "- Nothing of other languages." in card
    assert "1. prune (share=0.5)" in card
    assert (
        "| not_worse label | all | 5500 | 0.95 | 0.949 | -0.0010 (-0.0041 to +0.0021) | 0.01 | SHIP |"
        in card
    )


def test_an_estimate_of_energy_stands_in_no_column_of_measured_costs():
    cost = CostSummary(
        energy_j=0.032,
        energy_tier="E2",
        energy_factor=2.0,
        energy_boundary="server",
        energy_source="a table",
    )
    card = "\n".join(_cost_table(cost))
    assert "| energy per task | not measured |" in card
    said = (
        "Energy per task is ESTIMATED, not measured: ≈ 32 mJ (tier E2, ×/÷ 2; boundary: server; a table)."
    )
    assert said in card
    metered = msgspec.structs.replace(cost, energy_tier="M2", energy_factor=1.3)
    assert "| energy per task | 32 mJ |" in "\n".join(_cost_table(metered))


def test_a_model_card_tells_the_saving_by_what_was_compared():
    saved = Interval(value=7.2e-06, low=7.1e-06, high=7.4e-06)
    card = "\n".join(_cost_table(CostSummary(usd_ratio=saved)))
    assert "| price over the incumbent's | 1/139,000 (1/141,000 to 1/135,000) |" in card
    assert "| CPU time over the incumbent's | not measured |" in "\n".join(_cost_table(CostSummary()))


def test_no_text_of_an_input_is_in_a_release(release):
    for path in release.path.rglob("*"):
        if path.is_file():
            assert b"secretword" not in path.read_bytes()


def test_a_profile_counts_what_it_saw(tmp_path):
    candidate = make_candidate(tmp_path / "c")
    records = evaluate(candidate, EXAMPLES[:6], split="dev")
    profile = reference_profile(records, [e.input for e in EXAMPLES[:6]])
    assert profile.label_counts == {"apple": 2, "oos": 2, "pear": 2}
    assert sum(profile.confidence_counts) == profile.n_inputs == 6
    # "oos secretword 2" has 16 characters, "apple secretword 0" has 18.
    assert (profile.length_quantiles[0], profile.length_quantiles[-1]) == (16, 18)
    assert profile.n_tokens == 18
    assert profile.in_scope_quantiles is not None
    assert profile.escalated_share is None


def test_a_profile_of_the_test_split_is_refused(tmp_path):
    records = evaluate(make_candidate(tmp_path / "c"), EXAMPLES[:2], split="test")
    with pytest.raises(InvalidInput, match=r"of one split other than test, got \['test'\]"):
        reference_profile(records, ["a", "b"])


def test_a_profile_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match="at least one record and as many inputs, got 0 records and 1"):
        reference_profile([], ["a"])


@pytest.mark.parametrize("text", ["", "Ünï cödé \ud800x", "Ünï", "a" * 10_000])
def test_words_of_any_text_are_counted(text):
    assert sum(token_counts([text])) == len(text.split())


def test_a_cascade_is_released_with_both_arms(tmp_path):
    from jettison.candidate import write_candidate
    from jettison.files import link_or_copy_folder

    folder = tmp_path / "cascade"
    for arm in ("lean", "fallback"):
        made = make_candidate(tmp_path / arm, name=arm)
        link_or_copy_folder(made.path, folder / arm)
    route = {"type": "cascade", "lean": {"type": "single", "candidate": "lean"}, "threshold": 0.93,
             "fallback": {"type": "single", "candidate": "fallback"}}  # fmt: skip
    candidate = write_candidate(
        folder,
        name="lean|er",
        backend="cascade",
        labels=LABELS,
        out_of_scope="oos",
        settings={"route": route},
    )
    made = make_release(tmp_path, candidate=candidate)
    shutil.rmtree(folder)
    outputs = open_release_model(made.path).predict([e.input for e in EXAMPLES])
    assert {o.arm for o in outputs} == {"lean", "fallback"}
    assert read_json(made.path / "profile.json", dict)["escalated_share"] > 0
