"""What an answer costs on this machine: time, CPU, memory, energy and money, one quantity a file."""
