"""One file per framework; each knows exactly one."""
