"""Numbers in, numbers out: tests, intervals and plans. Knows nothing of models."""
