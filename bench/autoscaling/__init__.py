"""What scaling policies cost at equal service, in the simulator: `python -m bench.autoscaling --help`."""
