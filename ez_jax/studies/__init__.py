"""Studies: which runs a design asks for, who trains them, where they stand."""
