"""EC2 on this machine: its API, its capacity, its metadata service, and instances that are real processes."""
