"""The `spotrelay` command: for a person at a terminal, and with `--json` for a script."""
