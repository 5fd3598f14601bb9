//! What MCP clients in browsers may send and read (Fetch standard, CORS protocol).

/// Methods of the endpoints for programs.
pub const ALLOWED_METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// Request headers of MCP and OAuth clients. A wildcard would not cover `Authorization`.
pub const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Session-Id, \
     Mcp-Method, Mcp-Name, Last-Event-ID";

/// Response headers that clients look at.
pub const EXPOSED_HEADERS: &str = "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, Retry-After, RateLimit-Limit, \
     RateLimit-Remaining, RateLimit-Reset";
