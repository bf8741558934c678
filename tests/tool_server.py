"""An MCP server with a counter, for the tests of tools."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("counter")
state = {"n": 0}


@server.tool()
def count(by: int) -> str:
    """Adds to a counter and gives its value."""
    state["n"] += by
    return str(state["n"])


if __name__ == "__main__":
    server.run()
