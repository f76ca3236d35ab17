import shutil
from pathlib import Path

import pytest

from jettison.backends.released import open_release_model
from jettison.record import read_records
from jettison.release import open_release, read_decision, read_profile, verify_release
from tiny import make_tiny_development

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("release-*"))


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_a_release_of_each_past_format_still_opens_and_is_whole(folder):
    release = verify_release(folder)
    assert release.format == int(folder.name.removeprefix("release-"))
    assert read_decision(release).chosen == "lean|er"
    assert read_profile(release).n_inputs == 120


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_a_release_of_each_past_format_still_answers_as_it_did(folder):
    (evidence,) = open_release(folder).evidence
    records = read_records(folder / "evidence" / evidence)
    outputs = open_release_model(folder).predict([e.input for e in make_tiny_development().dev])
    assert [o.label for o in outputs] == [r.output for r in records]
    assert [o.confidence for o in outputs] == pytest.approx([r.confidence for r in records], abs=1e-5)
    assert [o.in_scope for o in outputs] == pytest.approx([r.in_scope for r in records], abs=1e-4)


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_a_copy_of_a_release_has_the_digest_of_the_release(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert open_release(tmp_path / "copy").digest == open_release(folder).digest
