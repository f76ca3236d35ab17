"""Hypothesis sets no example a limit on the wall's clock, which a busy machine passes.

Where time is what a test is about, it measures CPU time.
"""

from hypothesis import settings

settings.register_profile(
    "any_machine", settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("any_machine")
