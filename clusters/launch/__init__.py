"""How sites are brought up. `local` stands for the clouds on one machine; `ray up` makes the real ones."""
