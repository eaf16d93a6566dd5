"""Trials: each pulls the levers that the runtime pulls, in a child of its own, and says what happened."""
