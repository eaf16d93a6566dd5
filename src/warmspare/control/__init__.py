"""Levers that act: processes and CRIU. Trials and the runtime share them."""
