"""What things are: facts, findings, tracks, verdicts and the snapshot file. No I/O."""
