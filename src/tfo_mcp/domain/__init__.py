"""3.0 of the diagrams: the rules. No input or output, no library beyond the standard one."""
