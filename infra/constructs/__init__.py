"""Constructs: each owns a resource together with its grants, its dead-letter queue and its alarms."""
