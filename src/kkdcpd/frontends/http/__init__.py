"""HTTP connections: accepted, through TLS, within their limits. Every way in by HTTP uses them."""
