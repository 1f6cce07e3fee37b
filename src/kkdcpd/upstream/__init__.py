"""The ways out to the KDCs, and the driver that takes them as protocol.exchange says."""
