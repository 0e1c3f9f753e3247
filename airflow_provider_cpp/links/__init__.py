"""Links from a task instance to the pages of its offer."""
