"""The store on PostgreSQL: the same contract for any number of servers on one database."""
