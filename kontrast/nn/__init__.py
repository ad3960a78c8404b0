"""Networks: encoders, which are kept, and heads, which are thrown away."""
