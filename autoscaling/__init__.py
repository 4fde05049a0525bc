"""How many replicas: signals over samples, a pure decision, and its adapter to Ray Serve."""
