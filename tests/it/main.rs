//! One integration binary, linked once: a module per concern.
