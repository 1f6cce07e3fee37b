"""Packages for administrators beside the wheel: the container, the Debian package, and the man pages."""
