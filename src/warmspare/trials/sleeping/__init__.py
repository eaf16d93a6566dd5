"""The parts of the trial of Sleep Mode: each has a proof of its own and leaves the engine awake, or says it is lost."""
