"""How fast a release moves, beside other clients of the same store: `python -m bench.weights --help`."""
