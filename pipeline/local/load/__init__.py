"""Checkpoints on disk: found by name, read by memory map, and given to the classes that compute."""
