"""What each record adds to sums from which a task's scores follow."""
