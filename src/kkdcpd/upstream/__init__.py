"""The ways out to KDCs, and the driver that carries out the decisions of `protocol.exchange`."""
