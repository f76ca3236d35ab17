"""Packages are fetched by pip and checked: here from a folder, as from an index."""

import hashlib
import zipfile

import pytest

from jettison.errors import JettisonError
from jettison.loop.packages import Package, open_wheel


@pytest.mark.slow
def test_a_package_is_fetched_by_pip_and_refused_when_it_is_another(tmp_path, monkeypatch):
    path = tmp_path / "tinytexts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinytexts/data.txt", "hello")
        wheel.writestr(
            "tinytexts-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinytexts\nVersion: 1.0\n"
        )
        wheel.writestr("tinytexts-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tinytexts-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    good = Package(requirement="tinytexts==1.0", sha256=sha256)
    assert open_wheel(good).read("tinytexts/data.txt") == b"hello"
    with pytest.raises(JettisonError, match=r"tinytexts==1.0 must have SHA-256 000000000000…, got"):
        open_wheel(Package(requirement="tinytexts==1.0", sha256="0" * 64))
    with pytest.raises(JettisonError, match=r"tinytexts==2.0 must be fetched by pip"):
        open_wheel(Package(requirement="tinytexts==2.0", sha256=sha256))
