"""A release: an immutable, self-contained, verifiable folder that can answer."""
