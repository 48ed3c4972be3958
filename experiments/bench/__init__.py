"""How fast everything is: `python -m experiments.bench`."""
