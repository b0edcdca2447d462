"""1.1 Request Parser: how messages reach this process, and the first rows of DESIGN §5."""
