use clap::{Command as Clap, CommandFactory};

use super::*;

fn every(command: &Clap, path: &str, seen: &mut Vec<(String, Clap)>) {
    for sub in command.get_subcommands() {
        let path = format!("{path} {}", sub.get_name());
        every(sub, &path, seen);
        seen.push((path, sub.clone()));
    }
}

#[test]
fn the_help_of_every_command_has_an_example_of_itself() {
    let mut commands = Vec::new();
    every(&Cli::command(), "iolaus", &mut commands);
    assert!(commands.len() > 20, "{}", commands.len());
    for (path, command) in commands {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&path), "`{path} --help` has no example");
        assert!(command.get_about().is_some(), "`{path}` does not say what it does");
    }
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_example_is_accepted_by_the_parser() {
    let mut commands = vec![("iolaus".to_owned(), Cli::command())];
    every(&Cli::command(), "iolaus", &mut commands);
    for (_, command) in commands {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n      ", " ");
        for line in help.lines().filter_map(|line| line.trim().strip_prefix("iolaus ")) {
            let line = line.split(" | ").next().and_then(|line| line.split("   ").next()).unwrap_or_default();
            let words = shell_words(line).into_iter().take_while(|word| !matches!(word.as_str(), ">" | "&"));
            let parsed = Cli::try_parse_from(std::iter::once("iolaus".to_owned()).chain(words));
            assert!(parsed.is_ok(), "`iolaus {line}`: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
    }
}

/// Words as a shell splits them, as far as the examples need it: single quotes hold a word together.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
