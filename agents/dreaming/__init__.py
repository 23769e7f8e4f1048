"""Dreams: open-loop imagination of recorded episodes, its errors by horizon, and their pictures."""
