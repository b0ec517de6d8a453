//! README keeps its word, as far as that is cheap to check: its commands parse, its links lead somewhere, and the tests that it names
//! are there. Its example of an activity is a doc test of the library.

use std::fs;
use std::path::Path;

use clap::Parser;
use iolaus::cli::Cli;
use regex::Regex;

const README: &str = include_str!("../../README.md");

/// The code blocks in one of these languages.
fn blocks(languages: &[&str]) -> Vec<String> {
    let mut blocks = Vec::new();
    for (n, part) in README.split("```").enumerate().filter(|(n, _)| n % 2 == 1) {
        let (language, text) = part.split_once('\n').unwrap_or_else(|| panic!("block {n} has no text"));
        assert!(!language.is_empty(), "a block that begins with {:?} has no language", text.lines().next());
        if languages.contains(&language) {
            blocks.push(text.replace("\\\n", " "));
        }
    }
    blocks
}

/// Words as a shell splits them, as far as README needs it: quotes hold a word together, and what follows the command is cut off.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            (' ', None) => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    let end = words.iter().position(|word| matches!(word.as_str(), "|" | ">" | "&" | "#")).unwrap_or(words.len());
    words.truncate(end);
    words
}

fn accept(words: &[String]) {
    let parsed = Cli::try_parse_from(std::iter::once("iolaus").chain(words.iter().map(String::as_str)));
    assert!(parsed.is_ok(), "`iolaus {}`: {}", words.join(" "), parsed.err().map(|error| error.to_string()).unwrap_or_default());
}

#[test]
fn every_command_is_accepted_by_the_parser() {
    let mut seen = 0;
    for line in blocks(&["sh", "yaml"]).iter().flat_map(|block| block.lines()) {
        let at = ["iolaus ", "cargo run --release -- "].iter().find_map(|start| {
            let at = line.find(start)?;
            let before = line[..at].trim_end();
            (before.is_empty() || ["|", "script:", "exec worker", "exec cluster-worker-1"].iter().any(|end| before.ends_with(end)))
                .then_some(at + start.len())
        });
        if let Some(at) = at {
            accept(&shell_words(&line[at..]));
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
    let arguments = Regex::new(r"args: \[(.*)\]").unwrap();
    let lists: Vec<_> = blocks(&["yaml"]).iter().filter_map(|block| Some(arguments.captures(block)?[1].to_owned())).collect();
    assert_eq!(lists.len(), 1, "the step of Argo");
    for list in lists {
        accept(&list.split(", ").map(|word| word.trim_matches('"').to_owned()).collect::<Vec<_>>());
    }
}

#[test]
fn every_link_leads_somewhere_and_every_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let link = Regex::new(r"\[(`?)([^\]`]+)`?\]\(([^)#]*)(#[^)]*)?\)").unwrap();
    let named = Regex::new("^[a-z0-9]+(_[a-z0-9]+){3,}$").unwrap();
    let headings: Vec<String> = README.lines().filter_map(|line| Some(anchor(line.strip_prefix("#")?))).collect();
    let mut tests = 0;
    for found in link.captures_iter(README) {
        let (text, target) = (&found[2], &found[3]);
        if let Some(part) = found.get(4) {
            assert!(headings.iter().any(|heading| heading == &part.as_str()[1..]), "there is no heading for {}", part.as_str());
        }
        if target.is_empty() || target.starts_with("https://") {
            continue;
        }
        assert!(root.join(target).exists(), "README links to {target}, which is not there");
        if found[1].is_empty() || !named.is_match(text) {
            continue;
        }
        let code = fs::read_to_string(root.join(target)).unwrap();
        // A macro may make the function: then the name stands before a colon.
        assert!(
            code.contains(&format!("fn {text}(")) || code.contains(&format!(" {text}: ")),
            "README names the test {text}, which is not in {target}"
        );
        tests += 1;
    }
    assert!(tests > 10, "only {tests} tests were found");
}

#[test]
fn every_metric_that_is_named_is_one_of_ours() {
    let ours = concat!(include_str!("../../src/telemetry/names.rs"), include_str!("../../activities/src/tenant/measure.rs"));
    let named = Regex::new(r"`((?:iolaus|messaging|http)_[a-z_]*[a-z])`").unwrap();
    let mut seen = 0;
    for metric in named.captures_iter(README).map(|found| found[1].to_owned()) {
        // As the exporter does: a counter has `_total`, and a unit its name.
        let bare =
            ["_total", "_seconds", "_bytes"].iter().fold(metric.as_str(), |name, end| name.strip_suffix(end).unwrap_or(name));
        assert!(ours.contains(&format!("\"{}\"", bare.replace('_', "."))), "README names the metric {metric}, which is not there");
        seen += 1;
    }
    assert!(seen > 12, "only {seen} metrics were found");
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_key_of_the_short_table_stands_in_the_reference() {
    let reference = include_str!("../../config/default.toml");
    let rows = README.split("## Configuration").nth(1).unwrap().split("## Timeouts").next().unwrap();
    let key = Regex::new(r"(?m)^\| `(?:tenants\.default|database|worker|log)\.([a-z_]+)`(?:, `(?:log\.)?([a-z_]+)`)?").unwrap();
    let keys: Vec<String> = key
        .captures_iter(rows)
        .flat_map(|row| [row.get(1), row.get(2)].into_iter().flatten().map(|key| key.as_str().to_owned()).collect::<Vec<_>>())
        .collect();
    assert!(keys.len() > 8, "{keys:?}");
    for key in keys {
        assert!(reference.contains(&format!("\n{key} = ")) || reference.contains(&format!("\n#{key} = ")), "there is no key {key}");
    }
}
