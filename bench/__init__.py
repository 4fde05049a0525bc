"""One command per claim: every figure is measured beside its peers, in the same run."""
