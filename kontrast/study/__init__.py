"""Many runs, compared, and the page that shows them."""
