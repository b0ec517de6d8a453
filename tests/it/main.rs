//! One integration binary, linked once: a module for each concern.

mod cli;
mod grant;
mod lifecycle;
mod processes;
mod support;
