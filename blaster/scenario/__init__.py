"""What the user asks for: stages of load, the workload, the criteria."""
