"""The agent of one machine: makes it an attempt of a run, and tells how that ended."""
