"""What can be set: a setting, the groups of settings, the record of a command, its rules, its arguments."""
