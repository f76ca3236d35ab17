"""Public checks that a plugin behaves as the built-in ones do; each raises AssertionError."""

from jettison.testing.backend import AWKWARD_TEXTS, check_backend
from jettison.testing.detector import check_detector
from jettison.testing.guardrail import check_guardrail
from jettison.testing.language import check_language_model
from jettison.testing.step import check_step

__all__ = [
    "AWKWARD_TEXTS",
    "check_backend",
    "check_detector",
    "check_guardrail",
    "check_language_model",
    "check_step",
]
