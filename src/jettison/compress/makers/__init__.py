"""Scripts that run in a maker's own environment; see `jettison.compress.maker`. They import no jettison."""
