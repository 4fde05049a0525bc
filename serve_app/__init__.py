"""The requests: the ingress that clients see, what a site runs, and the command line."""
