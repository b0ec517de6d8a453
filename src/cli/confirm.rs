//! Asking a person before something that cannot be undone.

use std::io::{self, IsTerminal};

use super::App;
use super::clean;
use super::exit::Problem;

/// Whether there is a person at a terminal to ask.
pub(crate) fn can_ask(app: &App) -> bool {
    io::stdin().is_terminal() && app.out.is_watched()
}

/// The refusal where no one can be asked: `doing` is what would be done, as in `purging oauth-client-1f3a cannot be undone`.
pub(crate) fn no_terminal(doing: &str) -> Problem {
    Problem::usage(format!("{doing}, and there is no terminal to ask at")).hint("confirm it with --yes")
}

/// Says what will happen, asks, and reads one line of stdin. Everything that is no clear yes is a no.
pub(crate) async fn ask(app: &App, what: &str, question: &str) -> anyhow::Result<bool> {
    app.out.note(&clean::line(what));
    app.out.draw(&format!("{} [y/N] ", clean::line(question)));
    let read = || {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    };
    Ok(is_yes(&tokio::task::spawn_blocking(read).await??))
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (line, expected) in [("y\n", true), (" YES \n", true), ("", false), ("\n", false), ("n\n", false), ("yess\n", false)] {
            assert_eq!(is_yes(line), expected, "{line:?}");
        }
    }
}
