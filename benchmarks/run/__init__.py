"""What the three parts of the benchmark share: figures, progress, peers, plots, pages."""
