"""The loop, offline: compress, evaluate, decide, release, in one call that can be killed and resumed."""
