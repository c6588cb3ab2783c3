"""Replays of recorded Spot capacity: the real decisions, and fixed policies beside them, on a virtual clock."""
