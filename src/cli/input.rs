//! The input of a job as people write it: `key=value` words, a JSON text, a file. What the words mean is read off the activity's own
//! schema; whether they are right is for the door to say.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use clap::builder::{OsStringValueParser, TypedValueParser};
use iolaus_activities::ActivityInfo;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::exit::Problem;
use super::{signals, strict_json};
use crate::job::limits;

/// The most that is read of an input's text. Larger than any input may be, since a text may be written wide.
const INPUT_TEXT: u64 = 16 * limits::INPUT as u64;

/// Reads an argument that must be text, and names it when it is none.
pub(crate) fn utf8() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new()
        .try_map(|argument| argument.into_string().map_err(|argument| format!("`{}` is not UTF-8", argument.to_string_lossy())))
}

/// `name=value`, both as text.
pub(crate) fn pair(argument: &OsStr) -> Result<(&str, &str), Problem> {
    let text =
        argument.to_str().ok_or_else(|| Problem::usage(format!("argument `{}` is not UTF-8", argument.to_string_lossy())))?;
    text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
        Problem::usage(format!("argument `{text}` is no key=value word"))
            .hint("write key=value, or give the whole input with --input JSON")
    })
}

/// Puts the input together: the JSON, then the words. A key that is given twice is an error.
pub(crate) fn assemble(info: Option<&ActivityInfo>, json: Option<Value>, words: &[OsString]) -> Result<Value, Problem> {
    let mut input = match json {
        None => Map::new(),
        Some(Value::Object(input)) => input,
        Some(other) if words.is_empty() => return Ok(other),
        Some(_) => return Err(Problem::usage("input: must be a JSON object to take key=value words")),
    };
    let schema = info.map(|info| info.input_schema().to_value()).unwrap_or_default();
    for word in words {
        let (key, text) = pair(word)?;
        if input.insert(key.to_owned(), value_of(&schema, key, text)).is_some() {
            return Err(Problem::usage(format!("input.{key}: is given twice")));
        }
    }
    Ok(Value::Object(input))
}

/// A text that should be JSON.
pub(crate) fn parse(text: &str, whence: &str) -> Result<Value, Problem> {
    let value = serde_json::from_str(text).map_err(|error| Problem::usage(format!("{whence} is no JSON: {error}")))?;
    strict_json::check(text).map_err(|error| Problem::usage(format!("{whence}: {error}")))?;
    Ok(value)
}

/// A text that should be the JSON of a request. What is wrong names its field.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let decoded = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." { Problem::usage(inner.to_string()) } else { Problem::usage(format!("{path}: {inner}")) }
    })?;
    deserializer.end().map_err(|error| Problem::usage(error.to_string()))?;
    strict_json::check(text).map_err(|error| Problem::usage(error.to_string()))?;
    Ok(decoded)
}

/// A file that should be JSON; `-` is stdin.
pub(crate) fn parse_file(path: &Path) -> anyhow::Result<Value> {
    let text = read(path, INPUT_TEXT)?;
    Ok(parse(&text, &name_of(path))?)
}

/// A file that should be the JSON of a request; `-` is stdin.
pub(crate) fn decode_file<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = read(path, INPUT_TEXT)?;
    Ok(decode(&text).map_err(|problem| Problem::usage(format!("{}: {problem}", name_of(path))))?)
}

/// A file's text, of at most `limit` bytes; `-` is stdin.
pub(crate) fn read(path: &Path, limit: u64) -> anyhow::Result<String> {
    let name = name_of(path);
    let mut bytes = Vec::new();
    let read = signals::ending(|| {
        if path == Path::new("-") {
            std::io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        }
    });
    read.map_err(|error| Problem::usage(format!("{name} cannot be read: {error}")))?;
    if bytes.len() as u64 > limit {
        return Err(Problem::usage(format!("{name} is longer than {limit} bytes")).into());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::usage(format!("{name} is not UTF-8: byte {at} is part of no character"))
    });
    text.context("nothing was stored")
}

/// What messages call it.
pub(crate) fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { format!("file {}", path.display()) }
}

