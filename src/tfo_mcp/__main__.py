"""`python -m tfo_mcp`, the same as `tfo-mcp`."""

import os
import sys

if sys.path[0] in {"", os.getcwd()}:  # noqa: PTH109  # pathlib would be one more import from there
    del sys.path[0]  # tools may write to the working directory, and its files may be anybody's

from tfo_mcp.cli import main

main()
