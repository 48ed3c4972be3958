"""Training: the state of a run, its record, its games and checkpoints; several in one program."""
