"""The public surface: exactly what `__all__` says, and nothing heavy behind an import."""

import os
import subprocess
import sys

import jettison
from jettison.cli.main import COMMANDS


def test_every_public_name_can_be_imported():
    for name in jettison.__all__:
        assert getattr(jettison, name) is not None


def test_the_version_is_that_of_the_command_line():
    command = [sys.executable, "-m", "jettison.cli", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip().endswith(f" {jettison.__version__}")


def test_import_brings_no_library():
    heavy = "('numpy', 'torch', 'scipy', 'pyarrow')"
    code = f"import sys, jettison; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_at_once():
    """In CPU-seconds, which a busy neighbour does not stretch as it does the clock on the wall."""
    took = []
    for _ in range(3):
        before = os.times()
        command = [sys.executable, "-m", "jettison.cli", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        took.append(spent)
    assert min(took) < 0.3
    for command in COMMANDS:
        assert command in done.stdout


def test_an_unknown_command_is_bad_input():
    done = subprocess.run(
        [sys.executable, "-m", "jettison.cli", "nosuch"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "nosuch" in done.stderr


def test_the_package_run_as_a_module_is_the_command():
    """Its words, its exit code and its name, as the script has them."""
    for arguments, code in (["--help"], 0), (["--version"], 0), (["nosuch"], 2), (["verify", "nowhere"], 2):
        script, module = (
            subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
            for command in (
                [sys.executable, "-c", "from jettison.cli.main import main; main()"],
                [sys.executable, "-m", "jettison"],
            )
        )
        assert script.returncode == code, script.stderr
        assert (module.returncode, module.stdout, module.stderr) == (code, script.stdout, script.stderr)


def test_every_command_has_its_own_help():
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "jettison.cli", command, "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
