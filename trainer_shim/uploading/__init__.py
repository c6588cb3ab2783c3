"""Hashing and sending shards: here, or in a process of its own beside the training's."""
