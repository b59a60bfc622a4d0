"""The master: a pure core that decides (`events`, `fleet`, `plan`) in a thin shell that acts (`loop`)."""
