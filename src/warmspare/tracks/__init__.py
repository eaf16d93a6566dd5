"""Tracks: one recovery technique a file. They weigh facts and never touch the machine."""
