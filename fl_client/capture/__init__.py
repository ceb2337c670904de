"""Capture: a device's owner builds the folder that the device trains on. Nothing of it leaves the device."""
