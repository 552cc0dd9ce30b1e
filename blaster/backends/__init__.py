"""What real systems say of themselves: whether what was sent arrived, is found, and was judged."""
