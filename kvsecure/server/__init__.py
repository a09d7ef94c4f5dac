"""The roof: configuration, assembly, listeners, signals and clocks."""
