"""Dead letters after the fact: find them, read them, and put their requests back."""
