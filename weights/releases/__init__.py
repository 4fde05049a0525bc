"""Which releases a store holds, what they are called, and what of it may go."""
