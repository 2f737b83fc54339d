"""Side by side with other libraries: `python -m benchmarks.peers.<room> [section ...] [--quick]`."""
