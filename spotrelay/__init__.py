"""Spotrelay: training runs that outlive the Spot machines they run on."""

__version__ = "0.1.0"
