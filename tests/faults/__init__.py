"""What is promised when something breaks: disks, processes, clients, the log's reader."""
