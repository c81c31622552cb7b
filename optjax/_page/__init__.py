"""One HTML page that opens anywhere: words, pictures, a table of trials."""
