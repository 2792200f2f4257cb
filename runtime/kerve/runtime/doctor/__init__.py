"""`kerve doctor`: facts about the machine (`machine`), and where models would run (`models`)."""
