"""Evaluations written in the formats of other tools, so that they open where a team already looks."""
