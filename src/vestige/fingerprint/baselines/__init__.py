"""Published methods, from their formulas, to be compared with: none undoes every change that keeps the function."""
