"""Each command as a person runs it: a process, its output, its exit status, the files it leaves."""
