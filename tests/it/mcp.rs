//! MCP calls from an agent's point of view.
