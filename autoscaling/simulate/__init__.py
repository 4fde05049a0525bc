"""Replays a trace over a fleet that does not exist: the same routing and scaling, modelled engines, no waiting."""
