"""What is measured: latencies as histograms, and what processes cost."""
