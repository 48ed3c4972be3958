"""Studies: the runs of a design, the workers that train them, and their status."""
