"""Reading one fleet.yaml: its text, its shape, and the rules that span fields. `clusters.check` is the front."""
