"""One run on many hosts: the same engine on each, steered and merged by one parent."""
