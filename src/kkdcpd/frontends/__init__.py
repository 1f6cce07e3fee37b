"""The ways in. Each turns octets into a request and an outcome into octets; they never import each other."""
