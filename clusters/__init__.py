"""What exists and how it is doing: the fleet's declaration, its machines, its launchers, its observed state."""
