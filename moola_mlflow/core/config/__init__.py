"""The configuration.

``base`` has what all sections share. Each room has a module with its sections. ``commands`` lists the sections of each
command, ``presets`` reads preset files, and ``resolve`` makes a command's configuration from presets and overrides.
"""
