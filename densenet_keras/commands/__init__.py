"""What a person can ask for, a module for each command, and the way from the shell to it."""
