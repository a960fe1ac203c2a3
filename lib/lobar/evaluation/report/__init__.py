"""What people look at: the report of a model, the page of a promotion, the summary of a workflow."""
