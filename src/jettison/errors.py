"""Every error jettison raises on purpose, drawn as one tree.

A message says the rule, the value that came, where, and the way out. The command
line prints it on one line and exits with `exit_code`; nothing is left half-written.
"""


class JettisonError(Exception):
    """Root of the tree: catch this to catch whatever jettison raises on purpose."""

    exit_code = 2


class InvalidInput(JettisonError, ValueError):
    """A value, file or setting from the user breaks a stated rule."""


class UnknownName(InvalidInput, LookupError):
    """A plugin, label, column or slice of that name does not exist."""


class NotEnoughData(JettisonError):
    """The examples at hand cannot carry the computation that was asked for."""


class MissingExtra(JettisonError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class BrokenArtifact(JettisonError):
    """A model, candidate or release on disk is corrupt, incomplete or altered."""


class UnsafeArtifact(BrokenArtifact):
    """The file could run code when opened (pickle); jettison reads safetensors, ONNX and GGUF."""


class ParityFailed(JettisonError):
    """An exported or converted model does not answer as the model it came from."""


class StepFailed(JettisonError):
    """A step could not make its candidate: it diverged, does not apply here, or ran out of time."""


class OutOfTime(StepFailed):
    """A step could not begin, or not come to a result, before its deadline."""


class Unsupported(JettisonError):
    """A backend has no such ability: an endpoint gives no likelihood of a given text."""


class Unanswered(JettisonError):
    """A server elsewhere did not answer: no fault of the model, and never counted as one."""


class WrongEndpoint(InvalidInput):
    """A key, an account, a model's name or a setting of an endpoint is wrong: every request would fail."""


class CannotWrite(JettisonError, OSError):
    """The disk is full or the folder read-only; what was there before is untouched."""
