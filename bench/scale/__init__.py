"""Measures the control process with many Services: start, memory, changes, CPU and stalls."""
