"""How the control path does with many Services: start, memory, changes, CPU, stalls."""
