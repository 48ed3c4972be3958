"""What a run will need in memory, disk and time, before it starts."""
