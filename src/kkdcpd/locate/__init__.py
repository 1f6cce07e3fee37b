"""From a realm's name to the endpoints of its KDCs, for configured realms only."""
