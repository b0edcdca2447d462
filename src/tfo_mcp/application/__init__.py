"""2.0 of the diagrams: what the server does, in terms of the domain and of ports."""
