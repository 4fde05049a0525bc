"""How long a placement that sleeps takes to its first token, beside plain vLLM: `make bench-coldstart`."""
