"""Measurements that anybody can repeat: `aunet bench`."""
