"""Rules to tables: the address overlay, the connection table, the request table."""
