"""Measurements and figures; not part of the installed package."""
