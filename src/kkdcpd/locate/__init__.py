"""Finds the endpoints of the KDCs and password servers of configured realms."""
