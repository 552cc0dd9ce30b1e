"""The manual: Markdown pages, which ``blaster guide`` shows and hosting sites render."""
