"""The programs that the workload matrix tries: one kind, or one family of kinds, a file, found by being there."""
