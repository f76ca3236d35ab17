"""What stands in `deploy/` fits the program: options, settings, paths and times."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest
import yaml

from jettison.cli.serve import command
from jettison.serve.admin import PAGES
from jettison.serve.config import ServeConfig, check_serve_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def config_map():
    parts = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
    config = msgspec.convert(tomllib.loads(parts["ConfigMap"]["data"]["serve.toml"]), ServeConfig)
    return config, parts["StatefulSet"]["spec"]["template"]["spec"], parts["Service"]


def check_options(words):
    name, *arguments = words
    assert name == "serve"
    with command.make_context("serve", arguments, resilient_parsing=False) as context:
        assert context.params["config"] is not None
        assert context.params["state"] is not None


def test_the_manifests_settings_are_the_gateways():
    config, pod, service = config_map()
    check_serve_config(config, "kubernetes.yaml")
    (container,) = pod["containers"]
    check_options(container["args"])
    (port,) = container["ports"]
    assert (port["containerPort"], service["spec"]["ports"][0]["targetPort"]) == (config.port, port["name"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in PAGES
    assert pod["terminationGracePeriodSeconds"] > config.drain_s + config.linger_s
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert {"/state", "/etc/jettison", str(Path(config.release).parent)} <= mounts


def test_the_unit_starts_the_gateway_and_waits_for_its_drain():
    text = (DEPLOY / "jettison.service").read_text()
    (start,) = re.findall(r"^ExecStart=\S+/jettison (.+)$", text, re.M)
    check_options(start.split())
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert int(stop_s) > ServeConfig().drain_s + ServeConfig().linger_s


def test_the_container_file_installs_extras_that_exist_and_asks_a_page_that_does():
    text = (DEPLOY / "Containerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"'\.\[([\w,-]+)\]'", text)
    assert set(wanted.split(",")) <= set(extras)
    (words,) = re.findall(r"^CMD \[(.+)\]$", text, re.M)
    check_options([word.strip(' "') for word in words.split(",")])
    (port, path) = re.findall(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", text)[0]
    assert (int(port), path in PAGES) == (ServeConfig().port, True)
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for name in source.split():
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_manifest_is_of_kubernetes_own_schemas(version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="it is no part of this install")
    parts = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    for part in parts:
        assert kubernetes_validate.validate(part, version, strict=True) == version
    (container,) = parts[1]["spec"]["template"]["spec"]["containers"]
    container["imagePullPolcy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolcy"):
        kubernetes_validate.validate(parts[1], version, strict=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path):
    unit = tmp_path / "jettison.service"
    text = (DEPLOY / "jettison.service").read_text()
    unit.write_text(text.replace("/opt/jettison/bin/jettison", "/bin/true"))
    for words in (
        ["verify", str(unit)],
        # Exposure, from 0 to 100, by systemd's own measure; without the unit's settings it is 96.
        ["security", "--no-pager", "--offline=true", "--threshold=20", str(unit)],
    ):
        found = subprocess.run(
            ["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr
        assert "Unknown" not in found.stderr


@pytest.mark.parametrize("name", ["Containerfile", "jettison.service", "kubernetes.yaml"])
def test_no_secret_stands_in_a_deployment(name):
    assert not re.search(r"jt-[\w-]{20,}|sk-[\w-]{20,}", (DEPLOY / name).read_text())
