"""An echo on the official SDK's `MCPServer`."""

from mcp.server import MCPServer

server = MCPServer("echo")


@server.tool()
def echo(message: str) -> str:
    """Give the message back unchanged."""
    return message


if __name__ == "__main__":
    server.run()
