"""Scenarios: stages of load, workload and criteria, as the user asks for them."""
