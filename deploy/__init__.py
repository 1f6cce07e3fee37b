"""What administrators get beside the wheel: container, Debian package, and the man pages' maker."""
