"""Object stores of each kind, behind `weights.store.Store`."""
