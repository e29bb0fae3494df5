"""Ascend NPUs: the device, through its adapter, and the host around it."""
