"""A package that goes by NIXL's name, for trials of what NIXL may do. `FAKE_NIXL` says what goes wrong."""
