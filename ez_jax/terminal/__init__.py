"""What is typed and seen: launching, arguments, sweeps, the help page, progress."""
