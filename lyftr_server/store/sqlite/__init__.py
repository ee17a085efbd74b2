"""The store on SQLite, embedded: one file, one process."""
