"""What the control plane asks of AWS when there are many runs: counted, not timed."""
