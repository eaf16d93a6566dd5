"""What is behind the one module that has a name of vLLM's."""
