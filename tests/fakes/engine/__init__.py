"""A site with a vLLM engine over loopback, in a process of its own: it speaks the real protocol, and fails as told."""
