"""The teacher's side: its top-K over all training windows."""
