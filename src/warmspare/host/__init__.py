"""The host port: the only door to the machine, live or recorded."""
