"""Steps that make a candidate leaner, and the recipes that string them together."""
