"""Access tokens: inspected, verified and given a type of their own. No Flask in here."""
