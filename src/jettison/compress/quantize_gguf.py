"""Step `quantize_gguf`: weights of a GGUF file in fewer bits, by llama.cpp's own formats."""

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from jettison.backends.llamacpp import MODEL, LlamaCppEngine
from jettison.candidate import Candidate
from jettison.compress.checkpoint import LICENCE_FILES, take_over
from jettison.compress.step import Made, StepContext
from jettison.compress.to_gguf import IMPORTANCE
from jettison.errors import MissingExtra, StepFailed

TIMEOUT_S = 3600.0
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
"""Of the environment; keys stay here."""
_IN_PLACE = "q5_1"
"""What llama.cpp itself would take where rows do not divide into blocks of Q5_K."""
GgufType = Literal[
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q4_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"
]


class QuantizeGguf(msgspec.Struct, frozen=True, kw_only=True):
    """Round a GGUF file's weights to a format of llama.cpp, weighed by their importance where it is known.

    `llama-quantize` comes as a wheel. Weights whose rows do not divide into blocks of 256 take another
    format of about as many bits; the notes count them.
    """

    name: ClassVar[str] = "quantize_gguf"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("ik-llama-cpp-python", "xllamacpp")

    type: GgufType = "Q4_K_M"
    importance: bool = True
    """Weigh by `imatrix.dat` of `to_gguf`, where the candidate has one."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Quantize, open, ask for one token.

        Raises:
            StepFailed: The candidate is no GGUF file, or the tool fails.
            MissingExtra: ik-llama-cpp-python is not installed.
        """
        if candidate.backend != "llamacpp":
            raise StepFailed(
                f"step {self.name!r} must start from a candidate of backend 'llamacpp', got "
                f"{candidate.backend!r} ({candidate.name}). Put `to_gguf` before it."
            )
        source = candidate.path / MODEL
        weighed = candidate.path / IMPORTANCE
        use = self.importance and weighed.is_file()
        options = ["--allow-requantize", "--hide-imatrix"]
        options += ["--imatrix", str(weighed.absolute())] if use else []
        files = [str(source.absolute()), str((context.folder / MODEL).absolute())]
        # A dry run tells which weights it would put in a format that llama.cpp itself cannot read.
        planned = _run([*options, "--dry-run", *files, self.type, "1"])
        if rules := ",".join(f"{re.escape(name)}={_IN_PLACE}" for name in _foreign(planned)):
            options += ["--custom-q", rules]
        context.progress(f"rounding weights to {self.type}", None)
        _run([*options, *files, self.type, str(context.threads)])
        if not (context.folder / MODEL).is_file():
            raise StepFailed(f"llama-quantize must write {self.type}, got no file.")
        take_over(candidate.path, context.folder, LICENCE_FILES)
        made = msgspec.structs.replace(candidate, path=context.folder)
        engine = LlamaCppEngine(made)
        try:
            engine.next_logprobs(engine.token_ids("a") or [0])
        finally:
            engine.close()
        before, after = source.stat().st_size, (context.folder / MODEL).stat().st_size
        return Made(
            notes={
                "importance": use,
                "n_in_another_format": planned.count("fallback quantization"),
                "bytes_share": round(after / before, 4),
            }
        )


def _run(arguments: list[str]) -> str:
    """What `llama-quantize` says.

    Raises:
        StepFailed: It fails, or does not end.
        MissingExtra: ik-llama-cpp-python is not installed.
    """
    environment = {k: v for k, v in os.environ.items() if k in PASSED_ON}
    command = [str(_tool()), *arguments]
    try:
        # Both streams in one: a name and what is said of it come by different ones.
        ran = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"llama-quantize must end within {TIMEOUT_S:.0f} s, got no end.") from error
    said = ran.stdout.decode("utf-8", "replace")
    if ran.returncode:
        reason = next((line for line in reversed(said.splitlines()) if line.strip()), "nothing said")
        raise StepFailed(f"llama-quantize must end well, got: {reason.strip()[:200]}.")
    return said


def _foreign(said: str) -> list[str]:
    """Names of weights that would be written as Q6_0, which is of this fork alone."""
    found, name = [], None
    for line in said.splitlines():
        if match := re.search(r"^\[ *\d+/ *\d+\] +(\S+) - \[", line):
            name = match[1]
        if "fallback quantization q6_0" in line and name is not None:
            found.append(name)
    return found


def _tool() -> Path:
    spec = find_spec("ik_llama_cpp")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        tool = Path(place) / "bin" / "llama-quantize"
        if tool.is_file():
            return tool
    raise MissingExtra(
        "`ik-llama-cpp-python`, which brings llama-quantize, is not installed; it comes with "
        "`pip install 'jettison[gguf]'`."
    )
