"""How far the simulator is from a real engine under the same requests."""
