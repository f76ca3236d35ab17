"""Detectors: each looks at one score and says whether it still comes as it used to."""

from jettison.monitor.detectors.detector import (
    Detector,
    Reading,
    checked_bins,
    checked_reference,
    open_detector,
)

__all__ = ["Detector", "Reading", "checked_bins", "checked_reference", "open_detector"]
