//! Keeps the one way in: outside `tenant/answer` nothing touches a response, its headers or its bytes, and nothing decodes a body.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let of_tests = matches!(name, "tests" | "tests.rs" | "scripted.rs" | "recordings.rs");
        if path.is_dir() && !of_tests && !path.ends_with("tenant/answer") {
            sources(&path, into);
        } else if path.is_file() && !of_tests {
            into.push(path);
        }
    }
}

/// A file without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a text");
    let tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..tests].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn only_the_answer_module_touches_what_a_tenant_sends() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 40, "{} files", files.len());
    let touches = [
        "reqwest::Response",
        "Response}",
        "Response,",
        ".chunk(",
        ".bytes().await",
        ".text().await",
        ".json().await",
        ".headers()",
        "serde_json::from_slice",
        "serde_json::from_reader",
        "read::<Value>",
        "effect::<Value>",
    ];
    for file in files {
        let code = code(&file);
        for touch in touches {
            assert!(!code.contains(touch), "{} holds `{touch}`: decode answers into fields in tenant/answer", file.display());
        }
    }
}
