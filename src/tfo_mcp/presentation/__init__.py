"""1.0 of the diagrams: bytes in, bytes out, and everything that the protocol says about them."""
