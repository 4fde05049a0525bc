"""What scaling policies cost at equal service, on a real trace in the simulator: `python -m bench.autoscaling --help`."""
