"""The process and the machine: memory, devices, signals, compilation, exit codes."""
