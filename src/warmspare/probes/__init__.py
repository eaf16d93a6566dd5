"""Probes: each reads one subject off a host. They look and never judge."""
