"""What checkpoints cost, ours and those of other libraries, in one run on one machine."""
