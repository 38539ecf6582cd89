"""`polos doctor`: is everything here that runs need, and is it safe? Starts nothing, and never hangs."""
