"""What `kerve doctor` finds: facts of the machine (`machine`), and where models would compute (`models`)."""
