"""The `jettison` command: finds the sub-command, and turns our errors into one line and an exit code."""

import errno
import importlib
import io
import os
import sys
from typing import Any

import click

from jettison.cli.stopping import EXIT_CODE as TERMINATED
from jettison.cli.stopping import Terminated
from jettison.cli.terminal import drop_output, no_fuss_when_nobody_reads, printable
from jettison.errors import InvalidInput, JettisonError

COMMANDS = {
    "init": "look at a model and data, write task.toml and jettison.toml ready to run",
    "run": "compress, evaluate, decide, release: the whole loop, resumable",
    "compare": "judge one model against another, paired, with intervals",
    "suites": "build tiers that show where a lean model fails; attack, find slices, lint, check",
    "label": "choose which traffic to label next, label it on a page, read the answers back",
    "predict": "answer texts with a release",
    "cost": "measure the cost per task of one or several models, interleaved",
    "experiment": "start, watch, ramp and stop live comparisons that may be looked at any time",
    "monitor": "watch a gateway's traffic: experiments, audits, alarms; roll back, tighten",
    "mine": "find what badly answered traffic has in common, and take it into the next task",
    "traffic": "add the traffic log up: cost and drift tables by day and arm",
    "drift": "say whether traffic or answers have moved since a release was proved",
    "export": "write results as other tools read them: Inspect, lm-eval, model cards, the Hub, JUnit",
    "report": "write report.html and report.md of a finished run",
    "guard": "make the guardrail against prompt injections: trained, proved and released by the loop",
    "serve": "answer over an OpenAI-compatible API: lean first, the incumbent behind it",
    "record": "pass requests on to the incumbent and log them, so that traffic becomes a task",
    "verify": "check every byte of a release",
    "doctor": "say what this machine can run and measure, and what is missing",
    "demo": "run the whole loop on a real model and real data that come as packages",
}


class Commands(click.Group):
    """Loads a command's module only when it is asked for, so that --help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"jettison.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jettison")
def jettison() -> None:
    """Make the model you run lean, prove that it still does your job, and release it."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit: 0 done, 1 the gate says hold, 2 bad input."""
    # Threads that spin while they wait take the processor from whatever else runs on a small machine.
    # OpenMP reads this once, when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that cannot say a character spells it out
            stream.reconfigure(errors="backslashreplace")
    try:
        _check_arguments(sys.argv[1:] if arguments is None else arguments)
        code = jettison.main(args=arguments, prog_name="jettison", standalone_mode=False)
        with no_fuss_when_nobody_reads():
            sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        stopped = isinstance(error.__cause__ or error, Terminated)
        what = "stopped by SIGTERM" if stopped else "interrupted"
        click.echo(f"{what}; finished work is kept, run the same command to go on.", err=True)
        sys.exit(TERMINATED if stopped else 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except JettisonError as error:
        click.echo(f"error: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        said = _in_words(error)
        if said is None:
            raise
        drop_output()
        click.echo(f"error: {printable(said)}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _check_arguments(arguments: list[str]) -> None:
    """Refuse what no file that we write could hold."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"arguments must be UTF-8 text, got {argument!r}. Rename the file; pass texts by --input."
            ) from error


def _in_words(error: OSError) -> str | None:
    """The system's refusal in one sentence; None where it names no file, and so may be a fault of ours."""
    if error.errno == errno.ENAMETOOLONG:  # only to look whether such a file is there raises, anywhere
        return f"a path must be shorter, got {str(error.filename)[:60]!r} and on."
    if error.filename is not None:
        return f"{error.filename} must be a file that can be read or written, got {error.strerror}."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the output must have room, got {error.strerror}. Free some space, or send it elsewhere."
    return None
