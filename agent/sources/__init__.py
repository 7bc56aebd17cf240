"""Sources: where sales come from. Each looks for itself when woken and hands over through agent.intake."""
