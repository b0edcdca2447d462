"""`python -m tfo_mcp`, the same as `tfo-mcp`."""

from tfo_mcp.cli import main

main()
