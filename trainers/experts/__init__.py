"""The forecasters beside the network: plain, online, one per key."""
