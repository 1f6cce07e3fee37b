"""The ways in. Each turns bytes into a request, and a result into bytes. They never import each other."""
