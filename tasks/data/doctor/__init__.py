"""What is wrong with labelled pictures, found before hours are spent on them."""
