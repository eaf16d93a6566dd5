"""What a proof has shown to work, done for the user: suspend, move, checkpoint, restore; each act is journalled."""
