"""Candidate and examples in, records out: running, scoring, slicing, calibrating."""

from jettison.evaluate.calibrate import calibrate
from jettison.evaluate.fidelity import Fidelity, measure_fidelity
from jettison.evaluate.profile import reference_profile
from jettison.evaluate.run import evaluate, evaluation_file
from jettison.evaluate.scorers import LabelScorer, OutOfScopeScorer, Score, Scorer
from jettison.evaluate.slices import Slicer

__all__ = [
    "Fidelity",
    "LabelScorer",
    "OutOfScopeScorer",
    "Score",
    "Scorer",
    "Slicer",
    "calibrate",
    "evaluate",
    "evaluation_file",
    "measure_fidelity",
    "reference_profile",
]
