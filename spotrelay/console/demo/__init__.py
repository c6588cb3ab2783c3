"""The main job on this machine: a run whose machine is reclaimed five times, and the proof that nothing was lost."""