/// A text where the schema takes a text, JSON elsewhere. What is neither stays a text, and the door names the field.
fn value_of(schema: &Value, key: &str, text: &str) -> Value {
    let properties = &schema["properties"];
    let property = properties.get(key).or_else(|| properties.get(key.replace('-', "_")));
    match property {
        Some(property) if !takes_text(schema, property) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}

fn takes_text(schema: &Value, property: &Value) -> bool {
    let is_string = |kind: &Value| kind == "string";
    let kind = &property["type"];
    let among = |key: &str| property[key].as_array().is_some_and(|any| any.iter().any(|one| takes_text(schema, one)));
    let referred = property["$ref"].as_str().and_then(|at| schema.pointer(at.strip_prefix('#')?));
    is_string(kind)
        || kind.as_array().is_some_and(|kinds| kinds.iter().any(is_string))
        || is_string(&property["const"]["type"])
        || among("anyOf")
        || among("oneOf")
        || among("allOf")
        || referred.is_some_and(|referred| takes_text(schema, referred))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iolaus_activities::*;
    use serde::{Deserialize, Serialize};
    use serde_json::json;
    use std::os::unix::ffi::OsStringExt;

    struct Sample;

    #[derive(Serialize, Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Older {
        /// One.
        Wait,
        /// Other.
        Fail,
    }

    #[derive(Serialize, Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Input {
        user_id: String,
        idempotent: Option<bool>,
        since: Option<String>,
        older: Option<Older>,
        count: Option<u32>,
        names: Option<Vec<String>>,
    }

    impl Activity for Sample {
        const NAME: &'static str = "sample";
        type Input = Input;
        async fn run(&self, _: &ActivityContext, _: Input) -> Result<Verdict, ActivityError> {
            Ok(Verdict::passed("yes"))
        }
    }

    fn words(words: &[&str]) -> Result<Value, Problem> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        assemble(Some(&ActivityInfo::of::<Sample>()), None, &words)
    }

    #[test]
    fn a_word_is_a_text_where_the_schema_takes_a_text_and_json_elsewhere() {
        let input =
            words(&["user_id=12", "idempotent=false", "since=2026-01-01T00:00:00Z", "older=wait", "count=3", "names=[\"a\"]"]);
        let expected = json!({"user_id": "12", "idempotent": false, "since": "2026-01-01T00:00:00Z", "older": "wait", "count": 3, "names": ["a"]});
        assert_eq!(input.expect("it parses"), expected);
    }

    #[test]
    fn what_is_neither_stays_a_text_for_the_door_to_refuse() {
        let input = words(&["count=many", "unknown=1", "user-id=7", "x=a=b", "user_id="]).expect("it parses");
        assert_eq!(input, json!({"count": "many", "unknown": "1", "user-id": "7", "x": "a=b", "user_id": ""}));
    }

    #[test]
    fn bad_words_are_refused_by_name() {
        for (given, part) in
            [(&["alone"][..], "`alone`"), (&["=x"], "`=x`"), (&["user_id=1", "user_id=2"], "input.user_id: is given twice")]
        {
            let text = words(given).expect_err("it is refused").to_string();
            assert!(text.contains(part), "{text}");
        }
        let broken = vec![OsString::from_vec(b"user_id=\xff".to_vec())];
        let text = assemble(None, None, &broken).expect_err("it is refused").to_string();
        assert!(text.contains("user_id=") && text.contains("not UTF-8"), "{text}");
    }

    #[test]
    fn words_add_to_the_json_but_never_overwrite_it() {
        let word = [OsString::from("count=3")];
        let info = ActivityInfo::of::<Sample>();
        assert_eq!(assemble(Some(&info), Some(json!({"a": 1})), &word).expect("it parses"), json!({"a": 1, "count": 3}));
        assert!(assemble(Some(&info), Some(json!({"count": 1})), &word).is_err());
        assert!(assemble(Some(&info), Some(json!([1])), &word).is_err());
        assert_eq!(assemble(Some(&info), Some(json!([1])), &[]).expect("the door refuses it"), json!([1]));
    }

    #[test]
    fn a_file_that_is_not_utf_8_or_too_long_is_refused_by_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("in.json");
        std::fs::write(&file, b"{\"a\": \"\xff\"}").expect("written");
        let text = format!("{:#}", read(&file, 100).expect_err("it is refused"));
        assert!(text.contains("in.json is not UTF-8: byte 7"), "{text}");
        assert!(format!("{:#}", read(&file, 3).expect_err("it is refused")).contains("longer than 3 bytes"));
        assert!(format!("{:#}", read(Path::new("/nowhere"), 3).expect_err("it is refused")).contains("/nowhere"));
    }
}
