"""Checkpoints on disk: find them by name, read them by memory map, and build the model's classes."""
