"""Lambda code: parse an event, call the core, act, record."""
