"""The command line: one thin file a command. What is heavy is imported only when a command runs."""
