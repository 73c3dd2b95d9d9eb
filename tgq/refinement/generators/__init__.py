"""Language models that answer prompts: one that runs in this process, and one behind a web endpoint."""
