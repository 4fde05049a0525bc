"""What a request and a streamed chunk cost in rayfleet's ingress and in its peers: `python -m bench.router --help`."""
